"""``convit evaluate RUN DATA``: how good a run is on labelled images."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from convit.classifier import Classifier, load
from convit.cli.options import print_or_write_json
from convit.cli.options.evaluate import Options
from convit.cli.pictures import printable
from convit.cli.progress import Reporter
from convit.data import DataSource, ImageSet, open_source
from convit.data.image_sets import listing
from convit.device import pick_device
from convit.errors import InputError
from convit.train import Evaluation, evaluate, plots
from convit.train.mistakes import Answers, write_mistakes
from convit.train.run import scanned
from convit.train.run_folder import RunFolder


def main(options: Options) -> None:
    """Evaluates, prints, and writes numbers and picture."""
    if options.batch_size < 1 or options.workers < 0:
        raise InputError(
            f"batch-size, workers: got {options.batch_size}, {options.workers}, expected at least 1 and at least 0"
        )
    with Reporter(stderr=True) as reporter:
        classifier = load(options.run, pick_device(options.device))
        source = open_source(options.data, root=options.data_root, min_classes=1, missing=options.skip_bad)
        part, images = choose(source, options.part, RunFolder(options.run))
        images, left_out = _of_its_classes(images, classifier.class_names, RunFolder(options.run))
        if left_out:
            reporter.message(f"{left_out} images are of classes that the run left out by --classes: not evaluated")
        chosen, _ = scanned(
            DataSource(name=source.name, root=source.root, class_names=images.class_names, parts={"whole": images}),
            skip_bad=options.skip_bad,
            observer=reporter,
        )
        images = chosen.part("whole")
        out = options.out or options.run / f"evaluation-{Path(source.name).name}-{part}"
        if out.resolve() == options.run.resolve():
            raise InputError(f"out: got the run's own folder {out}, expected another one")
        out.mkdir(parents=True, exist_ok=True)
        reporter.begin("evaluating", len(images))
        answers = Answers()
        result = evaluate(
            classifier.model,
            images,
            classifier.preprocess,
            batch_size=options.batch_size,
            workers=options.workers,
            on_batch=reporter.advance,
            on_logits=answers.add,
        )
        run = RunFolder(options.run)
        undivided = (options.part, part) == ("auto", "all")
        learned = _learned(run).intersection(images.names) if undivided else ()
        if undivided and not run.is_run:
            reporter.message(f"{options.run} does not say which images its model learned from: they may be among these")
        if learned:
            reporter.message(
                f"{len(learned)} of the {len(images)} files have names of images that the run learned from: if they "
                "are the same ones, take --part val"
            )
    title = f"{source.name}, {part} images"
    wrong = answers.mistakes(images)
    _write(result, out, part, title)
    write_mistakes(wrong, out / "mistakes.csv")
    plots.mistakes(wrong, out / "mistakes.png", images=images, title=title)
    if options.json:
        document = {"run": str(options.run), "data": options.data, "part": part, **result.to_dict()}
        print_or_write_json(document, options.json)
        if options.json == "-":
            return
    _show(result, title, classifier)
    picture = ", mistakes.png" if wrong else ""
    print(f"written to {out}: evaluation.json, confusion.csv, confusion.png, mistakes.csv{picture}")


def choose(source: DataSource, part: str, run: RunFolder) -> tuple[str, ImageSet]:
    """The images to evaluate on, and what they are called.

    A folder without official parts was divided by the run that learned from it: the images that it learned from would
    give a flattering figure, so they are only taken when asked for.

    Raises:
        InputError: there is no such part.
    """
    whole = source.whole
    official = [name for name in ("test", "val") if name in source.parts]
    if part == "auto" and official:
        part = official[0]
    if part in official:
        return part, source.part(part)
    everything = whole or source.train
    split = run.read_split() if run.is_run else {}
    moved = everything is not None and not _learned(run).isdisjoint(everything.names)
    own = run.is_run and run.read_config().data == source.root
    divided = ("auto", "train", "val") if own else ("train", "val") if moved else ()
    if everything is not None and part in divided:
        part = "val" if part == "auto" else part  # the run divided what has no official parts
        if part in split:
            names = set(split[part])
            chosen = [i for i, name in enumerate(everything.names) if name in names]
            if not chosen:
                raise InputError(f"{source.name}: none of the run's {part} images is there any more, expected some")
            return part, everything.subset(chosen)
    if whole is not None and part in ("auto", "all"):
        return "all", whole
    if source.train is not None and part in ("auto", "train"):
        return "train", source.train
    there = ["auto", *(source.parts if whole is None else ("all", *(("train", "val") if own or moved else ())))]
    raise InputError(f"{source.name}: got --part {part}, expected one of {', '.join(there)}")


def _of_its_classes(images: ImageSet, class_names: Sequence[str], run: RunFolder) -> tuple[ImageSet, int]:
    """The images as the classes of a run see them, and how many there are of others.

    Only a run that was told to take some of the classes leaves others out.

    Raises:
        InputError: an image of a class that another run does not know.
    """
    kept = images
    if run.is_run and run.read_config().source.classes is not None:
        known = np.isin(np.array(images.class_names), class_names)
        kept = images.subset(np.flatnonzero(known[images.targets]))
    if not len(kept):
        raise InputError(f"no image of the run's classes {listing(class_names)}; expected some")
    return kept.with_classes(class_names), len(images) - len(kept)


def _learned(run: RunFolder) -> set[str]:
    """The names of the images that a run learned from."""
    return set(run.read_split().get("train", ())) if run.is_run else set()


def _write(result: Evaluation, out: Path, part: str, title: str) -> None:
    (out / "evaluation.json").write_text(
        json.dumps({"part": part, **result.to_dict()}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    with (out / "confusion.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["true class \\ taken for", *result.class_names])
        writer.writerows([name, *row] for name, row in zip(result.class_names, result.confusion.tolist(), strict=True))
    plots.confusion(result, out / "confusion.png", title=title)


def _show(result: Evaluation, title: str, classifier: Classifier) -> None:
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False)
    table.add_column("class", overflow="ellipsis", max_width=40)
    for heading in ("images", "precision", "recall", "most often taken for"):
        table.add_column(heading, justify="left" if heading.startswith("most") else "right")
    for i, name in enumerate(result.class_names):
        row = result.confusion[i].copy()
        images, row[i] = int(row.sum()), 0
        worst = f"{result.class_names[row.argmax()]} ({row.max()})" if row.any() else ""
        # Class names come from users: square brackets in them are no markup.
        table.add_row(
            *(
                escape(printable(cell))
                for cell in (
                    name,
                    str(images),
                    f"{result.precision[i]:.1%}" if result.confusion[:, i].any() else "-",
                    f"{result.recall[i]:.1%}" if images else "-",
                    worst,
                )
            )
        )
    console.print(table)
    top5 = f"top-5 {result.top5:.2f}%, " if len(result.class_names) > 5 else ""
    console.print(
        f"{title}: top-1 {result.top1:.2f}%, {top5}loss {result.loss:.4f}, {result.num_images} images, "
        f"{classifier.model_name}",
        markup=False,
        soft_wrap=True,
    )
