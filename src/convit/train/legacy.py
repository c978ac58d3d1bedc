"""Runs that an earlier version began: the values that were in effect then, for options that are newer."""

from typing import Any

WITHOUT_POSITION_LR = {"position_lr": 1.0}
"""Options of the schedule that runs lack which began before gates and centres had a learning rate of their own."""
WITHOUT_RECIPES = {"recipe": "small", "layer_decay": 1.0}
"""Options of the schedule that runs lack which are older than recipes: all of them started from scratch."""


def as_it_was(values: Any, crop_pct: float) -> Any:
    """The content of a run's ``config.yaml`` with the values that newer options had in effect; complete as it is else.

    Args:
        values: nested plain values; what is no dictionary is returned as it is, for others to refuse.
        crop_pct: what the run's model is evaluated with.
    """
    groups = ("model", "optim", "augment")
    if not isinstance(values, dict) or not all(isinstance(values.get(group), dict) for group in groups):
        return values
    model, optim, augment = (values[group] for group in groups)
    if isinstance(optim.get("lr"), float):
        optim = WITHOUT_POSITION_LR | optim
        values = values | {"optim": optim}
    if model.get("pretrained") or model.get("weights"):  # it was written down, and had no effect
        values = values | {"model": model | {"locality_strength": None}}
        model = values["model"]
    if "ema_decay" in optim or not isinstance(optim.get("lr"), float):
        return values
    optim = WITHOUT_RECIPES | {"warmup_lr": optim["lr"] / 100, "ema_decay": 0.0} | optim
    if optim.get("clip_grad", 1.0) is None:  # then it meant no limit
        optim["clip_grad"] = 0.0
    return values | {
        "model": {"crop_pct": crop_pct} | model,
        "optim": optim,
        "augment": {"repeated_augmentation": 1} | augment,
    }
