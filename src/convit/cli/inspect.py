"""``convit inspect RUN [IMAGE|FOLDER...]``: what every head looks at, as a page and as pictures."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from PIL import Image

from convit.analysis import Inspection, LayerSummary, inspect, plots, position_weights, summary
from convit.analysis.attention_layers import attention_layers
from convit.analysis.batches import image_batches
from convit.analysis.page import write_page
from convit.classifier import Classifier, load
from convit.cli.evaluate import choose
from convit.cli.options import parse, print_or_write_json
from convit.cli.pictures import pictures, printable
from convit.cli.progress import Reporter
from convit.data import open_source, read_image
from convit.device import pick_device
from convit.errors import InputError
from convit.figures import save
from convit.train.config import Device
from convit.train.run_folder import RunFolder

SHOWN = 4
"""How many of the run's own images the page shows when none are given."""

Picture = tuple[str, Image.Image]
"""What a picture is called, and the picture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """The options of ``convit inspect``."""

    run: Annotated[Path, tyro.conf.arg(metavar="RUN")]
    """A run folder of 'convit train'."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[IMAGE|FOLDER...]")] = ()
    """Pictures, or folders of pictures, to look at [four of the run's test or validation images]."""
    out: Path | None = None
    """Where page and plots go [RUN/inspect]."""
    layers: tuple[int, ...] | None = None
    """Show maps of these layers only, numbered from 1 [all]."""
    heads: tuple[int, ...] | None = None
    """Show maps of these heads only, numbered from 1 [all]."""
    patch: tuple[int, int] | None = None
    """Row and column, from 1, of the patch whose attention the plots show [the middle; the page has them all]."""
    scale: Literal["log", "linear"] = "log"
    """Colour scale of the plots."""
    data: str | None = None
    """Images to average over, as for 'convit evaluate' [the run's own test or validation images]."""
    most: int = 64
    """Average over so many of them at most, evenly spread."""
    json: str | None = None
    """Print the numbers as one JSON document and nothing else, or write it to this .json file."""
    device: Device = "auto"
    """Where to compute."""
    data_root: Path | None = None
    """Where data sets are downloaded to [$CONVIT_DATA, or ~/.cache/convit/data]."""


