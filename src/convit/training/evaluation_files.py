"""The files of an evaluation: numbers, confusion matrix, mistakes. A run writes them at its end, ``convit evaluate``
into a folder of its own."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from convit.data import BadImage, ImageSet
from convit.files import write_csv, write_json
from convit.training import plots, reliability_plot
from convit.training.evaluation import Evaluation
from convit.training.mistakes import Mistake, write_mistakes
from convit.training.reliability import Reliability

RESULT = "evaluation.json"
LEFT_OUT = "left-out.csv"
_PICTURES = ("confusion.png", "reliability.png", "mistakes.png")
EVALUATION_FILES = (RESULT, "confusion.csv", "mistakes.csv", *_PICTURES, LEFT_OUT)
"""What :func:`write_evaluation` writes; no ``mistakes.png`` and no ``left-out.csv`` where there are none."""


def write_evaluation(
    folder: Path,
    result: Evaluation,
    wrong: list[Mistake],
    images: ImageSet,
    reliability: Reliability,
    *,
    data: str,
    root: str,
    split: str,
    say: Callable[[str], None],
    left_out: Sequence[BadImage] = (),
    more: Mapping[str, Any] | None = None,
) -> list[str]:
    """Writes an evaluation into a folder; ``evaluation.json`` is the last: with it the others are there, but for a
    picture that could not be drawn.

    Args:
        folder: where to; it is there.
        result: of the images.
        wrong: its mistakes, the highest loss first.
        images: that were evaluated on.
        reliability: of its probabilities.
        data: their name, as titles have it.
        root: the value of DATA that opens them, from anywhere.
        split: which of them.
        say: told of a picture that could not be drawn.
        left_out: images that do not decode, which are not counted.
        more: further entries of ``evaluation.json``, as JSON values.

    Returns:
        The names of the files.
    """
    for name in (RESULT, *_PICTURES, LEFT_OUT):
        (folder / name).unlink(missing_ok=True)  # of an evaluation before
    title = f"{data}, {split} images"
    heading = ("true class \\ taken for", *result.class_names)
    rows = ([name, *row] for name, row in zip(result.class_names, result.confusion.tolist(), strict=True))
    write_csv(folder / "confusion.csv", [heading, *rows])
    with plots.spared("confusion.png", say):
        plots.confusion(result, folder / "confusion.png", title=title)
    with plots.spared("reliability.png", say):
        reliability_plot.draw_reliability(reliability, folder / "reliability.png", title=title)
    write_mistakes(wrong, folder / "mistakes.csv")
    with plots.spared("mistakes.png", say):
        plots.mistakes(wrong, folder / "mistakes.png", images=images, title=title)
    bad = [{"image": image.name, "reason": image.reason} for image in left_out]
    if bad:
        write_csv(folder / LEFT_OUT, [("image", "reason"), *((image.name, image.reason) for image in left_out)])
    numbers = {"data": data, "root": root, "split": split, **result.to_dict(), "calibration": reliability.to_dict()}
    numbers |= more or {}
    numbers |= {"left_out": bad} if bad else {}
    write_json(folder / RESULT, numbers)
    return [name for name in EVALUATION_FILES if (folder / name).exists()]
