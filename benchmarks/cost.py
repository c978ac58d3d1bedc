"""Accuracy against training time, for each fraction of the data.

    python benchmarks/cost.py STUDY.csv [LONGER.csv ...] RESNET.jsonl --out cost.png

Reads the ``results.csv`` of runs of ``convit experiment sample-efficiency`` and the lines that
``benchmarks/resnet18.py`` printed. Time is that of the training steps with their loading, without evaluation; all have
to be of one machine, with as many threads. A point is the mean over seeds, its bar the standard error; the points of
one model are trainings of different lengths.
"""

import argparse
import csv
import json
from collections import defaultdict
from pathlib import Path

from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter

from convit.experiments.tables import mean_of, percent
from convit.figures import BLUE, GREY, ORANGE, Figure, label, new_figure, save

MODELS = {
    "convit": ("ConViT", BLUE, "o"),
    "twin": ("plain attention", ORANGE, "s"),
    "resnet18": ("ResNet-18", GREY, "^"),
}
"""Title, colour and mark of each."""

Runs = dict[tuple[str, float, int], list[tuple[float, float]]]
"""By model, fraction and epochs: minutes and top-1 of each seed."""


def read(paths: list[Path]) -> Runs:
    """All runs of the files; of one model and its twin, on test images."""
    runs: Runs = defaultdict(list)
    names = set()
    for path in paths:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file) if path.suffix == ".csv" else map(json.loads, file)
            for row in rows:
                if row.get("split", "test") != "test":
                    raise SystemExit(f"{path}: of {row['split']} images, expected test images")
                names.add(row.get("label.model", "resnet18"))
                model = row.get("label.variant") or row["model"]
                fraction = float(row.get("label.fraction") or row["fraction"])
                point = (float(row["seconds"]) / 60, float(row["top1"]))
                runs[model, fraction, int(row["epochs"])].append(point)
    if len(names - {"resnet18"}) > 1:
        raise SystemExit(f"got runs of {', '.join(sorted(names))}; expected one model beside resnet18")
    return runs


def draw(runs: Runs, fractions: list[float]) -> Figure:
    """A panel for each fraction."""
    figure, panels = new_figure(3.3 * len(fractions) + 1.4, 3.6, columns=len(fractions), share=True)
    for axes, fraction in zip(panels, fractions, strict=True):
        for model, (title, colour, mark) in MODELS.items():
            lengths = sorted(epochs for name, kept, epochs in runs if (name, kept) == (model, fraction))
            points = [runs[model, fraction, epochs] for epochs in lengths]
            minutes = [mean_of([minute for minute, _ in point]).mean for point in points]
            top1 = [mean_of([accuracy for _, accuracy in point]) for point in points]
            axes.errorbar(
                minutes,
                [mean.mean for mean in top1],
                yerr=[mean.error or 0.0 for mean in top1],
                fmt=f"{mark}-",
                color=colour,
                capsize=3,
                label=title,
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
        label(axes, f"{percent(fraction)} of each class", "minutes of training", "")
    panels[0].set_ylabel("top-1 (%)")
    panels[0].legend(frameon=False)
    return figure


def main() -> None:
    """Draws what the files say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", metavar="FILE", help="of runs: .csv or .jsonl")
    parser.add_argument("--fractions", type=float, nargs="+", help="a panel for each [all that were run]")
    parser.add_argument("--out", type=Path, default=Path("cost.png"), help="the picture")
    options = parser.parse_args()
    runs = read(options.results)
    fractions = options.fractions or sorted({kept for _, kept, _ in runs})
    save(draw(runs, fractions), options.out)


if __name__ == "__main__":
    main()
