"""Speed of ConViT against its plain-attention twin and timm's ConViT, as ratios of one interleaved run.

    python benchmarks/gpsa.py

The twin is the same code with ``local_up_to_layer=0``: plain fused attention in every block. In each round every model
runs once, so that a slow moment of the machine hits them alike. A ratio is the median of the rounds' ratios, with the
middle half of them in brackets; times are medians too.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import timm
import torch

import convit


def forward_step(model: torch.nn.Module, images: torch.Tensor) -> Callable[[], None]:
    """Inference on one batch."""
    model.eval()

    def step() -> None:
        with torch.inference_mode():
            model(images)

    return step


def training_step(model: torch.nn.Module, images: torch.Tensor) -> Callable[[], None]:
    """Forward, backward and an AdamW update on one batch."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    target = torch.zeros(len(images), dtype=torch.long)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model(images), target).backward()
        optimizer.step()

    return step


def interleaved(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every step in every round; one round to warm up is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if number > 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="counted rounds at batch 16; the rest in proportion")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads of PyTorch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"torch {torch.__version__}, timm {timm.__version__}, {options.threads} threads, fp32, eager, "
        f"{platform.machine()} {platform.system()}"
    )
    print(f"{'':32} {'convit ms':>10} {'twin ms':>9} {'timm ms':>9}  {'convit / twin':>18} {'timm / convit':>18}")
    cases = ((224, 16, options.rounds), (224, 1, 4 * options.rounds), (448, 4, max(3, options.rounds // 2)))
    for size, batch, rounds in cases:
        for kind, make in (("forward", forward_step), ("training step", training_step)):
            torch.manual_seed(0)
            models = {
                "convit": convit.create_model("convit_tiny_patch16_224", img_size=size),
                "twin": convit.create_model("convit_tiny_patch16_224", img_size=size, local_up_to_layer=0),
                "timm": timm.create_model("convit_tiny", img_size=size),
            }
            images = torch.randn(batch, 3, size, size)
            seconds = interleaved({name: make(model, images) for name, model in models.items()}, rounds)
            ours, twin, theirs = (1000 * statistics.median(seconds[name]) for name in ("convit", "twin", "timm"))
            to_twin = [a / b for a, b in zip(seconds["convit"], seconds["twin"], strict=True)]
            to_timm = [b / a for a, b in zip(seconds["convit"], seconds["timm"], strict=True)]
            print(
                f"{size} px, batch {batch:2}, {kind:14} {ours:13.1f} {twin:9.1f} {theirs:9.1f}  "
                f"{spread(to_twin)} {spread(to_timm)}"
            )


def spread(ratios: list[float]) -> str:
    """Their median and the middle half of them."""
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:5.2f} [{low:.2f} - {high:.2f}]"


if __name__ == "__main__":
    main()
