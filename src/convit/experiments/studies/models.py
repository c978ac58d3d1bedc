"""The models side by side: size, cost, speed, accuracy (Table 1)."""

import statistics
from collections.abc import Sequence
from operator import attrgetter

import torch

from convit.benchmark.steps import forward_step, wait_for
from convit.benchmark.timing import interleaved
from convit.classifier_loading import load
from convit.device import pick_device
from convit.experiments.results import Result, kept
from convit.experiments.settings import Settings
from convit.experiments.study import CONVIT, TWIN, Report, Study
from convit.experiments.tables import chosen, markdown, over_seeds, shown

PAIR = (TWIN, CONVIT)
PUBLISHED = {
    "convit_tiny_patch16_224": {"convit": 73.1},
    "convit_tiny_plus_patch16_224": {"convit": 76.7, "twin": 75.9},
    "convit_small_patch16_224": {"convit": 81.3},
    "convit_small_plus_patch16_224": {"convit": 82.2, "twin": 79.0},
    "convit_base_patch16_224": {"convit": 82.4},
    "convit_base_plus_patch16_224": {"convit": 82.5, "twin": 77.5},
}
"""Table 1: top-1 of ConViT, and of DeiT where the paper's has the same width and number of heads."""
BATCH, ROUNDS = 64, 15
"""Images of a timed batch, and how often each model is timed."""


def report(settings: Settings, results: Sequence[Result]) -> Report:
    """Table 1. Speeds are measured once, after the last run, and kept."""
    speeds = kept(
        results[0].folder.parents[1] / "speed.json",
        settings.models,
        lambda models: {model: _speeds(chosen(results, model=model), settings) for model in models},
    )
    several = any(result.top5 is not None for result in results)  # of five classes or fewer it is not told
    rows = []
    for model in settings.models:
        for variant in PAIR:
            own = chosen(results, model=model, variant=variant.key)
            rows.append(
                [
                    f"{model.removeprefix('convit_')}, {variant.title}",
                    f"{own[0].parameters / 1e6:.2f}M",
                    f"{own[0].flops / 1e9:.3g}G",
                    f"{speeds[model][variant.key]:,.0f}",
                    shown(over_seeds(own)),
                    *([shown(over_seeds(own, attrgetter("top5")))] if several else []),
                    PUBLISHED.get(model, {}).get(variant.key, ""),
                ]
            )
    where = pick_device(settings.device).type.replace("cpu", f"CPU, {torch.get_num_threads()} threads")
    header = ["", "parameters", "FLOPs", f"images/s ({where}, batch {BATCH})", "top-1"]
    header += ["top-5"] if several else []
    return Report([markdown([*header, "*paper, ImageNet-1k: top-1*"], rows)])


def _speeds(results: Sequence[Result], settings: Settings) -> dict[str, float]:
    """Images per second of a forward pass of each variant, the medians of one interleaved measurement."""
    there = pick_device(settings.device)
    steps = {}
    for variant in PAIR:
        classifier = load(chosen(results, variant=variant.key)[0].folder, there)
        images = torch.randn(BATCH, 3, *classifier.preprocess.image_size, device=there)
        steps[variant.key] = forward_step(classifier.model, images)
    seconds = interleaved(steps, ROUNDS, warmup=2, wait=wait_for(there))
    return {key: BATCH / statistics.median(times) for key, times in seconds.items()}


STUDY = Study(
    title="models (Table 1)",
    paper={"models": tuple(PUBLISHED), "recipe": "paper", "epochs": 300},
    digits={"seeds": (0, 1, 2), "epochs": 20, "batch_size": 64},
    variants=lambda settings: PAIR,
    report=report,
    together=True,
)
