"""ResNet-18 on small images, in the trainer of this package: the same images as often, in the same order.

    OMP_NUM_THREADS=1 python benchmarks/resnet18.py DATA --fractions 0.02 0.1 --epochs 1 --seeds 0

timm's ``resnet18`` with the stem that images of 32 pixels need: a convolution of 3 x 3 that does not stride, and no
pooling after it. Split, subsets, order, augmentation, mixup, schedule and optimiser are those of ``convit train`` with
the same options, as ``convit experiment`` makes its runs. Prints a line of JSON for each run; its seconds are those of
the training steps with their loading. ``benchmarks/cost.py`` draws them beside the runs of an experiment.
"""

import argparse
import json
import tempfile
from pathlib import Path

import safetensors.torch
import timm
import torch
from torch import nn

from convit.classifier import WEIGHTS
from convit.events import ignore
from convit.training import Asked, evaluate
from convit.training.engine import Trainer
from convit.training.evaluation import best_record
from convit.training.run import planned
from convit.training.run_folder import RunFolder
from convit.training.stopping import StopRequest

FILLS_IN = "convit_nano_patch4_32"
"""The model that the plan is made for: it decides the size of the images, and nothing else of the run."""


def resnet18(num_classes: int) -> nn.Module:
    """timm's, for small images."""
    model = timm.create_model("resnet18", num_classes=num_classes)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    model.first_conv = "conv1"  # the trainer saves it as one of ours
    model.no_weight_decay = set
    return model


class ResNetTrainer(Trainer):
    """Trains a ResNet-18 in place of a ConViT."""

    def _start(self, *, load: bool) -> nn.Module:  # type: ignore[override]
        torch.manual_seed(self.plan.options.seed)
        return resnet18(len(self.plan.class_names))


def main() -> None:
    """Trains and evaluates each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--fractions", type=float, nargs="+", default=[1.0], help="parts of each class")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=None, help="of all the data, as for convit experiment")
    parser.add_argument("--batch-size", type=int, default=None)
    parser.add_argument("--lr", type=float, default=None)
    parser.add_argument("--val-fraction", type=float, default=0.1)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    options = parser.parse_args()
    for seed in options.seeds:
        for fraction in options.fractions:
            asked = Asked(
                data=options.data,
                model=FILLS_IN,
                seed=seed,
                fraction=None if fraction == 1 else fraction,
                epochs=options.epochs and round(options.epochs / fraction),
                batch_size=options.batch_size,
                lr=options.lr,
                val_fraction=options.val_fraction,
                precision=options.precision,
                workers=0,
            )
            print(json.dumps(run(asked)), flush=True)


def run(asked: Asked) -> dict[str, object]:
    """One run; accuracies in percent, of the best epoch by the validation images."""
    selection, plan = planned(asked, ignore)
    with tempfile.TemporaryDirectory() as folder:
        run_folder = RunFolder(Path(folder))
        trainer = ResNetTrainer(plan, selection.splits, run_folder, ignore, StopRequest())
        trainer.fit()
        best = best_record(trainer.progress.history)
        trainer.model.load_state_dict(safetensors.torch.load_file(run_folder.path / WEIGHTS))
        images = selection.splits.get("test") or selection.splits["val"]
        result = evaluate(trainer.model, images, plan.preprocess)
    return {
        "model": "resnet18",
        "fraction": asked.fraction or 1.0,
        "seed": asked.seed,
        "epochs": plan.epochs,
        "val_top1": best["val_top1"],
        "top1": result.top1,
        "seconds": round(sum(record["seconds"] for record in trainer.progress.history), 3),
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
    }


if __name__ == "__main__":
    main()
