"""What ``convit inspect`` leaves behind: names, plots, the numbers, all of it in place at once."""

import contextlib
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from convit.analysis import Inspection, LayerSummary, plots, position_weights
from convit.classifier import Classifier
from convit.figures import History, save
from convit.files import read

DOCUMENT = "inspection.json"
LONGEST = 48
"""Letters of a picture's name in that of its plot: a file's name may have 255 bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What of the maps is shown, counted from 0."""

    layers: list[int] | None
    """None for all."""
    heads: list[int] | None
    """None for all."""
    patch: tuple[int, int]
    """Row and column of the query in the plots."""


@contextlib.contextmanager
def into(out: Path) -> Iterator[Path]:
    """A folder to write into. Its files go to ``out`` at the end; after an error none does.

    Plots of pictures that the last inspection left in ``out`` go then: they would pass for some of this one.
    """
    there = out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".inspect-", dir=out) as temporary:
            yield Path(temporary)
            for name in _plots_of_last(out / DOCUMENT):
                (out / name).unlink(missing_ok=True)
            for path in Path(temporary).iterdir():
                path.replace(out / path.name)
    finally:
        if not there:
            with contextlib.suppress(OSError):  # it is not empty, as it should be
                out.rmdir()


def _plots_of_last(path: Path) -> list[str]:
    """The plots of pictures that an inspection lists; whatever else the file may name stays."""
    try:
        listed = [str(picture["plot"]) for picture in json.loads(read(path))["pictures"]]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return []
    return [name for name in listed if re.fullmatch(r"maps-[^/\\\0]*\.png", name)]


def shortest_names(paths: Sequence[str]) -> list[str]:
    """Each path's last part, with as many before it as it takes to tell it from the others.

    >>> shortest_names(["a/cat/1.jpg", "b/cat/1.jpg", "b/dog/2.jpg"])
    ['a/cat/1.jpg', 'b/cat/1.jpg', '2.jpg']
    """
    parts = [PurePath(path).parts for path in paths]
    names: dict[int, str] = {}
    for length in range(1, max(map(len, parts), default=0) + 1):
        ends = Counter(part[-length:] for part in parts)
        for i, part in enumerate(parts):
            if ends[part[-length:]] == 1 or length >= len(part):
                names.setdefault(i, PurePath(*part[-length:]).as_posix())
    return [names[i] for i in range(len(parts))]


def plot_names(names: Sequence[str]) -> Iterator[str]:
    """The file of each picture's plot; no two are the same, also where case does not count.

    >>> list(plot_names(["cat/1.jpg", "cat/1.png", "2.jpg"]))
    ['maps-cat-1.png', 'maps-cat-1-2.png', 'maps-2.png']
    """
    used: set[str] = set()
    for name in names:
        stem = PurePath(name).with_suffix("").as_posix().strip("/").replace("/", "-")[-LONGEST:]
        harmless = re.sub(r'^[-.]|[\\:*?"<>|]', "_", "".join(c if c.isprintable() else "_" for c in stem))
        tried = (harmless, *(f"{harmless}-{i}" for i in range(2, len(used) + 3)))
        free = next(one for one in tried if one.casefold() not in used)
        used.add(free.casefold())
        yield f"maps-{free}.png"


def numbers(seen: Inspection, plot: str) -> dict[str, Any]:
    """What a picture's page says in numbers, as JSON values."""
    return {
        "picture": seen.name,
        "label": seen.label,
        "plot": plot,
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


def draw_maps(path: Path, seen: Inspection, view: View) -> None:
    """Where every head looks in one picture."""
    best = seen.predictions[0]
    figure = plots.attention_maps(
        {layer.index: layer.mixed[0] for layer in seen.layers},
        grid=seen.layers[0].grid,
        num_prefix_tokens={layer.index: layer.num_prefix_tokens for layer in seen.layers},
        patch=view.patch,
        gates={layer.index: layer.gates for layer in seen.layers if layer.gates is not None},
        heads=seen.layers[0].heads,
        picture=seen.picture,
        title=f"{seen.name}: {best.class_name} ({best.probability:.0%})",
    )
    save(figure, path)


def draw_averages(
    folder: Path, classifier: Classifier, layers: dict[int, LayerSummary], view: View, *, title: str
) -> None:
    """The mean maps, and what there is of non-locality, gates and kernels."""
    heads = view.heads or list(range(len(layers[0].mean_map)))
    shown = {i: layer for i, layer in layers.items() if view.layers is None or i in view.layers}
    gates = {i: layer.gates for i, layer in layers.items() if layer.gates is not None}
    figure = plots.attention_maps(
        {i: layer.mean_map[heads] for i, layer in shown.items()},
        grid=layers[0].grid,
        num_prefix_tokens={i: layer.num_prefix_tokens for i, layer in shown.items()},
        patch=view.patch,
        gates={i: gate[heads] for i, gate in gates.items() if i in shown},
        heads=heads,
        title=title,
    )
    save(figure, folder / "mean-maps.png")
    even = layers[0].grid.distances().mean().item()
    far = {i: layer.non_locality for i, layer in layers.items()}
    save(plots.non_locality(far, uniform=even), folder / "non-locality.png")
    if gates:
        save(plots.gates(gates), folder / "gates.png")
    if weights := position_weights(classifier.model):
        kernels = plots.kernels({i: weight.cpu() for i, weight in weights.items()}, gates or None)
        save(kernels, folder / "kernels.png")


def draw_history(folder: Path, history: History) -> None:
    """What there is of gates and non-locality by epoch; epochs with values that are not finite are left out."""
    for key, draw in (("non_locality", plots.non_locality_over_training), ("gates", plots.gates_over_training)):
        if finite := [record for record in history if _finite(record.get(key))]:
            save(draw(finite), folder / f"{key.replace('_', '-')}-over-training.png")


def _finite(values: Any) -> bool:
    """Whether these are ``[layers][heads]``, finite numbers; not so of a model without such layers."""
    rows: list[Any] = values if isinstance(values, list) and values else [[]]
    return all(
        isinstance(row, list) and row and all(isinstance(v, int | float) and abs(v) < 1e300 for v in row)
        for row in rows
    )
