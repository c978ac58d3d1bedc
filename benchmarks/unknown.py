"""How well scores tell pictures of unknown classes, and whether promised rates of `--reject` and `--coverage` hold.

    OMP_NUM_THREADS=1 python benchmarks/unknown.py CIFAR10_FOLDER OUT [--seeds 0 1 2] [--others FOLDER]

CIFAR10_FOLDER has ``train/CLASS/*.jpg`` and ``test/CLASS/*.jpg``. For each seed three classes are drawn and left out;
``convit_nano_patch4_32`` learns the other seven from a tenth of their training images, and all else is measured on test
images: the AUROC of known against left-out classes for each score, and against the pictures of OTHERS (a folder of any
other images, such as a part of Tiny-ImageNet); the false alarms and the coverage that were asked for and got. Written
into OUT as ``scores.csv`` and ``rates.csv``, and printed as their means over the seeds.
"""

import argparse
import csv
import random
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

import convit
from convit.classifier import Classifier
from convit.data import evaluation_transform
from convit.data.images import as_rgb

LEFT_OUT, NEIGHBOURS = 3, 5
RATES, COVERAGES = (0.01, 0.05, 0.1), (0.8, 0.9, 0.95, 0.99)


def auroc(known: Tensor, unknown: Tensor) -> float:
    """The probability that a known picture has the higher score than an unknown one; ties count half."""
    scores = torch.cat((known, unknown)).double()
    _, place, count = scores.unique(return_inverse=True, return_counts=True)
    rank = (count.cumsum(0) - (count - 1) / 2)[place][: len(known)]  # from 1 on, equal scores share their mean rank
    return ((rank.sum() / len(known) - (len(known) + 1) / 2) / len(unknown)).item()


@torch.inference_mode()
def answers(classifier: Classifier, paths: Sequence[Path]) -> tuple[Tensor, Tensor]:
    """Logits divided by the temperature ``(n, classes)``, and what the head reads, ``(n, width)``."""
    model, transform = classifier.model.eval(), evaluation_transform(classifier.preprocess)
    logits, features = [], []
    for first in range(0, len(paths), 256):
        batch = torch.stack([transform(as_rgb(path)) for path in paths[first : first + 256]])
        features.append(model.forward_head(model.forward_features(batch), pre_logits=True))
        logits.append(model.head(features[-1]) / classifier.temperature)
    return torch.cat(logits), torch.cat(features)


class Scores:
    """Every score of pictures, the higher the more like those learned from.

    features ``(n, width)`` and labels ``(n,)``: of the training images.
    """

    def __init__(self, features: Tensor, labels: Tensor) -> None:
        self.learned = torch.nn.functional.normalize(features, dim=1)
        self.means = torch.stack([features[labels == label].mean(0) for label in labels.unique()])
        within = features - self.means[labels]
        shrunk = within.T @ within / len(within) + 1e-3 * within.var() * torch.eye(within.shape[1])
        self.whiten = torch.linalg.cholesky(torch.linalg.inv(shrunk))

    def of(self, logits: Tensor, features: Tensor) -> dict[str, Tensor]:
        """Score by name, each ``(n,)``."""
        directions = torch.nn.functional.normalize(features, dim=1)
        nearest = (directions @ self.learned.T).topk(NEIGHBOURS, dim=1).values
        return {
            "largest probability": logits.softmax(1).amax(1),
            "energy": logits.logsumexp(1),
            "largest logit (taken)": logits.amax(1),
            "distance to the class means of the features, cosine": (
                directions @ torch.nn.functional.normalize(self.means, dim=1).T
            ).amax(1),
            "the same, Mahalanobis": -torch.cdist(features @ self.whiten, self.means @ self.whiten).amin(1),
            f"{NEIGHBOURS} nearest features, cosine": nearest.mean(1),
        }


