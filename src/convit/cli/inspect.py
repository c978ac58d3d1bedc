"""``convit inspect RUN [IMAGE|FOLDER...]``: what every head looks at, as a page and as pictures."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from convit.analysis import Inspection, LayerSummary, inspect, summary
from convit.analysis.attention_layers import attention_layers
from convit.analysis.batches import evenly_spread, image_batches
from convit.analysis.page import write_page
from convit.classifier import Classifier
from convit.cli import inspect_files
from convit.cli.inspect_files import View
from convit.cli.options.inspect import InspectCommand
from convit.cli.output import print_or_write_json
from convit.cli.runs import load_run
from convit.cli.screen import Screen
from convit.data.images import ignored_notes, read_image
from convit.data.select import Evaluating, pictures, select
from convit.data.sources.interface import path_of
from convit.errors import InputError
from convit.events import Advanced, Listener, PassBegan, Said
from convit.files import absolute, check_apart, check_output, printable, write_json
from convit.training.run_folder import CONFIG, RunFolder

SHOWN = 4
"""How many of the run's own images the page shows when none are given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A picture that is read when it is looked at."""

    name: str
    """What it is called: printable, and no two of those shown are called alike."""
    label: str | None
    """Its true class, if that is known."""
    read: Callable[[], Image.Image]


def main(options: InspectCommand) -> None:
    """Looks, draws, and says what is where."""
    out = options.out or options.run / "inspect"
    if absolute(out) == absolute(options.run):
        raise InputError(f"out: got the run's own folder {out}, expected another one, such as {out / 'inspect'}")
    if options.out is not None:
        check_apart("out", out, _places(options))
    if options.run.is_dir():  # else it says what the run is
        check_output("out", out, folder=True)
    classifier = load_run(options.run, options.device)
    view = _view(options, classifier)
    run = RunFolder(options.run)
    history = run.read_history() if run.has_metrics else []
    chosen = pictures(options.images)
    given = _given(chosen.paths, classifier.preprocess.full_scale)
    with Screen(stderr=True) as screen, inspect_files.into(out) as folder:
        for note in chosen.notes:
            screen(Said(note))
        inspect_files.draw_history(folder, history)
        where, averaged = _labelled(options, classifier.preprocess.full_scale, screen)
        shown = given or _called_apart([averaged[i] for i in evenly_spread(len(averaged), SHOWN)])
        if not averaged:
            where, averaged = "the pictures given", given
        screen(PassBegan("looking at pictures", len(shown)))
        lines: list[str] = []
        numbers: list[dict[str, Any]] = []

        def looked_at() -> Iterator[Inspection]:
            for picture, plot in zip(shown, inspect_files.plot_names([one.name for one in shown]), strict=True):
                seen = inspect(
                    classifier,
                    picture.read(),
                    name=picture.name,
                    label=picture.label,
                    layers=view.layers,
                    heads=view.heads,
                    masking=not options.skip_masking,
                )
                inspect_files.draw_maps(folder / plot, seen, view)
                lines.append(_line(seen))
                numbers.append(inspect_files.numbers(seen, plot))
                screen(Advanced(1))
                yield seen  # one at a time is in memory

        title = f"What {printable(absolute(options.run).name)} looks at"
        write_page(folder / "attention.html", looked_at(), title=title, count=len(shown))
        screen(PassBegan("averaging over images", len(averaged)))
        layers = summary(classifier.model, image_batches(classifier, _counted(averaged, screen)))
        inspect_files.draw_averages(folder, classifier, layers, view, title=f"Mean over {len(averaged)} of {where}")
        document = {
            "run": printable(str(options.run)),
            "averaged_over": {"images": len(averaged), "of": where},
            "layers": [layer.to_dict() for layer in layers.values()],
            "pictures": numbers,
        }
        write_json(folder / inspect_files.DOCUMENT, document)
        written = sorted(path.name for path in folder.iterdir())
    if print_or_write_json(document, options.json):
        return
    _show(lines, layers)
    print(f"written to {printable(str(out))}: {', '.join(written)}")
    print(f"open {printable(str(out / 'attention.html'))} in a browser and point at a patch")


def _places(options: InspectCommand) -> Iterator[Path]:
    """The folders of images that the command knows of: those given, and those that the run learned from."""
    for folder in (*options.images, *([path_of(options.data)] if options.data else [])):
        yield absolute(folder)
    with suppress(InputError):  # it is told where it matters
        yield from RunFolder(options.run).known().places


