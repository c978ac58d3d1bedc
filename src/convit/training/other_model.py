"""A model that a study trains in the place of the ConViT that a plan is made for."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import nn

from convit.models import ConViT
from convit.training.plan import Plan

Build = Callable[[int, tuple[int, int]], nn.Module]
"""From the number of classes, and height and width of the images, to a model: ``(B, 3, H, W)`` to logits.

The model has what the trainer asks a ConViT for: ``num_classes``, ``in_chans``, ``first_conv`` and
``no_weight_decay()``.
"""

ONLY_CONVIT = ("patch_size", "local_up_to_layer", "locality_strength", "drop_path")
"""Options that a plan decides, and that mean nothing for another model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OtherModel:
    """A model that is no ConViT, for the trainer: same images, order, augmentation, optimiser and schedule.

    Its run folder is that of ``convit train`` and says what was trained, so ``convit train`` does not resume or repeat
    it, and :func:`convit.load` does not read it: whoever made it goes on with it.
    """

    name: str
    """What its run folder calls it."""
    build: Build

    def plan(self, plan: Plan) -> Plan:
        """The plan of a ConViT with this model in its place; what only a ConViT has is left out."""
        size = plan.preprocess.image_size
        only_convit: dict[str, Any] = dict.fromkeys(ONLY_CONVIT)
        return replace(
            plan,
            options=replace(plan.options, model=self.name, **only_convit),
            model_args={"img_size": list(size)},
            reasons={name: why for name, why in plan.reasons.items() if name not in ("model", *ONLY_CONVIT)},
        )

    def make(
        self, name: str, *, num_classes: int, img_size: tuple[int, int], device: torch.device | str = "cpu"
    ) -> ConViT:
        """The model with random weights, as :func:`convit.create_model` makes a ConViT of what a ``config.json`` says.

        The trainer uses nothing of it that only a ConViT has.
        """
        assert name == self.name, (name, self.name)
        height, width = img_size
        with torch.device(device):
            return cast(ConViT, self.build(num_classes, (height, width)))
