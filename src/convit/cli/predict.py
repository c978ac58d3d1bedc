"""``convit predict RUN IMAGE|FOLDER...``: what is in these pictures?"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from convit.classifier import Prediction, load
from convit.cli.options import parse, print_or_write_json
from convit.cli.pictures import pictures, show, write_csv
from convit.cli.progress import Reporter
from convit.data import UnreadableImageError, read_image
from convit.device import pick_device
from convit.errors import InputError
from convit.train.config import Device

BATCH = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """The options of ``convit predict``."""

    run: Annotated[Path, tyro.conf.arg(metavar="RUN")]
    """A run folder of 'convit train', or an .onnx file of 'convit export'."""
    images: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="IMAGE|FOLDER...")]
    """Pictures, or folders of pictures."""
    top_k: int = 5
    """How many classes to give for each picture."""
    csv: Path | None = None
    """Write a table to this file: a line for each picture and class."""
    json: str | None = None
    """Print one JSON document and nothing else, or write it to this .json file."""
    device: Device = "auto"
    """Where to compute."""
    skip_bad: bool = False
    """Go on past files that do not decode; each is named on standard error."""


def main(arguments: Sequence[str]) -> None:
    """Predicts and prints."""
    options = parse(Options, arguments, command="predict", description="Classify pictures with a trained run.")
    if not options.images:
        raise InputError("images: got none, expected at least one picture or folder")
    classifier = load(options.run, pick_device(options.device))
    paths = list(pictures(options.images))
    results: list[tuple[Path, list[Prediction]]] = []
    with Reporter(stderr=True) as reporter:
        reporter.begin("predicting", len(paths))
        for start in range(0, len(paths), BATCH):
            readable, images = [], []
            for path in paths[start : start + BATCH]:
                try:
                    images.append(read_image(path))
                    readable.append(path)
                except UnreadableImageError as error:
                    if not options.skip_bad:
                        raise InputError(f"{error}; mend it, or leave such files out with --skip-bad") from error
                    print(f"left out: {error}", file=sys.stderr)
            results += zip(readable, classifier.predict(images, options.top_k), strict=True)
            reporter.advance(len(paths[start : start + BATCH]))
    if options.csv:
        write_csv(results, options.csv)
    if options.json:
        document = [
            {
                "image": str(path),
                "predictions": [{"class": p.class_name, "probability": p.probability} for p in predictions],
            }
            for path, predictions in results
        ]
        print_or_write_json(document, options.json)
        if options.json == "-":
            return
    show(results)
