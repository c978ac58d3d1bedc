"""The page's document: the maps in it are the model's, names in it are text, and it asks for nothing."""

import base64
import gzip
import hashlib
import html
import io
import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from convit.analysis import Inspection, MaskedPrediction, inspect
from convit.analysis import page as page_module
from convit.analysis.page import DEPTH, LEVELS, notebook_html, page, write_page
from convit.errors import InputError
from convit.prediction import Prediction
from tests.analysis.models import MODELS, ours, seen_by
from tests.helpers import Elements, bytes_of

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "</script x",
    "<!--<script>",
    "\"'><b>&amp;",
    "]]>{{script}}{{nothing}}",
    "photo-\udcff.jpg",
    "\u202egnp.חתול\u2028\x00",
]


@pytest.fixture(scope="module")
def seen() -> Inspection:
    torch.manual_seed(0)
    return seen_by(ours())


def header_of(document: str) -> dict[str, Any]:
    return json.loads(Elements(document).texts["data"])


def decoded(document: str, number: int, shapes: list[tuple[int, int]]) -> list[np.ndarray]:
    """The maps of a picture, ``(heads, tokens, tokens)`` for each layer: the rule at the top of page.py."""
    data = gzip.decompress(bytes_of(Elements(document).texts[f"maps-{number}"].rstrip("\n")))
    maps, at = [], 0
    tops = []
    for heads, tokens in shapes:
        tops.append(np.frombuffer(data, "<f4", heads * tokens, at).reshape(heads, tokens, 1))
        at += heads * tokens * 4
    for (heads, tokens), top in zip(shapes, tops, strict=True):
        codes = np.frombuffer(data, np.uint8, heads * tokens**2, at).reshape(heads, tokens, tokens).astype(np.float64)
        at += heads * tokens**2
        maps.append(np.where(codes > 0, np.exp((codes - 255) * DEPTH / LEVELS), 0) * top)
    assert at == len(data)
    return maps


@pytest.mark.parametrize("name", ["ours", "ours, ungated", "ours, all gated", "timm's ConViT", "ViT with registers"])
def test_maps_are_within_the_stated_error(name: str) -> None:
    inspection = seen_by(MODELS[name][0]())
    shapes = [(len(layer.heads), layer.mixed.shape[-1]) for layer in inspection.layers]
    document = page([inspection], title=name)
    for layer, got in zip(inspection.layers, decoded(document, 0, shapes), strict=True):
        expected = (layer.mixed if layer.content is None else layer.content)[0].double().numpy()
        least = np.exp(-DEPTH) * expected.max(-1, keepdims=True)
        assert (np.abs(got - expected) <= 0.02 * expected + 1.01 * least * (got == 0)).all()


def test_every_level_of_a_row_is_coded(seen: Inspection) -> None:
    """A row from its greatest weight down to nothing: equal steps in the logarithm, then 0."""
    layer = seen.layers[-1]
    tokens = layer.mixed.shape[-1]
    row = torch.exp(-torch.linspace(0, 16.5, tokens, dtype=torch.float64))
    row[-1] = 0
    one = replace(seen, layers=(replace(layer, mixed=row.expand(1, 9, tokens, tokens)),))
    got = decoded(page([one], title=""), 0, [(9, tokens)])[0][4, 5]
    kept = row.numpy() > np.exp(-DEPTH)
    np.testing.assert_allclose(got[kept], row.numpy()[kept], rtol=0.02)
    assert not got[~kept].any()


def test_header_has_the_numbers(seen: Inspection) -> None:
    found = header_of(page([seen, replace(seen, label="cat", relevance=None, masking=())], title="Two"))
    first, second = found["inspections"]
    assert found["title"] == "Two"
    assert (first["height"], first["width"], first["name"], first["label"]) == (4, 4, "noise.png", None)
    assert second["label"] == "cat"
    assert [layer["kind"] for layer in first["layers"]] == ["gpsa", "gpsa", "sa"]
    assert [layer["prefix"] for layer in first["layers"]] == [0, 0, 1]
    assert first["layers"][0]["gates"] == seen.layers[0].gates.tolist()  # type: ignore[union-attr]
    assert first["layers"][1]["posWeight"] == seen.layers[1].pos_weight.tolist()  # type: ignore[union-attr]
    assert first["layers"][2]["gates"] is first["layers"][2]["posWeight"] is None
    assert first["masking"][1]["off"] == "content"
    assert first["predictions"][0] == [seen.predictions[0].class_name, seen.predictions[0].probability]
    assert len(first["relevance"]) == 16
    assert second["relevance"] is None
    assert second["masking"] == []


def test_picture_in_the_page_is_the_picture(seen: Inspection) -> None:
    encoded = header_of(page([seen], title=""))["inspections"][0]["picture"]
    kind, data = encoded.split(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(seen.picture))


