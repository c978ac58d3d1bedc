"""The images of all splits of a selection as one sequence, so that each has one number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convit.data.duplicates import Place
from convit.data.image_sets import ImageSet


@dataclass(frozen=True)
class Pictures:
    """N images: those of the first split, then those of the next."""

    sets: Mapping[str, ImageSet]
    """Split -> images, all with the same class names."""
    run_split: Mapping[str, str] | None = None
    """Name -> ``train`` or ``val``, as a run split images that had no splits of their own."""

    def __len__(self) -> int:
        return len(self._places)

    @cached_property
    def _places(self) -> list[Place]:
        return [(split, i) for split, images in self.sets.items() for i in range(len(images))]

    @cached_property
    def targets(self) -> NDArray[np.int64]:
        """(N,) the class of each."""
        return np.concatenate([images.targets for images in self.sets.values()])

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes."""
        return next(iter(self.sets.values())).class_names

    @cached_property
    def splits(self) -> list[str]:
        """The split of each: ``train``, ``val``, ``test``, or ``all`` where they are not divided."""
        own = self.run_split or {}
        return [own.get(self.sets[split].names[i], split) for split, i in self._places]

    @cached_property
    def number(self) -> dict[Place, int]:
        """The number of each image by its split in ``sets`` and its index there."""
        return {place: i for i, place in enumerate(self._places)}

    def place(self, i: int) -> tuple[ImageSet, int]:
        """The set of image ``i``, and its index there."""
        split, index = self._places[i]
        return self.sets[split], index

    def name(self, i: int) -> str:
        """The name of image ``i`` in its set."""
        images, index = self.place(i)
        return images.names[index]

    def class_name(self, i: int) -> str:
        """The class of image ``i``."""
        return self.class_names[self.targets[i]]

    def read(self, i: int) -> Image.Image:
        """Image ``i``, upright, RGB. Raises :class:`convit.InputError` if it does not decode."""
        images, index = self.place(i)
        return images.read(index)

    def scaled(self, full_scale: float | None) -> "Pictures":
        """The same with another full scale."""
        return Pictures({split: images.scaled(full_scale) for split, images in self.sets.items()}, self.run_split)

    def across(self, members: Sequence[int]) -> tuple[bool, bool]:
        """Whether some images are of several splits, and of several classes."""
        return len({self.splits[i] for i in members}) > 1, len({int(self.targets[i]) for i in members}) > 1
