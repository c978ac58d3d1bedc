"""What every argument of a ConViT may be: one table, held before anything is built or allocated.

Arguments come from people, and from the config.json of models that somebody else hands over.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from convit.choices import FAN_IN
from convit.errors import InputError, brief, is_number, is_whole


@dataclass(frozen=True, slots=True)
class Range:
    """What a value has to be."""

    holds: Callable[[Any], bool]
    expected: str


def _whole(low: int, high: int) -> Range:
    return Range(lambda value: is_whole(value) and low <= value <= high, f"a whole number from {low} to {high}")


def _number(low: float, high: float, *, above: bool = False) -> Range:
    """A number between two bounds; with ``above`` not the lower one itself."""

    def holds(value: Any) -> bool:
        return is_number(value) and low <= value <= high and not (above and value == low)

    start = f"above {low:g} and up to" if above else f"from {low:g} to"
    return Range(holds, f"a positive number {start} {high:g}" if above else f"a number {start} {high:g}")


def _are_sides(value: Any) -> bool:
    sides = value if isinstance(value, tuple | list) else (value, value)
    return len(sides) == 2 and all(SIDE.holds(side) for side in sides)


SIDE, PART = _whole(1, 8192), _number(0, 1)
YES_OR_NO = Range(lambda value: isinstance(value, bool), "True or False")
POOLINGS = ("token", "avg", "")

RANGES = {
    "img_size": Range(_are_sides, "a whole number from 1 to 8192, or two, (height, width)"),
    "patch_size": SIDE,
    "in_chans": _whole(1, 4096),
    "num_classes": _whole(0, 10**7),
    "global_pool": Range(lambda value: value in POOLINGS, "'token', 'avg' or '' for none"),
    "class_token": YES_OR_NO,
    "embed_dim": _whole(1, 65536),
    "depth": _whole(1, 1000),
    "num_heads": _whole(1, 4096),
    "mlp_ratio": _number(0, 64, above=True),
    "qkv_bias": YES_OR_NO,
    **dict.fromkeys(("drop_rate", "pos_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"), PART),
    "hybrid_backbone": Range(lambda value: value is None or isinstance(value, str | nn.Module), "a name or a module"),
    "norm_layer": Range(callable, "a norm's constructor"),
    "batch_norm": YES_OR_NO,
    "local_up_to_layer": _whole(0, 1000),
    "locality_strength": _number(0, 1e6, above=True),
    "use_pos_embed": YES_OR_NO,
    "gated": YES_OR_NO,
    "conv_init": YES_OR_NO,
    "gate_init": _number(-1e6, 1e6),
    "weight_std": Range(
        lambda value: value == FAN_IN or (is_number(value) and 0 < value <= 100), f"a positive number, or {FAN_IN!r}"
    ),
}
"""By argument of :class:`convit.ConViT`; all of them but ``device`` and ``dtype``."""
NOT_OF_A_FILE = ("norm_layer", "num_classes")
"""Arguments that no file gives: a constructor, and what its class names say."""


def check_ranges(arguments: Mapping[str, Any]) -> None:
    """Holds arguments of :class:`convit.ConViT`, by name, against the table and against each other.

    Raises:
        InputError: the first that is out of its range.
    """
    for name, value in arguments.items():
        if not RANGES[name].holds(value):
            raise InputError(f"{name}: got {brief(value)}, expected {RANGES[name].expected}")
    depth, local = arguments.get("depth", math.inf), arguments.get("local_up_to_layer", 0)
    if local > depth:
        raise InputError(f"local_up_to_layer: got {local}, expected 0 to the depth, {depth}")


def check_of_file(arguments: Mapping[str, Any]) -> None:
    """The same for the arguments in a file of somebody else, which says nothing of devices and modules.

    Raises:
        InputError: another name, or a value out of its range.
    """
    unknown = [name for name in arguments if name not in RANGES or name in NOT_OF_A_FILE]
    if unknown:
        raise InputError(f"unknown model_args {brief(sorted(unknown))}; expected arguments of ConViT")
    check_ranges(arguments)
