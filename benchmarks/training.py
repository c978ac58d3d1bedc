"""Whether images are loaded as fast as a model learns them: the whole loop against the step alone.

    python benchmarks/training.py

In each round every contestant makes the steps of one epoch: the loop of the trainer with 0, 1 and 2 loader
processes, and the same steps on images that are decoded and augmented already. So a slow moment of the machine hits
them alike, and no loader works ahead while it is another's turn. A ratio is the median of the rounds' ratios of
images/s, with the middle half of them in brackets; 1 would be loading that costs nothing. The images are noise of
32 x 32 pixels, read from the copies that a run keeps.
"""

import argparse
import contextlib
import platform
import statistics
import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from convit.benchmark.report import spread
from convit.benchmark.timing import interleaved
from convit.events import ignore
from convit.training import Asked
from convit.training.engine import Trainer
from convit.training.recipes import MODERATE
from convit.training.run import planned
from convit.training.run_folder import RunFolder
from convit.training.stopping import StopRequest

MODELS = ("convit_mini_patch4_32", "convit_tiny_patch4_32")
WORKERS = (0, 1, 2)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="counted rounds, at least 2")
    parser.add_argument("--steps", type=int, default=8, help="steps of an epoch")
    parser.add_argument("--batch-size", type=int, default=64, help="images of a step")
    parser.add_argument("--models", nargs="+", default=MODELS, help="the models, at 32 px")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads of PyTorch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"torch {torch.__version__}, {options.threads} threads, fp32, batch {options.batch_size}, "
        f"{platform.machine()} {platform.system()}"
    )
    print(f"{'':24} {'step alone':>12}" + "".join(f"{f'{n} workers / alone':>26}" for n in WORKERS))
    with tempfile.TemporaryDirectory() as folder:
        data = noise(Path(folder) / "images", options.steps * options.batch_size)
        for model in options.models:
            seconds = measure(data, model, options.batch_size, options.rounds)
            alone = seconds.pop("alone")
            speed = options.steps * options.batch_size / statistics.median(alone)
            ratios = ([a / b for a, b in zip(alone, times, strict=True)] for times in seconds.values())
            print(f"{model:24} {speed:7.0f} im/s" + "".join(f"{spread(ratio)!s:>26}" for ratio in ratios))


def noise(folder: Path, images: int) -> Path:
    """A folder with ``images`` images to learn from, and some to validate on."""
    rng = np.random.default_rng(0)
    for split, each in (("train", images // 2), ("val", 1)):
        for name in ("a", "b"):
            (folder / split / name).mkdir(parents=True)
            for i in range(each):
                pixels = rng.integers(0, 255, (32, 32, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")
    return folder


def measure(data: Path, model: str, batch_size: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of every round, of the steps alone and of the loop by number of workers."""
    with contextlib.ExitStack() as stack:
        trainers = {str(workers): stack.enter_context(loop(data, model, batch_size, workers)) for workers in WORKERS}
        fixed, epochs = list(trainers["0"].batches.of_epoch(0)), count(1)

        def alone() -> None:
            for images, target in fixed:
                trainers["0"].learner.step(images, target, 0, 0)

        def whole(trainer: Trainer) -> None:
            for images, target in trainer.batches.of_epoch(next(epochs)):
                trainer.learner.step(images, target, 0, 0)

        contestants = {"alone": alone} | {name: partial(whole, trainer) for name, trainer in trainers.items()}
        return interleaved(contestants, rounds)


@contextlib.contextmanager
def loop(data: Path, model: str, batch_size: int, workers: int) -> Iterator[Trainer]:
    """A trainer at its beginning; its processes end with it."""
    asked = Asked(
        data=str(data),
        workers=workers,
        model=model,
        batch_size=batch_size,
        epochs=100,
        rand_augment=MODERATE,
        mixup=0.2,
        cutmix=1.0,
        out=Path("nowhere"),
        device="cpu",
    )
    selection, plan = planned(asked, ignore)
    trainer = Trainer(plan, selection.splits, RunFolder(Path("nowhere")), ignore, StopRequest())
    with contextlib.closing(trainer.batches):
        yield trainer


if __name__ == "__main__":
    main()
