"""Speed of timm's ConViT against the same model after ``convit.speed_up``, as ratios of one interleaved run.

    python benchmarks/speed_up.py

In each round both models run once, so that a slow moment of the machine hits them alike. A ratio is the median of the
rounds' ratios, with the middle half of them in brackets; times are medians too.
"""

import argparse
import copy
import platform
import statistics

import timm
import torch

from convit.benchmark.report import spread
from convit.benchmark.steps import forward_step, training_step
from convit.benchmark.timing import interleaved
from convit.models.speed_up import speed_up


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="counted rounds at 224 px, at least 2; half at 448 px")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads of PyTorch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"timm's convit_tiny; torch {torch.__version__}, timm {timm.__version__}, {options.threads} threads, fp32, "
        f"eager, {platform.machine()} {platform.system()}"
    )
    print(f"{'':32} {'timm ms':>9} {'sped up ms':>11}  {'timm / sped up':>18}")
    for size, batch, rounds in ((224, 16, options.rounds), (448, 4, max(3, options.rounds // 2))):
        for kind, make in (("forward", forward_step), ("training step", training_step)):
            torch.manual_seed(0)
            plain = timm.create_model("convit_tiny", img_size=size)
            fast = copy.deepcopy(plain)
            speed_up(fast)
            images = torch.randn(batch, 3, size, size)
            seconds = interleaved({"plain": make(plain, images), "fast": make(fast, images)}, rounds)
            theirs, ours = (1000 * statistics.median(seconds[name]) for name in ("plain", "fast"))
            gain = [a / b for a, b in zip(seconds["plain"], seconds["fast"], strict=True)]
            print(f"{size} px, batch {batch:2}, {kind:14} {theirs:9.1f} {ours:11.1f}  {spread(gain)}")


if __name__ == "__main__":
    main()
