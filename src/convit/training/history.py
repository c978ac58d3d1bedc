"""The history of a run, a record for each epoch: whether it is one that a run can go on from."""

from collections.abc import Sequence
from typing import Any

from convit.errors import brief


def check_history(history: Sequence[Any]) -> None:
    """Whether it is a record for each epoch, in order, with the numbers that a run goes by.

    Raises:
        ValueError: it is not.
    """
    for number, record in enumerate(history, start=1):
        if not isinstance(record, dict) or record.get("epoch") != number:
            raise ValueError(f"record {number}: {brief(record)}, none of epoch {number}")
        if missing := [name for name in history[0] if name not in record]:
            raise ValueError(f"record {number}: no {brief(missing[0])}, which the first has")
        for name in ("train_loss", "val_loss", "val_top1", "seconds", *(["val_top5"] if "val_top5" in record else [])):
            if not _is_number(record.get(name)):
                raise ValueError(f"record {number}: {name} is {brief(record.get(name))}, no number")
        if _shape(record.get("gates")) is None or _shape(record["gates"]) != _shape(history[0]["gates"]):
            raise ValueError(f"record {number}: gates are {brief(record.get('gates'))}, no numbers by layer and head")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not abs(value) > 1e300


def _shape(gates: object) -> list[int] | None:
    """How many heads each layer has; None for what are no gates."""
    rows: list[Any] = gates if isinstance(gates, list) else [None]
    good = all(isinstance(row, list) and all(_is_number(gate) for gate in row) for row in rows)
    return [len(row) for row in rows] if good else None
