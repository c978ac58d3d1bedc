"""The models side by side: size, cost, speed, accuracy (Table 1)."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch

from convit.benchmark import forward_step, interleaved
from convit.benchmark.steps import wait_for
from convit.classifier import Classifier
from convit.device import pick_device
from convit.experiments import paper
from convit.experiments.cells import Cell, Result
from convit.experiments.settings import Settings, size_of
from convit.experiments.statistics import has, over_seeds, shown
from convit.experiments.study import Report, Study, markdown
from convit.experiments.variants import VARIANTS
from convit.train.run_folder import RunFolder

PAIR = ("twin", "convit")
SPEED = "speed.json"
BATCH, ROUNDS = 64, 15
"""Images of a timed batch, and how often each model is timed."""


def cells(settings: Settings) -> list[Cell]:
    """Every model and its twin."""
    return [
        settings.cell(model, key, VARIANTS[key], seed)
        for seed in settings.seeds
        for model in settings.models
        for key in PAIR
    ]


def report(settings: Settings, results: Sequence[Result], runs: Path) -> Report:
    """Table 1. Speeds are measured once, after the last run, and kept."""
    rows = []
    for model in settings.models:
        pair = {key: [r for r in results if has(r, model=model, variant=key)] for key in PAIR}
        speed = _speeds(model, {key: runs / own[0].name for key, own in pair.items()}, runs.parent, settings.device)
        for key, own in pair.items():
            published = paper.TABLE_1.get(size_of(model)) if model.endswith("_224") else None
            top1 = published and getattr(published, key)
            rows.append(
                [
                    f"{model.removeprefix('convit_')}, {VARIANTS[key].title}",
                    f"{own[0].parameters / 1e6:.2f}M",
                    f"{own[0].flops / 1e9:.3g}G",
                    f"{speed[key]:,.0f}",
                    shown(over_seeds(own)),
                    shown(over_seeds(own, lambda result: result.top5)),
                    top1 or "",
                ]
            )
    where = pick_device(settings.device).type.replace("cpu", f"CPU, {torch.get_num_threads()} threads")
    header = ["", "parameters", "FLOPs", f"images/s ({where}, batch {BATCH})", "top-1", "top-5"]
    return Report(tables=(markdown([*header, "*paper, ImageNet-1k: top-1*"], rows),))


def _speeds(model: str, runs: dict[str, Path], out: Path, device: str) -> dict[str, float]:
    """Images per second of a forward pass of each, the medians of one interleaved measurement."""
    file = out / SPEED
    known: dict[str, dict[str, float]] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if model not in known:
        there = pick_device(device)
        steps = {}
        for key, run in runs.items():
            classifier = Classifier.load(run, there)
            images = torch.randn(BATCH, 3, *classifier.preprocess.image_size, device=there)
            steps[key] = forward_step(classifier.model, images)
        seconds = interleaved(steps, ROUNDS, warmup=2, wait=wait_for(there))
        known[model] = {key: BATCH / statistics.median(times) for key, times in seconds.items()}
        RunFolder(out).write_json(SPEED, known)
    return known[model]


STUDY = Study(
    title="models (Table 1)",
    paper={
        "models": tuple(f"convit_{size}_patch16_224" for size in paper.TABLE_1),
        "recipe": "paper",
        "epochs": 300,
    },
    digits={"seeds": (0, 1, 2), "epochs": 20, "batch_size": 64},
    cells=cells,
    report=report,
)
