"""``convit predict RUN IMAGE|FOLDER...``: what is in these pictures?"""

import sys
from pathlib import Path

from convit.classifier import Prediction, load
from convit.cli.options import print_or_write_json
from convit.cli.options.predict import Options
from convit.cli.pictures import pictures, show, write_csv
from convit.cli.progress import Reporter
from convit.data import UnreadableImageError, read_image
from convit.device import pick_device
from convit.errors import InputError

BATCH = 32


def main(options: Options) -> None:
    """Predicts and prints."""
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
