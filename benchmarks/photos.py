"""Whether photos of a camera are loaded as fast as a model learns them.

    python benchmarks/photos.py
    python benchmarks/photos.py --kind png

It makes 400 JPEGs of 12 megapixels (or PNGs of 4), trains mini at 128 px on them for 3 epochs, and prints the images/s
of each epoch beside those of the bare step, on batches that are in memory; the first epoch also with the pass that
decodes every file before it. Beside them a plain loop over torchvision's ImageFolder with 2 workers, and peak memory.
Copies are kept in a folder of its own, which goes away. Nothing is downloaded.
"""

import argparse
import contextlib
import os
import platform
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from convit.benchmark.loading import make_photos
from convit.events import EpochEnded, Event, PassBegan, ignore
from convit.training import Asked
from convit.training.engine import Trainer
from convit.training.planning import planned
from convit.training.run import train
from convit.training.run_folder import RunFolder
from convit.training.stopping import StopRequest

KINDS = {"jpeg": ((4000, 3000), ".jpg"), "png": ((2304, 1728), ".png")}


def main() -> None:
    """Makes the photos, trains, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=KINDS, default="jpeg")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=None, help="processes that load images [as many as a run takes]")
    parser.add_argument("--plain-images", type=int, default=128, help="how many the plain loop learns")
    options = parser.parse_args()
    (width, height), suffix = KINDS[options.kind]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()} {platform.system()}")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        make_photos(folder / "photos", options.images, (width, height), suffix)
        print(f"{options.images} photos of {width} x {height} pixels ({suffix[1:]})", flush=True)
        asked = Asked(
            data=str(folder / "photos"),
            model="convit_mini_patch8_128",
            epochs=options.epochs,
            first_epochs=0,
            workers=options.workers,
            out=folder / "run",
            device="cpu",
        )
        told = Told()
        train(asked, told)
        with trainer_of(asked) as trainer:
            bare, plain = bare_rate(trainer), plain_rate(trainer, folder / "photos", options.plain_images)
    print(f"{'step alone, tensors in memory':40}{bare:8.1f} images/s")
    for number, rate in enumerate(told.rates, 1):
        print(f"{f'epoch {number}':40}{rate:8.1f} images/s {rate / bare:6.2f}")
        if number == 1:
            whole = told.shown / (told.shown / rate + told.checked)
            print(f"{'epoch 1, with the pass before it':40}{whole:8.1f} images/s {whole / bare:6.2f}")
    print(f"{'torchvision ImageFolder, 2 workers':40}{plain:8.1f} images/s {plain / bare:6.2f}")
    peaks = [resource.getrusage(who).ru_maxrss / 1e6 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(f"peak memory: {peaks[0]:.2f} GB, of a process that loads {peaks[1]:.2f} GB")


class Told:
    """A listener that keeps the rates of the epochs, and how long the pass before them took."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.shown, self.checked, self.began = 0, 0.0, 0.0

    def __call__(self, event: Event) -> None:
        if isinstance(event, PassBegan) and event.what == "checking images":
            self.began = time.perf_counter()
        elif isinstance(event, PassBegan) and event.what.startswith("epoch 1/"):
            self.checked = time.perf_counter() - self.began
        elif isinstance(event, EpochEnded):
            self.rates.append(event.record["images_per_second"])
            self.shown = event.record["images"]


@contextlib.contextmanager
def trainer_of(asked: Asked) -> Iterator[Trainer]:
    """A trainer at the beginning of the same run."""
    selection, plan = planned(asked, ignore)
    trainer = Trainer(plan, selection.splits, RunFolder(Path("nowhere")), ignore, StopRequest())
    with contextlib.closing(trainer.batches):
        yield trainer


def bare_rate(trainer: Trainer) -> float:
    """Images/s of the steps of an epoch whose batches are in memory."""
    batches = list(trainer.batches.of_epoch(0))
    trainer.learner.step(*batches[0], 0, 0)
    began = time.perf_counter()
    for images, target in batches:
        trainer.learner.step(images, target, 0, 0)
    return len(batches) * trainer.plan.batch_size / (time.perf_counter() - began)


def plain_rate(trainer: Trainer, photos: Path, images: int) -> float:
    """Images/s of the same steps in a loop as it is usually written."""
    preprocess, augmentation = trainer.plan.preprocess, trainer.plan.augmentation
    pipeline = transforms.Compose(
        [
            transforms.RandomResizedCrop(preprocess.image_size, scale=(augmentation.scale, 1.0)),
            transforms.RandomHorizontalFlip(),
            transforms.RandAugment(),
            transforms.ToTensor(),
            transforms.Normalize(preprocess.mean, preprocess.std),
        ]
    )
    data = datasets.ImageFolder(str(photos), pipeline)
    loader = DataLoader(data, batch_size=trainer.plan.batch_size, shuffle=True, num_workers=2, drop_last=True)
    done, began = 0, time.perf_counter()
    for batch, target in loader:
        trainer.learner.step(batch, target, 0, 0)
        done += len(batch)
        if done >= images:
            break
    return done / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