def test_policy_lets_one_script_and_nothing_out(seen: Inspection) -> None:
    document = page([seen], title="")
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', document)[1])  # type: ignore[index]
    script = re.findall(r"<script>(.*?)</script>", document, re.DOTALL)
    style = re.findall(r"<style>(.*?)</style>", document, re.DOTALL)
    assert len(script) == len(style) == 1
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(text[0].encode()).digest()).decode()}'" for text in (style, script)
    ]
    assert policy == (
        f"default-src 'none'; img-src data:; style-src {hashes[0]}; script-src {hashes[1]}; "
        "base-uri 'none'; form-action 'none'"
    )
    found = Elements(document)
    forbidden = {"href", "src", "srcset", "action", "style", "onclick", "onerror", "onload"}
    assert not forbidden & {name for name, _ in found.attributes}
    assert "link" not in found.tags


@pytest.mark.parametrize("name", HOSTILE)
def test_names_never_become_elements(seen: Inspection, name: str) -> None:
    hostile = replace(
        seen,
        name=name,
        predictions=(Prediction(name, 0.5),),
        masking=(MaskedPrediction(off="nothing", layers=0, best=Prediction(name, 0.5), before=Prediction(name, 0.5)),),
    )
    document = page([hostile], title=name)
    document.encode("utf-8")
    assert Elements(document).tags == Elements(page([seen], title="harmless")).tags
    found = header_of(document)
    assert found["title"] == found["inspections"][0]["name"] == name
    assert found["inspections"][0]["predictions"] == [[name, 0.5]]


def test_numbers_that_are_none_are_no_error(seen: Inspection) -> None:
    """A model that has diverged: its page can be opened."""
    layer = seen.layers[0]
    nothing = {
        name: torch.full_like(getattr(layer, name), torch.nan) for name in ("mixed", "content", "gates", "pos_weight")
    }
    diverged = replace(
        seen,
        layers=(replace(layer, **nothing),),
        predictions=(Prediction("a", float("nan")),),
        relevance=torch.full((4, 4), torch.nan),
    )
    found = header_of(page([diverged], title=""))["inspections"][0]
    assert found["predictions"] == [["a", None]]
    assert found["layers"][0]["gates"] == [None] * 9
    assert found["layers"][0]["spans"] is not None


def test_page_needs_a_picture() -> None:
    with pytest.raises(InputError, match="inspections: got none, expected at least one picture"):
        page([], title="")


def test_page_of_too_many_pictures_is_refused(seen: Inspection, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(page([seen], title=""))
    monkeypatch.setattr(page_module, "MOST_BYTES", size)
    page([seen], title="")
    with pytest.raises(
        InputError, match=r"got 2 pictures that would make .*; take fewer pictures, or some layers or heads only"
    ):
        page([seen, seen], title="")
    monkeypatch.setattr(page_module, "MOST_BYTES", 1000)
    with pytest.raises(InputError, match="got 1 picture that"):
        page([seen], title="")


def test_pictures_may_be_made_one_after_the_other(seen: Inspection, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def each(count: int) -> Iterator[Inspection]:
        for i in range(count):
            made.append(i)
            yield seen

    document = page(each(3), title="", count=3)
    assert document == page([seen] * 3, title="")
    made.clear()
    monkeypatch.setattr(page_module, "MOST_BYTES", len(document))
    with pytest.raises(InputError, match=r"got 90 pictures that would make a page of about \d+ MB, expected at most"):
        page(each(90), title="", count=90)
    assert made == [0]


def test_write_page_writes_all_or_nothing(seen: Inspection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "attention.html"
    write_page(path, [seen], title="Ä \udcff")
    written = path.read_bytes()
    assert written == page([seen], title="Ä \udcff").encode("utf-8")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(InputError, match=r"attention\.html: cannot be written \(No space left on device\)"):
        write_page(path, [seen], title="another")
    assert path.read_bytes() == written
    assert list(path.parent.iterdir()) == [path]


def test_write_page_names_a_folder_that_is_none(seen: Inspection, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file.attention\.html: cannot be written"):
        write_page(tmp_path / "file" / "attention.html", [seen], title="")


def test_notebook_shows_the_page_in_a_frame(seen: Inspection) -> None:
    frame = seen._repr_html_()
    assert frame == notebook_html(seen)
    found = re.fullmatch(r'<iframe srcdoc="([^"]*)" sandbox="allow-scripts" [^<>]*></iframe>', frame)
    assert found
    assert html.unescape(found[1]) == page([seen], title="noise.png")


def test_parts_are_installed_with_the_package() -> None:
    """Every part of the page is package data: an installed convit has it, not only a checkout."""
    root = Path(page_module.__file__).parents[3]
    if not (root / "pyproject.toml").is_file():
        pytest.skip("no checkout")
    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["convit"]
    package = Path(page_module.__file__).parents[1]
    listed = {path for pattern in patterns for path in package.glob(pattern)}
    parts = {path for path in (package / "pages").rglob("*.*") if path.suffix in (".js", ".css", ".html")}
    assert parts
    assert parts <= listed


def test_a_positional_map_of_another_kind_is_refused() -> None:
    """The page draws it from v_pos, and would show another one."""
    model = ours()
    model.blocks[0].attn.positional_map.register_forward_hook(lambda _module, _args, out: out.flip(-1))
    with pytest.raises(InputError, match=r"positional map in layer 0 that is not softmax\(v_pos \. r\)"):
        page([inspect(model, Image.new("RGB", (16, 16)))], title="")