def main(arguments: Sequence[str]) -> None:
    """Looks, draws, and says what is where."""
    options = parse(Options, arguments, command="inspect", description="See what every head of a run looks at.")
    if options.most < 1:
        raise InputError(f"most: got {options.most}, expected at least 1")
    classifier = load(options.run, pick_device(options.device))
    shown = [(str(path), read_image(path)) for path in pictures(options.images)]
    with Reporter(stderr=True) as reporter:
        where, labelled = _labelled(options, reporter)
        shown = shown or labelled[:: max(1, len(labelled) // SHOWN)][:SHOWN]
        reporter.begin("looking at pictures", len(shown))
        inspections = []
        for name, picture in shown:
            inspections.append(_inspect(classifier, name, picture, options))
            reporter.advance(1)
        averaged = labelled or shown
        where = where if labelled else "the pictures given"
        reporter.begin("averaging over images", len(averaged))
        layers = summary(classifier.model, image_batches(classifier, _counted(averaged, reporter)))
    out = options.out or options.run / "inspect"
    written = _write(out, options, classifier, inspections, layers, f"{len(averaged)} of {where}")
    document = {
        "run": str(options.run),
        "averaged_over": {"images": len(averaged), "of": where},
        "layers": [layer.to_dict() for layer in layers.values()],
        "pictures": [_numbers(seen) for seen in inspections],
    }
    (out / "inspection.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if options.json:
        print_or_write_json(document, options.json)
        if options.json == "-":
            return
    _show(inspections, layers)
    print(f"written to {printable(str(out))}: {', '.join([*written, 'inspection.json'])}")
    print(f"open {printable(str(out / 'attention.html'))} in a browser and point at a patch")


def _labelled(options: Options, reporter: Reporter) -> tuple[str, list[Picture]]:
    """What the images to average over are called, and the images; none if the run's own are not there any more."""
    run = RunFolder(options.run)
    if options.data is None and not run.is_run:
        if options.images:
            return "", []
        raise InputError(f"{options.run}: does not say what it learned from; expected IMAGE..., or --data DATA")
    try:
        source = open_source(options.data or run.read_config().data, root=options.data_root, min_classes=1)
        part, images = choose(source, "auto", run)
    except InputError as error:
        if options.data is not None:
            raise
        if not options.images:
            raise InputError(f"{error}; or expected IMAGE..., or --data DATA") from error
        reporter.message(f"averages are over the pictures given: {error}")
        return "", []
    step = max(1, -(-len(images) // options.most))
    chosen = range(0, len(images), step)
    return f"{source.name}, {part} images", [(images.names[i], images.read(i)) for i in chosen]


def _inspect(classifier: Classifier, name: str, picture: Image.Image, options: Options) -> Inspection:
    every = attention_layers(classifier.model)
    layers = _from_zero("layers", options.layers, len(every))
    heads = _from_zero("heads", options.heads, every[0].module.num_heads)
    return inspect(classifier, picture, name=Path(name).name, layers=layers, heads=heads)


def _from_zero(what: str, numbers: tuple[int, ...] | None, count: int) -> list[int] | None:
    """The index of each, where people count from 1."""
    if numbers is None:
        return None
    if not numbers or min(numbers) < 1 or max(numbers) > count:
        raise InputError(f"{what}: got {' '.join(map(str, numbers)) or 'none'}, expected some of 1 to {count}")
    return sorted({number - 1 for number in numbers})


def _counted(images: Sequence[Picture], reporter: Reporter) -> Iterator[Image.Image]:
    """The pictures, each told when it is asked for."""
    for _, image in images:
        yield image
        reporter.advance(1)


def _write(
    out: Path,
    options: Options,
    classifier: Classifier,
    inspections: Sequence[Inspection],
    layers: dict[int, LayerSummary],
    averaged: str,
) -> list[str]:
    """The page and the plots; returns their names."""
    patch = _patch(options.patch, inspections[0])
    run = options.run.resolve().name
    out.mkdir(parents=True, exist_ok=True)
    write_page(out / "attention.html", inspections, title=f"What {run} looks at")
    written = ["attention.html"]

    def draw(name: str, figure: Any) -> None:
        save(figure, out / f"{name}.png")
        written.append(f"{name}.png")

    gates = {index: layer.gates for index, layer in layers.items() if layer.gates is not None}
    for name, seen in zip(_file_names(inspections), inspections, strict=True):
        best = seen.predictions[0]
        draw(
            f"maps-{name}",
            plots.attention_maps(
                {layer.index: layer.mixed[0] for layer in seen.layers},
                grid=seen.layers[0].grid,
                num_prefix_tokens={layer.index: layer.num_prefix_tokens for layer in seen.layers},
                patch=patch,
                gates={layer.index: layer.gates for layer in seen.layers if layer.gates is not None},
                heads=seen.layers[0].heads,
                picture=seen.picture,
                scale=options.scale,
                title=f"{seen.name}: {best.class_name} ({best.probability:.0%})",
            ),
        )
    shown = {layer.index for layer in inspections[0].layers}
    heads = list(inspections[0].layers[0].heads)
    draw(
        "mean-maps",
        plots.attention_maps(
            {index: layer.mean_map[heads] for index, layer in layers.items() if index in shown},
            grid=inspections[0].layers[0].grid,
            num_prefix_tokens={index: layer.num_prefix_tokens for index, layer in layers.items()},
            patch=patch,
            gates={index: gate[heads] for index, gate in gates.items() if index in shown},
            heads=heads,
            scale=options.scale,
            title=f"Mean over {averaged}",
        ),
    )
    even = layers[0].grid.distances().mean().item()
    draw("non-locality", plots.non_locality({i: layer.non_locality for i, layer in layers.items()}, uniform=even))
    if gates:
        draw("gates", plots.gates(gates))
    if weights := position_weights(classifier.model):
        draw("kernels", plots.kernels({i: weight.cpu() for i, weight in weights.items()}, gates or None))
    history = _history(RunFolder(options.run))
    if any("non_locality" in record for record in history):
        draw("non-locality-over-training", plots.non_locality_over_training(history))
    if any(record.get("gates") for record in history):
        draw("gates-over-training", plots.gates_over_training(history))
    return written


def _patch(wanted: tuple[int, int] | None, seen: Inspection) -> tuple[int, int]:
    """Row and column of the query patch, from 0."""
    height, width = seen.layers[0].grid
    if wanted is None:
        return height // 2, width // 2
    if not (1 <= wanted[0] <= height and 1 <= wanted[1] <= width):
        raise InputError(f"patch: got {wanted[0]} {wanted[1]}, expected row 1 to {height} and column 1 to {width}")
    return wanted[0] - 1, wanted[1] - 1


def _file_names(inspections: Sequence[Inspection]) -> Iterator[str]:
    """A name for each picture's plot, by that of its file; no two are the same."""
    used: set[str] = set()
    for seen in inspections:
        stem = Path(seen.name).stem[:80]
        name = next(n for n in (stem, *(f"{stem}-{i}" for i in range(2, len(used) + 3))) if n not in used)
        used.add(name)
        yield name


def _history(run: RunFolder) -> list[dict[str, Any]]:
    """The lines of the run's ``metrics.jsonl``."""
    path = run.path / "metrics.jsonl"
    if not path.is_file():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise InputError(f"{path}: not a run's history ({error}); expected a JSON object on each line") from error


def _numbers(seen: Inspection) -> dict[str, Any]:
    """What a picture's page says in numbers, as JSON values."""
    return {
        "picture": seen.name,
        "predictions": [{"class": p.class_name, "probability": p.probability} for p in seen.predictions],
        "masking": [
            {
                "off": row.off,
                "layers": row.layers,
                "class": row.best.class_name,
                "probability": row.best.probability,
                "probability_before": row.before.probability,
            }
            for row in seen.masking
        ],
    }


def _show(inspections: Sequence[Inspection], layers: dict[int, LayerSummary]) -> None:
    """A line for each picture and for each layer."""
    for seen in inspections:
        best = seen.predictions[0]
        off = {(row.off, row.layers): row for row in seen.masking}
        last = max((row.layers for row in seen.masking), default=0)
        parts = [
            f"without {kind} {printable(off[kind, last].best.class_name)} {off[kind, last].best.probability:.0%}"
            for kind in ("content", "position")
            if (kind, last) in off and last
        ]
        print(f"{printable(seen.name)}: {printable(best.class_name)} {best.probability:.0%}; {', '.join(parts)}")
    print("layer  kind  gates: lowest  mean  highest  non-locality (patches)")
    for layer in layers.values():
        gates = layer.gates
        column = "-" if gates is None else f"{gates.min():6.2f}  {gates.mean():4.2f}  {gates.max():7.2f}"
        print(f"{layer.index + 1:5}  {layer.kind:4}  {column:>28}  {layer.non_locality.mean():22.2f}")
