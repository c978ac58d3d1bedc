"""The attention page: pictures with the attention of every patch in every head, as one HTML file that needs no other.

It consists of the files in ``pages/attention/``, a JSON header and, for each picture, its maps; it makes no requests.

A picture's maps are one gzip stream: for every layer, head and query the greatest weight of the row,
little-endian fp32; then for every layer, head, query and key one byte. Byte 0 stands for 0, byte b for

    greatest * exp((b - 255) DEPTH / LEVELS)

which is within 2% of the weight. What is below ``exp(-DEPTH) = 5e-5`` of the row's greatest weight becomes 0.
Positional maps are not stored: the page computes them in fp64 from ``pos_weight``.
"""

import gzip
import html
from collections.abc import Iterable, Sized
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convit import pages
from convit.analysis.capture import LayerCapture
from convit.analysis.summary import finite, listed
from convit.errors import InputError
from convit.files import write
from convit.ops.naive import positional_map
from convit.pages.markup import picture_uri
from convit.prediction import Prediction

SCRIPTS = tuple(
    f"attention/{name}.js" for name in ("bytes", "position", "values", "charts", "pointing", "page", "codes")
)
"""Parts of the page's one script, in this order."""
MOST_BYTES = 48_000_000
"""The largest page: browsers open it in a few seconds, and a mail server may still take it."""
DEPTH = 10.0
"""The byte codes reach down to ``exp(-DEPTH)`` of a row's greatest weight."""
LEVELS = 254
"""Steps of the byte codes from there up to the greatest weight."""
NOTEBOOK_HEIGHT = 760
"""Pixels of the frame in a notebook."""


# An Inspection is Any in this file: its module imports this one, for notebooks.
def page(inspections: Iterable[Any], *, title: str, count: int | None = None) -> str:
    """The attention page of some pictures, a whole HTML document.

    Names of pictures and classes, and the title, are always shown as plain text. A picture of a base model
    (12 layers, 16 heads, 197 tokens) takes about 6 MB.

    Args:
        inspections: the pictures, of one model, as :func:`convit.analysis.inspect` returned them. A generator is fine:
            only one at a time is in memory.
        title: what to call the page.
        count: how many there are, where ``inspections`` has no length.

    Raises:
        InputError: no pictures, or a page of more than 48 MB; its size is estimated after each picture.

    Example:
        >>> from PIL import Image
        >>> from convit import ConViT
        >>> from convit.analysis import inspect
        >>> model = ConViT(img_size=16, patch_size=4, num_classes=5, embed_dim=18, depth=2, num_heads=9,
        ...                local_up_to_layer=1)
        >>> document = page([inspect(model, Image.new("RGB", (16, 16)))], title="Cats & dogs")
        >>> document[:15], "<title>Cats &amp; dogs</title>" in document
        ('<!doctype html>', True)
    """
    count = len(inspections) if isinstance(inspections, Sized) else count or 0
    headers: list[dict[str, Any]] = []
    maps: list[str] = []
    size = 0
    for seen in inspections:
        headers.append(_header(seen))
        maps.append(_maps(len(maps), seen))
        size += len(headers[-1]["picture"]) + len(maps[-1])
        _check_size(size * max(count, len(maps)) // len(maps), max(count, len(maps)))
    if not headers:
        raise InputError("inspections: got none, expected at least one picture to show")
    header = {"title": title, "coding": {"depth": DEPTH, "levels": LEVELS}, "inspections": headers}
    document = pages.document(
        title=title,
        scripts=SCRIPTS,
        styles=["attention/page.css"],
        data=header,
        intro="attention/intro.html",
        payload="\n".join(maps),
    )
    _check_size(len(document), len(maps))
    return document


def write_page(path: Path | str, inspections: Iterable[Any], *, title: str, count: int | None = None) -> None:
    """Writes :func:`page` to a file, all of it or, after an error, nothing.

    Args:
        path: the file, such as ``attention.html``; its folder is made if need be.
        inspections, title, count: as in :func:`page`.

    Raises:
        InputError: as :func:`page`, or nothing can be written there.
    """
    path = Path(path)
    document = page(inspections, title=title, count=count)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, document)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error


