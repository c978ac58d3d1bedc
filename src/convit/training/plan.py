"""A run with every value decided: made by :mod:`convit.training.planning`, and stored in the run folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from convit.data import Augmentation, Preprocess, shown
from convit.data.copies import Fitted, Reduced
from convit.data.packs import Cache, Packs
from convit.data.select import Facts
from convit.errors import brief
from convit.files import fingerprint
from convit.models.ranges import check_of_file, check_ranges
from convit.options import make
from convit.training.options import Asked

MAY_CHANGE = ("cache_gb", "data", "data_root", "device", "out", "overwrite", "resume", "save_minutes", "workers")
"""Options that do not change the result of a run, so that they may differ when it is resumed."""
PLACES = ("weights", "teacher_weights")
"""Options that name files: their content has a fingerprint of its own, their paths do not count."""
LEAST_SEEN, MOST_SEEN = 200, 1000
"""Bounds of :attr:`Plan.seen_images`."""

_PLAIN = {"given": dict, "reasons": dict, "model_args": dict, "blocks": int, "side": int, "keep_head": bool}
"""Fields that are JSON values themselves, and of which type."""


class PacksOfRun(NamedTuple):
    """Where the copies of a run's images are kept."""

    learning: Packs
    """Of images to learn from."""
    measuring: Packs
    """Of images to validate and to test on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A run with every value decided."""

    given: Mapping[str, Any]
    """The options that were given, as JSON values."""
    facts: Facts
    options: Asked
    """All options with their values, as in ``config.yaml``."""
    model_args: dict[str, Any]
    """Keywords of the model besides ``num_classes``, as JSON values."""
    blocks: int
    """Of the model."""
    preprocess: Preprocess
    side: int
    """Pixels of the shorter side to which images are reduced before a part of them is learned from
    (:func:`convit.data.copies.learning_side`)."""
    keep_head: bool
    """Whether the weights to start from have the same classes, so that their head is kept."""
    reasons: dict[str, str]
    """What was decided, and why, by option."""
    sources: dict[str, str] = field(default_factory=dict)
    """Fingerprints of the images, of the weights to start from and of the teacher's."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of the model's outputs."""
        return self.facts.class_names

    @property
    def images(self) -> int:
        """The number of training images."""
        return self.facts.images

    @property
    def seen_images(self) -> int:
        """On how many of the training images the best model is evaluated at the end, beside images new to it."""
        counts = {split: sum(images) for split, images in self.facts.counts.items()}
        most = min(MOST_SEEN, max(LEAST_SEEN, counts.get("test", counts["val"])))
        return min(counts["train"], most)

    @property
    def epochs(self) -> int:
        """How many there are at most."""
        assert self.options.epochs is not None
        return self.options.epochs

    @property
    def batch_size(self) -> int:
        """Images of one step."""
        assert self.options.batch_size is not None
        return self.options.batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch; the images beyond a multiple of the batch are left out, other ones in each epoch."""
        return shown(self.images, self.options.repeated_augmentation or 1) // self.batch_size

    @property
    def first_size(self) -> tuple[int, int]:
        """Height and width of the images in the first epochs."""
        sides = self.options.first_size
        assert sides is not None
        return sides[0], sides[-1]

    @property
    def starts_from_weights(self) -> bool:
        """Whether the run starts from weights, not from scratch."""
        return self.options.pretrained or self.options.weights is not None

    @property
    def packs(self) -> "PacksOfRun":
        """Where the copies of its images are kept."""
        cache = Cache(self.options.cache_gb)
        ways = Reduced(self.side), Fitted.to(self.preprocess)
        return PacksOfRun(*(cache.of(self.facts.root, way) for way in ways))

    @property
    def augmentation(self) -> Augmentation:
        """What training does to an image."""
        o = self.options
        assert o.crop is not None
        return Augmentation(
            crop=o.crop,
            scale=o.crop_scale or 1.0,
            flip=bool(o.flip),
            rand_augment=o.rand_augment or "",
            color_jitter=o.color_jitter or 0.0,
            random_erasing=o.random_erasing or 0.0,
        )

    @property
    def fingerprint(self) -> str:
        """Equal for two plans only if they give the same run: all options that change the result, images and weights.

        Paths and the device do not count.
        """
        options = {k: v for k, v in self.options.to_dict().items() if k not in (*MAY_CHANGE, *PLACES)}
        counts = {split: list(images) for split, images in self.facts.counts.items()}
        model = [self.model_args, list(self.class_names), self.preprocess.to_dict()]
        return fingerprint([options, *model, counts, self.side, self.keep_head, self.sources])

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON values, with a checksum of them."""
        values = {
            "given": dict(self.given),
            "facts": self.facts.to_dict(),
            "reasons": self.reasons,
            "options": self.options.to_dict(),
            "model_args": self.model_args,
            "blocks": self.blocks,
            "preprocess": self.preprocess.to_dict(),
            "side": self.side,
            "keep_head": self.keep_head,
            "sources": self.sources,
            "fingerprint": self.fingerprint,
        }
        return values | {"checksum": fingerprint(values)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`.

        Raises:
            InputError, KeyError, TypeError, ValueError: values of something else.
        """
        plain = {name: values[name] for name in _PLAIN}
        for name, kind in _PLAIN.items():
            if type(plain[name]) is not kind:
                raise TypeError(f"{name}: got {brief(plain[name])}, expected a {kind.__name__}")
        check_of_file(plain["model_args"])
        check_ranges({"depth": plain["blocks"]})
        sources = dict(values["sources"])
        if not all(isinstance(value, str) for value in sources.values()):
            raise TypeError(f"sources: got {brief(sources)}, expected fingerprints")
        return cls(
            **plain,
            facts=Facts.from_dict(values["facts"]),
            options=make(Asked, values["options"]),
            preprocess=Preprocess.from_dict(values["preprocess"]),
            sources=sources,
        )
