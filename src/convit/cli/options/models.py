"""What ``convit models`` can be told."""

from dataclasses import dataclass

from convit.cli.options import JsonTarget


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """List the models."""

    json: JsonTarget = None
    """Print one JSON document and nothing else, or write it to this .json file."""
