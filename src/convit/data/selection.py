"""Selected images, and the facts about them that a plan is made from."""

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Self

import msgspec
import numpy as np
from msgspec import Meta

from convit.data.image_sets import ImageSet
from convit.data.record import describe
from convit.data.scan import BadImage, shorter_sides
from convit.data.sources import Source
from convit.errors import InputError

_Number = Annotated[int, Meta(ge=0)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What a plan is made from."""

    name: str
    """A short name, such as the data set's or the folder's."""
    root: str
    """The value of DATA that opens the images again, from any working directory."""
    class_names: tuple[str, ...]
    counts: dict[str, tuple[_Number, ...]]
    """Split -> how many images each class has in it."""
    available: _Number
    """The number of training images before a subset was drawn."""
    native_size: Annotated[int, Meta(ge=1)]
    """Median of the training images' shorter sides, in pixels."""
    sides: tuple[_Number, _Number]
    """The smallest and the largest of those shorter sides."""
    flip: bool
    """Whether a mirrored image still shows its class."""
    left_out: _Number
    """Files that do not decode."""
    ignored: _Number
    """Files that are no images by their names."""
    notes: tuple[str, ...]
    """What else was left out, and what a person should know of the images, each in one line."""
    full_scale: float | None = None
    """The value that is white where grey values are floats or have more than 8 bits; None where all have 8 bits."""

    @property
    def images(self) -> int:
        """The number of training images."""
        return sum(self.counts["train"])

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON knows them."""
        counts = {split: list(numbers) for split, numbers in self.counts.items()}
        listed = {name: list(getattr(self, name)) for name in ("class_names", "sides", "notes")}
        return asdict(self) | {**listed, "counts": counts}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`.

        Raises:
            InputError: an unknown or missing key, a wrong type, or counts that are not of these classes.
        """
        known = {entry.name for entry in fields(cls)}
        if odd := sorted(set(values) ^ known):
            how = "unknown" if odd[0] in values else "missing"
            raise InputError(f"facts: {how} key {odd[0]!r}; expected {', '.join(sorted(known))}")
        try:
            facts = msgspec.convert(dict(values), cls)
        except msgspec.ValidationError as error:
            raise InputError(f"facts: {' '.join(str(error).split())}") from error
        if any(len(numbers) != len(facts.class_names) for numbers in facts.counts.values()):
            raise InputError(f"facts: counts of other classes; expected one for each of {len(facts.class_names)}")
        return facts


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The images that were chosen."""

    name: str
    """A short name, such as the data set's or the folder's."""
    root: str
    """The value of DATA that opens them again, from any working directory."""
    class_names: tuple[str, ...]
    splits: Mapping[str, ImageSet]
    """For training: ``train``, ``val`` and, if there is one, ``test``. For evaluation: the selected one, or ``all``.
    Each has these ``class_names``."""
    source: Source
    """The source, before anything was held out or drawn, without the images that were left out."""
    available: int
    """Images to learn from before ``fraction`` or ``per_class``; to evaluate on, how many there are."""
    left_out: tuple[BadImage, ...] = ()
    notes: tuple[str, ...] = ()
    """What a person should know of the choice, each in one line."""

    @property
    def flip(self) -> bool:
        """Whether a mirrored image still shows its class."""
        return self.source.flip

    @property
    def ignored(self) -> tuple[str, ...]:
        """Files that are no images by their names."""
        return self.source.ignored

    @property
    def full_scale(self) -> float | None:
        """The value that is white where grey values are floats or have more than 8 bits, where it is known."""
        return next(iter(self.splits.values())).full_scale

    @functools.cached_property
    def record(self) -> dict[str, Any]:
        """Names, labels and contents of the images, to detect changes later (:func:`convit.data.record.describe`)."""
        return describe(self.class_names, self.splits)

    def facts(self) -> Facts:
        """What a plan is made from. Reads the headers of up to 200 images, and decodes none.

        Raises:
            InputError: there is no image, or none can be read.
        """
        sides = shorter_sides(self.splits.get("train", next(iter(self.splits.values()))))
        return Facts(
            name=self.name,
            root=self.root,
            class_names=self.class_names,
            counts={split: tuple(chosen.counts().tolist()) for split, chosen in self.splits.items()},
            available=self.available,
            native_size=int(np.median(sides)),
            sides=(int(sides.min()), int(sides.max())),
            flip=self.flip,
            left_out=len(self.left_out),
            ignored=len(self.ignored),
            notes=self.notes,
            full_scale=self.full_scale,
        )
