"""Results that no run made."""

from collections.abc import Mapping, Sequence
from typing import Any

from convit.experiments import Result


def made(
    variant: str,
    seed: int,
    top1: float,
    *,
    labels: Mapping[str, Any] | None = None,
    measured: Mapping[str, float] | None = None,
    history: Sequence[Mapping[str, Any]] = (),
    part: str = "test",
) -> Result:
    """A result of a model called m."""
    return Result(
        name=f"m-{variant}-seed_{seed}",
        labels={"model": "m", "variant": variant, "fraction": 1.0, **(labels or {})},
        seed=seed,
        part=part,
        images=50,
        top1=top1,
        top5=100.0,
        loss=0.5,
        val_top1=top1 - 1,
        best_epoch=2,
        epochs=3,
        seconds=1.5,
        parameters=1_250_000,
        flops=40_000_000,
        measured=measured or {},
        asked={"name": "x"},
        config={"data": "d", "optim": {"lr": 0.1}, "run": {"seed": seed}},
        history=tuple(history),
    )
