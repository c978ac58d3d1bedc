"""What ``convit models`` can be told."""

from dataclasses import dataclass

from convit.cli.options import Command, JsonTarget


@dataclass(frozen=True, kw_only=True)
class ModelsCommand(Command):
    """List the models: parameters, FLOPs, input size, accuracy in the paper."""

    json: JsonTarget = None
    """Print one JSON document and nothing else, or write it to this .json file."""