def notebook_html(inspection: Any) -> str:
    """The page of one picture as a frame for a notebook's output, without access to the network or the notebook."""
    document = html.escape(page([inspection], title=inspection.name))
    return (
        f'<iframe srcdoc="{document}" sandbox="allow-scripts" title="attention page" '
        f'style="width: 100%; height: {NOTEBOOK_HEIGHT}px; border: 0"></iframe>'
    )


def _header(seen: Any) -> dict[str, Any]:
    """All of a picture but its maps, as JSON values."""
    height, width = seen.layers[0].grid
    return {
        "name": seen.name,
        "label": seen.label,
        "picture": picture_uri(seen.picture),
        "height": height,
        "width": width,
        "patchSize": seen.patch_size,
        "predictions": [_prediction(prediction) for prediction in seen.predictions],
        "relevance": listed(None if seen.relevance is None else seen.relevance.flatten()),
        "masking": [
            {"off": row.off, "layers": row.layers, "best": _prediction(row.best), "before": _prediction(row.before)}
            for row in seen.masking
        ],
        "layers": [
            {
                "index": layer.index,
                "kind": layer.kind,
                "heads": list(layer.heads),
                "prefix": layer.num_prefix_tokens,
                "gates": listed(layer.gates),
                "posWeight": listed(layer.pos_weight),
                "centres": listed(layer.centres),
                "spans": listed(layer.spans),
            }
            for layer in seen.layers
        ],
    }


def _maps(number: int, seen: Any) -> str:
    """The element with a picture's maps."""
    for layer in seen.layers:
        _check_position(layer)
    coded = [_coded(layer) for layer in seen.layers]
    packed = gzip.compress(b"".join([top for top, _ in coded] + [codes for _, codes in coded]), 6, mtime=0)
    return pages.data_element(f"maps-{number}", packed)


def _check_position(layer: LayerCapture) -> None:
    """The page computes positional attention from ``v_pos``: one that was made otherwise it would show wrongly."""
    if layer.positional is None:
        return
    if layer.pos_weight is not None:
        found = layer.positional.float()
        expected = positional_map(layer.pos_weight, layer.grid, found.dtype)
        near = torch.isclose(found, expected, atol=1e-2 if layer.positional.dtype.itemsize < 4 else 1e-4)
        if (near | ~found.isfinite() | ~expected.isfinite()).all():  # of a model that diverged nothing is drawn
            return
    raise InputError(
        f"inspections: got a positional map in layer {layer.index} that is not softmax(v_pos . r), as from a hook or a "
        "layer of another kind; expected one that is: the page draws it from v_pos"
    )


def _coded(layer: LayerCapture) -> tuple[bytes, bytes]:
    """The greatest weight of each row, and the codes; see the top of this file."""
    weights = (layer.mixed if layer.content is None else layer.content)[0].float().numpy()
    top = weights.max(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):  # log 0; a weight that is no number shows in ``top``
        steps = np.rint(np.log(weights / top) * (LEVELS / DEPTH)) + (LEVELS + 1)
    codes = np.where(steps >= 1, steps, 0).astype(np.uint8)
    return top.astype("<f4").tobytes(), codes.tobytes()


def _check_size(size: int, count: int) -> None:
    if size > MOST_BYTES:
        raise InputError(
            f"inspections: got {count} picture{'s' * (count > 1)} that would make a page of about {size / 1e6:.0f} MB, "
            f"expected at most {MOST_BYTES / 1e6:.0f}; take fewer pictures, or some layers or heads only (--layers, "
            "--heads)"
        )


def _prediction(prediction: Prediction) -> list[Any]:
    return [prediction.class_name, finite(prediction.probability)]
