"""Cost against resolution: the milliseconds per image of every model by the side of the image, with quartiles.

    convit bench --image-size 224 320 448 --batch-size 4 --json sizes.json
    python benchmarks/sizes_plot.py sizes.json cost.png

A panel for each model, mode, type, eager or compiled, and batch size.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, NullLocator

from convit.benchmark.machine import Facts
from convit.figures import BLUE, GREY, ORANGE, label, new_figure, plain, save

# Colours that tell apart without colour vision (Okabe and Ito), each with a marker of its own.
STYLES = {"convit": (BLUE, "o"), "twin": (ORANGE, "s"), "timm": ("#009e73", "^"), "deit": (GREY, "D")}
STYLES["onnx"] = ("#cc79a7", "v")


def main(document: Path, picture: Path) -> None:
    """Draws a document of ``convit bench --json``."""
    report = json.loads(document.read_text())
    panels = defaultdict(lambda: defaultdict(list))
    for case, results in ((measured["case"], measured["results"]) for measured in report["cases"]):
        name = f"{case['model']}: {'forward' if case['mode'] == 'forward' else 'training step'}\n{case['precision']}, "
        name += f"{'compiled' if case['compiled'] else 'eager'}, batch {case['batch_size']}"
        for result in results:
            if time := result["seconds_per_step"]:
                middle, low, high = (1000 * time[at] / case["batch_size"] for at in ("median", "low", "high"))
                point = (case["image_size"], middle, middle - low, high - middle)
                panels[name][result["who"], result["label"]].append(point)
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = new_figure(4.9 * columns + 0.4, 3.9 * rows + 0.6, rows, columns)
    for one, (name, lines) in zip(axes, panels.items(), strict=False):
        for (who, called), points in lines.items():
            sides, middle, low, high = zip(*sorted(points), strict=True)
            color, marker = STYLES[who]
            one.errorbar(sides, middle, [low, high], color=color, marker=marker, capsize=2, label=called)
        label(one, name, "side of the image (pixels)", "time per image (ms)")
        one.set(xscale="log", yscale="log")
        sides = sorted({side for points in lines.values() for side, *_ in points})
        one.xaxis.set(major_locator=FixedLocator(sides), major_formatter="{x:g}", minor_locator=NullLocator())
        one.yaxis.set(
            major_locator=LogLocator(subs=(1, 2, 5)), major_formatter="{x:g}", minor_formatter=NullFormatter()
        )
        one.legend(frameon=False, fontsize=8)
    for one in axes[len(panels) :]:
        one.set_visible(False)
    figure.suptitle(plain(f"Cost against resolution\n{Facts(**report['machine']).lines()[0]}"), fontsize=9)
    save(figure, picture)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