def _given(chosen: Sequence[Path], full_scale: float | None) -> list[Picture]:
    """The pictures of the command line, each once."""
    paths = dict.fromkeys(os.path.abspath(path) for path in chosen)  # resolve() would rename links
    return _called_apart(
        [Picture(name=path, label=None, read=partial(read_image, Path(path), full_scale)) for path in paths]
    )


def _called_apart(found: Sequence[Picture]) -> list[Picture]:
    """The same pictures, with short names."""
    names = inspect_files.shortest_names([picture.name for picture in found])
    return [replace(picture, name=printable(name)) for name, picture in zip(names, found, strict=True)]


def _labelled(options: InspectCommand, full_scale: float | None, tell: Listener) -> tuple[str, list[Picture]]:
    """What the images to average over are called, and the images; none if the run's own are not there any more."""
    run = RunFolder(options.run)
    if options.data is None and not run.is_run:
        unsaid = f"{options.run}: does not say what it learned from (no {CONFIG} in it)"
        if options.images:
            tell(Said(f"averages are over the pictures given: {unsaid}"))
            return "", []
        raise InputError(f"{unsaid}; expected IMAGE..., or --data DATA")
    try:
        own = run.read_options() if options.data is None else None
        choice = Evaluating(
            known=run.known(),
            data_root=own.data_root if own else None,
            full_scale=full_scale,
            check=False,  # a few of them are read
        )
        selection = select((own.data if own else options.data) or "", choice)
    except InputError as error:
        if options.data is not None:
            raise
        if not options.images:
            raise InputError(f"{error}; or expected IMAGE..., or --data DATA") from error
        tell(Said(f"averages are over the pictures given: {error}"))
        return "", []
    for note in (*ignored_notes(selection.ignored), *selection.notes):
        tell(Said(note))
    ((split, images),) = selection.splits.items()
    return f"{selection.name}, {split} images", [
        Picture(name=images.names[i], label=images.class_names[images.targets[i]], read=partial(images.read, i))
        for i in evenly_spread(len(images), options.most)
    ]


def _view(options: InspectCommand, classifier: Classifier) -> View:
    """What the options choose of the model."""
    every = attention_layers(classifier.model)
    height, width = (side // classifier.model.patch_size for side in classifier.preprocess.image_size)
    row, column = options.patch or (height // 2 + 1, width // 2 + 1)
    if row > height or column > width:
        raise InputError(f"patch: got {row} {column}, expected a row from 1 to {height} and a column from 1 to {width}")
    return View(
        layers=_from_zero("layers", options.layers, len(every)),
        heads=_from_zero("heads", options.heads, every[0].module.num_heads),
        patch=(row - 1, column - 1),
    )


def _from_zero(what: str, given: Sequence[int], count: int) -> list[int] | None:
    """The index of each, where people count from 1; None for all."""
    if given and max(given) > count:
        raise InputError(f"{what}: got {max(given)}, expected numbers from 1 to {count}")
    return sorted({number - 1 for number in given}) or None


def _counted(images: Sequence[Picture], tell: Listener) -> Iterator[Image.Image]:
    """The pictures, each told when it is asked for."""
    for picture in images:
        yield picture.read()
        tell(Advanced(1))


def _line(seen: Inspection) -> str:
    """A picture in a line."""
    off = {(row.off, row.layers): row.best for row in seen.masking}
    last = max((row.layers for row in seen.masking), default=0)
    cases = [("", seen.predictions[0])]
    if last:
        cases += [("without content ", off["content", last]), ("without position ", off["position", last])]
    answers = [f'{case}"{printable(best.class_name)}" {best.probability:.0%}' for case, best in cases]
    return f"{seen.name}: {'; '.join(answers)}"


def _show(lines: Sequence[str], layers: dict[int, LayerSummary]) -> None:
    """A line for each picture and for each layer."""
    print("\n".join(lines))
    print("layer  kind  gates: lowest  mean  highest  non-locality (patches)")
    for layer in layers.values():
        gates = layer.gates
        column = "-" if gates is None else f"{gates.min():6.2f}  {gates.mean():4.2f}  {gates.max():7.2f}"
        print(f"{layer.index + 1:5}  {layer.kind:4}  {column:>28}  {layer.non_locality.mean():22.2f}")
