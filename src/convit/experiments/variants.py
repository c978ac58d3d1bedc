"""What is compared with what: a model, its plain-attention twin, and the rows of the paper's Table 3.

The variants and rows here have the model's width, heads, depth and position embeddings, and are trained by the same
recipe on the same images in the same order, with the same augmentation, mixup and number of steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """A model that differs from ConViT in one thing, or is trained otherwise in one."""

    title: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Fields of :class:`convit.train.ModelConfig`."""
    optim: Mapping[str, Any] = field(default_factory=dict)
    """Fields of :class:`convit.train.OptimConfig`."""
    augment: Mapping[str, Any] = field(default_factory=dict)
    """Fields of :class:`convit.train.AugmentConfig`."""
    ticks: tuple[bool, bool, bool, bool] = (True, True, True, True)
    """Columns of Table 3: train gating, convolutional start, train GPSA, use GPSA."""


VARIANTS = {
    "convit": Variant(title="ConViT"),
    "twin": Variant(title="plain attention", changes={"local_up_to_layer": 0}, ticks=(False, False, False, False)),
    "psa": Variant(title="ungated PSA", changes={"ungated": True}),
}
"""ConViT; its twin, with plain attention in every block (DeiT of the same width and heads); figure 9's ungated PSA."""

TABLE_3 = {
    "a": VARIANTS["convit"],
    "b": Variant(title="gates fixed at one half", changes={"freeze_gates": True}, ticks=(False, True, True, True)),
    "c": Variant(title="no convolutional start", changes={"random_start": True}, ticks=(True, False, True, True)),
    "d": Variant(
        title="b and c",
        changes={"freeze_gates": True, "random_start": True},
        ticks=(False, False, True, True),
    ),
    "e": VARIANTS["twin"],
    "f": Variant(
        title="GPSA frozen",
        changes={"freeze_gates": True, "freeze_gpsa": True},
        ticks=(False, True, False, True),
    ),
    "g": Variant(
        title="GPSA frozen, no convolutional start",
        changes={"freeze_gates": True, "freeze_gpsa": True, "random_start": True},
        ticks=(False, False, False, True),
    ),
}
"""The rows of Table 3.

- a: ConViT.
- b: every gate stays at one half (logit 0), so content and position weigh alike.
- c: queries, keys, values and positions of GPSA start from the normal of 0.02 of every other weight; gates as in a.
- d: b and c together.
- e: plain attention in every block (DeiT).
- f: the attention of the GPSA blocks (queries, keys, values, positions, projection) stays at its convolutional start,
  the gates at one half; perceptrons, norms, embeddings, the last blocks and the head learn.
- g: as f, from the start of c: fixed, random attention.
"""
