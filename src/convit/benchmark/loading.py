"""What loading costs beside a training step: each part alone, and the whole loop, in which one waits for the other."""

import itertools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from convit.benchmark.steps import training_step, wait_for
from convit.data import Augmentation, FileImages, ImageSet, Preprocess, SampleDataset, normalised, training_transform
from convit.data.copies import Reduced, learning_side
from convit.data.keeping import keep
from convit.data.packs import Packs
from convit.events import Advanced, Listener, PassBegan, ignore
from convit.models import create_model

MODEL, SIDE, BATCH_SIZE = "convit_mini_patch8_128", 128, 16
AUGMENTATION = Augmentation(scale=0.35, flip=True, rand_augment="rand-m6-mstd0.5-inc1")
"""As ``convit train`` does it with photos."""
MOST_IMAGES = 64
"""Of so many images the times are taken; the median counts."""
STEPS = 12
"""Steps of a loop that count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Loading:
    """Seconds of an image, of each kind of work."""

    images: str
    """What they are, in words."""
    decode: float
    """Decoded at its whole size, on one core."""
    copy: float
    """Decoded reduced, and a copy of it made, on one core: once, before the first epoch."""
    read: float
    """A copy read."""
    augment: float
    """Made a part of a batch from a copy, on one core: at every epoch."""
    normalise: float
    """Of a batch."""
    step: float
    """Of a batch, on tensors in memory."""
    loops: dict[int, float] = field(default_factory=dict)
    """By the number of loader processes: the loop of both."""
    threads: int
    """Of PyTorch."""

    def waits(self, workers: int) -> float:
        """The part of a loop, 0 to 1, in which the step waits for images, or for a core that loading took."""
        return max(0.0, 1 - (self.normalise + self.step) / self.loops[workers])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self) | {"waits": {workers: self.waits(workers) for workers in self.loops}}

    def lines(self) -> list[str]:
        """The same in words."""
        rows = (
            ("decode, whole", self.decode, "what each epoch would take without copies; one core"),
            ("decode, reduced, and copy", self.copy, "once, before the first epoch; one core"),
            ("read a copy", self.read, "one core"),
            ("augment", self.augment, "one core"),
            ("normalise", self.normalise, "a batch at once"),
            (f"step of {MODEL}", self.step, f"batch {BATCH_SIZE}, {self.threads} threads"),
        )
        lines = [self.images, f"{'':32}{'ms an image':>12}"]
        lines += [f"{name:32}{1000 * seconds:12.2f}  {why}" for name, seconds, why in rows]
        for workers, seconds in self.loops.items():
            loaders = (
                "1 process loads" if workers == 1 else f"{workers} processes load" if workers else "no process loads"
            )
            waits = self.waits(workers)
            what = "loading keeps up" if waits <= 0.1 else f"the step waits for loading {waits:.0%} of the time"
            lines.append(f"{loaders:32}{1000 * seconds:12.2f}  {1 - waits:.2f} of the step's rate: {what}")
        return lines


def measure_loading(images: ImageSet, folder: Path, device: torch.device, tell: Listener = ignore) -> Loading:
    """Times each kind of work.

    Args:
        images: to learn from; up to :data:`MOST_IMAGES` of them are taken.
        folder: an empty one, for copies.
        device: where the step runs.
        tell: the listener that gets the progress.
    """
    images = images.subset(np.linspace(0, len(images) - 1, min(len(images), MOST_IMAGES)).astype(int))
    preprocess = Preprocess(image_size=(SIDE, SIDE), full_scale=images.full_scale)
    packs = Packs(folder, Reduced(learning_side(preprocess.image_size, AUGMENTATION.scale)), limit=10**10)
    fresh = packs.copies(images)
    every = range(len(images))
    tell(PassBegan("decoding", 2 * len(images)))
    decode = _median(images.read, every, tell)
    copy = _median(fresh.made, every, tell)
    keep([(images, packs)], "copying", tell)
    copies = packs.copies(images)
    dataset = SampleDataset(copies, training_transform(preprocess, AUGMENTATION), seed=0)
    keys = itertools.cycle((epoch, index) for epoch in range(BATCH_SIZE) for index in every)
    batches = [list(itertools.islice(keys, BATCH_SIZE)) for _ in range(STEPS + 2)]
    tell(PassBegan("augmenting", len(images)))
    read = _median(copies.read, every, ignore)
    sample = _median(lambda index: dataset.__getitems__(batches[index % len(batches)]), every, tell) / BATCH_SIZE

    buffer = torch.zeros(BATCH_SIZE, 3, SIDE, SIDE, device=device)
    pixels = torch.stack([picture for picture, _ in dataset.__getitems__(batches[0])])
    wait = wait_for(device)

    def normalise(_: object) -> None:
        buffer.copy_(normalised(pixels.to(device), preprocess))
        wait()

    step = training_step(create_model(MODEL, num_classes=2).to(device), buffer)

    def do_step(_: object) -> None:
        step()
        wait()

    tell(PassBegan("training", STEPS * BATCH_SIZE))
    do_step(0)
    alone = _median(do_step, range(STEPS), lambda event: tell(Advanced(BATCH_SIZE)))
    by_itself = _median(normalise, range(STEPS), ignore)

    loops = {}
    for workers in dict.fromkeys((0, min(8, os.cpu_count() or 1))):
        tell(PassBegan(f"training, {workers} processes load", STEPS * BATCH_SIZE))
        loader = DataLoader(dataset, batch_sampler=batches, num_workers=workers)
        began = 0.0
        for number, (loaded, _) in enumerate(_left_open(loader)):
            if number == 2:  # the first find the processes still starting
                began = time.perf_counter()
            buffer.copy_(normalised(loaded.to(device), preprocess))
            do_step(0)
            if number >= 2:
                tell(Advanced(BATCH_SIZE))
        loops[workers] = (time.perf_counter() - began) / (STEPS * BATCH_SIZE)
    width, height = images.size(0)
    return Loading(
        images=f"{len(images)} images, such as {images.where(0)} of {width} x {height} pixels",
        decode=decode,
        copy=copy,
        read=read,
        augment=max(0.0, sample - read),
        normalise=by_itself / BATCH_SIZE,
        step=alone / BATCH_SIZE,
        loops=loops,
        threads=torch.get_num_threads(),
    )


def _left_open(loader: DataLoader[Any]) -> Iterator[Any]:
    """The batches; the loader's processes end after the last one was used, so that their end is in nobody's time."""
    batches = iter(loader)
    yield from batches


def _median(work: Callable[[int], object], items: range, tell: Listener) -> float:
    """Median seconds of the work on an item."""
    seconds = []
    for item in items:
        began = time.perf_counter()
        work(item)
        seconds.append(time.perf_counter() - began)
        tell(Advanced(1))
    return median(seconds)


def make_photos(folder: Path, count: int, size: tuple[int, int] = (4000, 3000), suffix: str = ".jpg") -> FileImages:
    """Writes photos with texture of every scale, as those of a camera have: noise alone would be twice the bytes, and a
    single colour a hundredth. They are of two classes, of which one is brighter.

    Args:
        folder: where; class folders are made in it.
        count: how many in all.
        size: (width, height).
        suffix: the format.
    """
    rng = np.random.default_rng(0)
    width, height = size
    canvas = np.zeros((height + height // 4, width + width // 4, 3), np.float32)
    scale = 2
    while scale <= 1024:
        small = rng.integers(0, 256, (-(-canvas.shape[0] // scale), -(-canvas.shape[1] // scale), 3), dtype=np.uint8)
        large = Image.fromarray(small).resize((canvas.shape[1], canvas.shape[0]), Image.Resampling.BICUBIC)
        canvas += (np.asarray(large, np.float32) - 128) * (0.05 * scale**0.35)
        scale *= 2
    texture = (canvas + 110).clip(0, 215).astype(np.uint8)
    names = []
    for number in range(count):
        top, left = (int(rng.integers(0, room + 1)) for room in (height // 4, width // 4))
        pixels = texture[top : top + height, left : left + width] + np.uint8(40 * (number % 2))
        name = f"{'ab'[number % 2]}/{number:04}{suffix}"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[:, :: 1 - 2 * (number % 3 == 0)]).save(folder / name, quality=90, compress_level=1)
        names.append(name)
    return FileImages(folder, names, [number % 2 for number in range(count)], ("a", "b"))
