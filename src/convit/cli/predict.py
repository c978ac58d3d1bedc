"""``convit predict RUN IMAGE|FOLDER...``: what is in these pictures?

Imports nothing heavy: an exported file needs neither PyTorch nor the seconds that it takes.
"""

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol

from PIL import Image

from convit.cli.options.predict import PredictCommand
from convit.cli.output import print_or_write_json
from convit.data.images import UnreadableImageError, read_image
from convit.data.select import pictures
from convit.errors import InputError
from convit.events import Advanced, Listener, PassBegan, ignore
from convit.files import printable, write_csv
from convit.prediction import Prediction

BATCH = 32


class Predictor(Protocol):
    """A run, or an exported file."""

    def predict(self, images: Sequence[Image.Image], top_k: int) -> Sequence[Sequence[Prediction]]:
        """The most probable classes of each image, best first."""


Results = list[tuple[Path, Sequence[Prediction]]]
"""For each picture its classes, best first."""


def main(options: PredictCommand) -> None:
    """Predicts and prints."""
    (predictor, screen), paths = _predictor(options), list(pictures(options.images))
    results: Results = []
    with screen as tell:
        tell(PassBegan("predicting", len(paths)))
        for start in range(0, len(paths), BATCH):
            readable, images = _read(paths[start : start + BATCH], skip_bad=options.skip_bad)
            results += zip(readable, predictor.predict(images, options.top_k), strict=True)
            tell(Advanced(len(paths[start : start + BATCH])))
    if options.csv:
        ranked = ((path, i, p) for path, best in results for i, p in enumerate(best, start=1))
        lines = [(path, i, p.class_name, f"{p.probability:.6f}") for path, i, p in ranked]
        write_csv(options.csv, [("image", "rank", "class", "probability"), *lines])
    if options.json:
        document = [
            {"image": str(path), "predictions": [{"class": p.class_name, "probability": p.probability} for p in best]}
            for path, best in results
        ]
        print_or_write_json(document, options.json)
        if options.json == "-":
            return
    _show(results)


def _predictor(options: PredictCommand) -> tuple[Predictor, AbstractContextManager[Listener]]:
    """What predicts, and who is told how far it is."""
    if not options.without_torch:
        from convit.cli.runs import load_run
        from convit.cli.screen import Screen

        return load_run(options.run, options.device), Screen(stderr=True)
    if options.device not in ("auto", "cpu"):
        raise InputError(f"device: got {options.device!r}, expected cpu: an .onnx file is computed there")
    from convit_onnx import OnnxClassifier

    return OnnxClassifier(options.run), nullcontext(ignore)


def _read(paths: Sequence[Path], *, skip_bad: bool) -> tuple[list[Path], list[Image.Image]]:
    """The pictures that decode, and their files."""
    readable, images = [], []
    for path in paths:
        try:
            images.append(read_image(path))
            readable.append(path)
        except UnreadableImageError as error:
            if not skip_bad:
                raise InputError(f"{error}; mend it, or leave such files out with --skip-bad") from error
            print(f"left out: {printable(str(error))}", file=sys.stderr)
    return readable, images


def _show(results: Results) -> None:
    """A line for each picture: the path, then the classes with their probabilities."""
    width = min(48, max((len(str(path)) for path, _ in results), default=0))
    for path, predictions in results:
        classes = "   ".join(f"{printable(p.class_name)} {p.probability:6.1%}" for p in predictions)
        print(f"{printable(str(path)):{width}}  {classes}")
