"""A report without a training: the plan of small images, and a history and an evaluation that were made up."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from convit.data import ArrayImages
from convit.events import RunEnded, ignore
from convit.training.evaluation import Evaluation, score
from convit.training.mistakes import Mistake
from convit.training.outcome import outcome
from convit.training.page import Report
from convit.training.plan import Plan
from convit.training.planning import planned
from tests.training.small import options


def class_folders(root: Path, names: tuple[str, ...], images: int = 4) -> Path:
    """A folder of classes with such names, of plain pictures."""
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for i in range(images):
            Image.new("RGB", (8, 8), (20 * label % 256, 3 * i, 99)).save(root / name / f"{i}.png")
    return root


def made_plan(data: Path, **more: Any) -> Plan:
    """What a run on a folder would do."""
    return planned(options(data, data.with_name("run"), **more), ignore)[1]


def history(losses: list[float], top1: list[float] | None = None, layers: int = 3) -> list[dict[str, Any]]:
    """A record for each of these validation losses."""
    top1 = top1 or [50.0] * len(losses)
    return [
        {
            "epoch": number,
            "train_loss": 1.5 * loss,
            "val_loss": loss,
            "val_images": 20,
            "val_top1": top1[number - 1],
            "gates": [[0.5 + 0.4 * head / 9 for head in range(9)]] * layers,
            "seconds": 1.0,
        }
        for number, loss in enumerate(losses, start=1)
    ]


def evaluation(names: tuple[str, ...], confusion: list[list[int]]) -> Evaluation:
    """The one with this confusion matrix."""
    rows = [(i, j) for i, row in enumerate(confusion) for j, count in enumerate(row) for _ in range(count)]
    logits = torch.nn.functional.one_hot(torch.tensor([j for _, j in rows]), len(names)) * 9.0
    return score(logits, np.array([i for i, _ in rows]), names)


def made_report(
    plan: Plan, confusion: list[list[int]], *, losses: tuple[float, ...] = (1.0, 0.8), layers: int = 3
) -> Report:
    """The report of a run that was not made; every image off the diagonal is a mistake."""
    names, epochs = plan.class_names, history(list(losses), layers=layers)
    found = evaluation(names, confusion)
    targets = [i for i, row in enumerate(confusion) for _ in range(sum(row))]
    taken = [j for row in confusion for j, count in enumerate(row) for _ in range(count)]
    pixels = np.random.default_rng(0).integers(0, 256, (len(targets), 8, 8, 3), dtype=np.uint8)
    images = ArrayImages(pixels, [f"{names[i]}/{n}.png" for n, i in enumerate(targets)], targets, names)
    wrong = [
        Mistake(index=n, name=images.names[n], true=names[i], predicted=names[j], probability=0.9, loss=2.3)
        for n, (i, j) in enumerate(zip(targets, taken, strict=True))
        if i != j
    ]
    came = outcome(plan, epochs, found, "val", found)
    files = {"report.html": "this", "mistakes.csv": "all that is wrong"}
    ended = RunEnded(Path("runs/made"), came.findings(), files, {"convit predict runs/made PHOTO.jpg": "a picture"})
    return Report(plan=plan, history=epochs, evaluation=found, outcome=came, ended=ended, mistakes=wrong, images=images)