def main() -> None:
    """Trains, measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--others", type=Path)
    parser.add_argument("--epochs", type=int, default=22)
    options = parser.parse_args()
    every = sorted(path.name for path in (options.source / "train").iterdir() if path.is_dir())
    scores: list[list[object]] = []
    rates: list[list[object]] = []
    for seed in options.seeds:
        left_out = sorted(random.Random(seed).sample(every, LEFT_OUT))
        known = [name for name in every if name not in left_out]
        classifier = _trained(options, seed, known)
        learned = _rows(options.out / f"list-{seed}.csv")
        _, learned_features = answers(classifier, [Path(path) for path, _ in learned])
        score = Scores(learned_features, torch.tensor([known.index(name) for _, name in learned]))
        test = {name: sorted((options.source / "test" / name).glob("*.jpg")) for name in every}
        labels = torch.cat([torch.full((len(test[name]),), known.index(name)) for name in known])
        logits, features = answers(classifier, [path for name in known for path in test[name]])
        of_known = score.of(logits, features)
        unknown = {"left-out classes": [path for name in left_out for path in test[name]]}
        if options.others:
            unknown["other pictures"] = sorted(
                path for path in options.others.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png")
            )
        top1 = (logits.argmax(1) == labels).double().mean().item()
        for against, paths in unknown.items():
            of_unknown = score.of(*answers(classifier, paths))
            for name in of_known:
                area = auroc(of_known[name], of_unknown[name])
                scores.append([seed, "+".join(left_out), f"{100 * top1:.2f}", against, len(paths), name, f"{area:.4f}"])
        calibration, p = classifier.calibration, logits.softmax(1)
        assert calibration is not None
        for rate in RATES:
            got = (logits.amax(1) < calibration.reject_threshold(rate)).double().mean().item()
            rates.append([seed, "false alarms", rate, f"{got:.4f}", ""])
        for coverage in COVERAGES:
            sets = p >= calibration.in_set_from[f"{coverage:.2f}"]
            sets[torch.arange(len(p)), p.argmax(1)] = True
            got = sets[torch.arange(len(p)), labels].double().mean().item()
            rates.append([seed, "coverage", coverage, f"{got:.4f}", f"{sets.sum(1).double().mean().item():.3f}"])
    _write(options.out / "scores.csv", ["seed", "left out", "top1", "against", "images", "score", "auroc"], scores)
    _write(options.out / "rates.csv", ["seed", "what", "asked", "got", "classes in a set"], rates)
    for against, name in dict.fromkeys((row[3], row[5]) for row in scores):
        print(
            f"{against}, {name}: AUROC {fmean(float(str(r[6])) for r in scores if (r[3], r[5]) == (against, name)):.3f}"
        )
    for what, asked in dict.fromkeys((row[1], row[2]) for row in rates):
        print(
            f"{what}: asked {asked}, got {fmean(float(str(r[3])) for r in rates if (r[1], r[2]) == (what, asked)):.4f}"
        )


def _trained(options: argparse.Namespace, seed: int, known: list[str]) -> Classifier:
    """The model that knows these classes, of the run in OUT; trained if it is not there yet."""
    folder, listed = options.out / f"run-{seed}", options.out / f"list-{seed}.csv"
    if not (folder / "evaluation.json").exists():
        options.out.mkdir(parents=True, exist_ok=True)
        draw, rows, held = random.Random(seed), [], []
        for name in known:
            paths = sorted((options.source / "train" / name).glob("*.jpg"))
            part = draw.sample(paths, len(paths) // 10 + len(paths) // 25)
            rows += [[path.resolve(), name, "train"] for path in part[: len(paths) // 10]]
            held += [[path.resolve(), name, "val"] for path in part[len(paths) // 10 :]]
        _write(listed, ["path", "label", "split"], rows + held)
        convit.train(
            listed,
            model="convit_nano_patch4_32",
            epochs=options.epochs,
            batch_size=32,
            seed=seed,
            workers=0,
            out=str(folder),
            overwrite=True,
        )
    return convit.load(folder)


def _rows(path: Path) -> list[tuple[str, str]]:
    """Path and class of each training image of a list."""
    with path.open(newline="") as lines:
        return [(row["path"], row["label"]) for row in csv.DictReader(lines) if row["split"] == "train"]


def _write(path: Path, header: list[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


if __name__ == "__main__":
    main()
