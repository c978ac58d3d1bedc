"""``convit predict RUN IMAGE|FOLDER...``: what is in these pictures?

Imports nothing heavy: an exported file needs neither PyTorch nor the seconds that it takes.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image

from convit.answers import Answer, thresholds
from convit.calibration import NOT_CALIBRATED, Calibration
from convit.cli.options.predict import PredictCommand
from convit.cli.output import print_or_write_json
from convit.data.decoding import UnreadableImageError
from convit.data.full_scale import UNKNOWN_SCALE
from convit.data.images import named_rgb, stored_image
from convit.data.select import pictures
from convit.errors import InputError
from convit.events import Advanced, Listener, PassBegan, ignore
from convit.files import printable, write_csv
from convit.prediction import Prediction
from convit.preprocess import Preprocess, is_deep

BATCH = 32


class Predictor(Protocol):
    """A run, or an exported file."""

    preprocess: Preprocess
    calibration: Calibration | None

    def answer(
        self, images: Iterable[Image.Image], top_k: int, *, reject: float | None, coverage: float | None
    ) -> Sequence[Answer]:
        """An answer for each image."""


@dataclass(frozen=True, slots=True)
class Result:
    """A picture, and what was answered, or why it cannot be read."""

    path: Path
    answer: Answer | None = None
    reason: str = ""

    @property
    def predictions(self) -> Sequence[Prediction]:
        """Its classes, best first."""
        return () if self.answer is None else self.answer.predictions


def main(options: PredictCommand) -> int:
    """Predicts and prints. Returns 1 if a picture cannot be read and was not to be left out."""
    (predictor, screen), chosen = _predictor(options), pictures(options.images)
    thresholds(predictor.calibration, options.reject, options.coverage)  # which are there, or refused before the work
    for note in chosen.notes:
        print(note, file=sys.stderr)
    results: list[Result] = []
    deep: list[Path] = []
    with screen as tell:
        tell(PassBegan("predicting", len(chosen.paths)))
        for start in range(0, len(chosen.paths), BATCH):
            paths = chosen.paths[start : start + BATCH]
            results += _predicted(predictor, paths, options, deep)
            tell(Advanced(len(paths)))
    if deep and predictor.preprocess.full_scale is None:
        others = f" and {len(deep) - 1} more" if len(deep) > 1 else ""
        print(f"{printable(str(deep[0]))}{others}: {UNKNOWN_SCALE}", file=sys.stderr)
    bad = [result for result in results if result.reason]
    for result in bad:
        print(f"left out: {printable(str(result.path))}: {result.reason}", file=sys.stderr)
    _give([result for result in results if not (options.skip_bad and result.reason)], options)
    if predictor.calibration is None and options.json != "-":
        print(f"probabilities are {NOT_CALIBRATED}", file=sys.stderr)
    if not bad or options.skip_bad:
        return 0
    print(
        f"convit predict: {len(bad)} of {len(results)} pictures cannot be read; expected all to be, or --skip-bad",
        file=sys.stderr,
    )
    return 1


def _predicted(predictor: Predictor, paths: Sequence[Path], options: PredictCommand, deep: list[Path]) -> list[Result]:
    """The results of pictures, in their order; paths of those of more than 8 bits are added to ``deep``."""
    readable: list[Path] = []
    reasons: dict[Path, str] = {}

    def images() -> Iterator[Image.Image]:  # one at a time, so that one large picture at a time is in memory
        for path in paths:
            try:
                image = stored_image(path)
                if is_deep(image):
                    deep.append(path)
                image = named_rgb(image, predictor.preprocess.full_scale, str(path))
            except UnreadableImageError as error:
                reasons[path] = str(error).removeprefix(f"{path}: ")
                continue
            readable.append(path)
            yield image

    answers = predictor.answer(images(), options.top_k, reject=options.reject, coverage=options.coverage)
    found = dict(zip(readable, answers, strict=True))
    return [Result(path, found.get(path), reasons.get(path, "")) for path in paths]


def _give(results: Sequence[Result], options: PredictCommand) -> None:
    """The results as they were asked for."""
    if options.csv:
        write_csv(options.csv, _table(results, options))
    document = [
        {
            "image": str(result.path),
            "predictions": [{"class": p.class_name, "probability": p.probability} for p in result.predictions],
            **_more(result.answer),
            **({"reason": result.reason} if result.reason else {}),
        }
        for result in results
    ]
    if not print_or_write_json(document, options.json):
        _show([result for result in results if not result.reason])


def _table(results: Sequence[Result], options: PredictCommand) -> list[tuple[object, ...]]:
    """The lines of the CSV: one for each picture and class. What was not asked for has no column."""
    columns = [name for name, asked in (("none of these", options.reject), ("in set", options.coverage)) if asked]
    lines: list[tuple[object, ...]] = [("image", "rank", "class", "probability", *columns, "reason")]
    for result in results:
        for rank, p in enumerate(result.predictions, start=1):
            assert result.answer is not None
            yes = {
                "none of these": result.answer.none_of_these,
                "in set": p.class_name in (result.answer.classes or ()),
            }
            cells = ("yes" if yes[name] else "no" for name in columns)
            lines.append((result.path, rank, p.class_name, f"{p.probability:.6f}", *cells, ""))
        if result.reason:
            lines.append((result.path, *("" for _ in range(3 + len(columns))), result.reason))
    return lines


def _more(answer: Answer | None) -> dict[str, object]:
    """What was asked for of a picture besides its classes, for JSON."""
    if answer is None:
        return {}
    found: dict[str, object] = {}
    if answer.none_of_these is not None:
        found |= {"none_of_these": answer.none_of_these, "score": answer.score}
    return found if answer.classes is None else found | {"set": list(answer.classes)}


def _predictor(options: PredictCommand) -> tuple[Predictor, AbstractContextManager[Listener]]:
    """What predicts, and who is told how far it is."""
    if not options.without_torch:
        from convit.cli.runs import load_run
        from convit.cli.screen import Screen

        return load_run(options.run, options.device, options.views), Screen(stderr=True)
    if options.device not in ("auto", "cpu"):
        raise InputError(f"device: got {options.device!r}, expected cpu: an .onnx file is computed there")
    from convit_onnx import OnnxClassifier

    return OnnxClassifier(options.run), nullcontext(ignore)


def _show(results: Sequence[Result]) -> None:
    """A line for each picture: the path, then the classes with their probabilities."""
    width = min(48, max((len(str(result.path)) for result in results), default=0))
    for result in results:
        classes = "   ".join(f"{printable(p.class_name)} {p.probability:6.1%}" for p in result.predictions)
        answer = result.answer
        none = "none of these; nearest: " if answer is not None and answer.none_of_these else ""
        sets = f"   one of {{{', '.join(map(printable, answer.classes))}}}" if answer and answer.classes else ""
        print(f"{printable(str(result.path)):{width}}  {none}{classes}{sets}")
