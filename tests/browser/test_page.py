"""The attention page in Chromium: what it shows is what Python captured."""

from dataclasses import replace

import pytest
import torch

from convit.analysis import Inspection, MaskedPrediction, inspect
from convit.prediction import Prediction
from tests.analysis.models import MODELS, ours, seen_by, vit
from tests.analysis.test_page import HOSTILE
from tests.browser.conftest import Open
from tests.browser.looks import PHONE, assert_shows, brightest, frame, patch_centre, pixels, pressed, shown, until_named
from tests.helpers import noise

pytestmark = pytest.mark.browser

OTHERS = ("ours, plain", "timm's ConViT, sped up", "ViT with registers")
SHOWN = {name: MODELS[name][0] for name in MODELS if name not in OTHERS}
SHOWN["ours, a rectangle"] = lambda: ours(img_size=(12, 20))


@pytest.mark.parametrize("name", SHOWN)
def test_shows_what_python_captured(open_page: Open, name: str) -> None:
    seen = seen_by(SHOWN[name]())
    tab = open_page([seen])
    grid = seen.layers[0].grid
    assert tab.locator(".tile").count() == sum(len(layer.heads) for layer in seen.layers)
    most_prefix = max(layer.num_prefix_tokens for layer in seen.layers)
    for query in (-most_prefix, 0, 1, grid.num_patches - 1):
        assert_shows(tab, seen, query)
    for patch in (0, grid.width - 1, grid.num_patches - 1):
        tab.mouse.move(*patch_centre(tab, grid, patch))
        frame(tab)
        assert tab.evaluate("window.convit.state.query") == patch
        tile = 0
        for layer in seen.layers:
            for head in range(len(layer.heads)):
                best = shown(tab, layer, head, "mix", patch)[layer.num_prefix_tokens :].argmax().item()  # type: ignore[index]
                assert best in brightest(tab, tile), (layer.index, head)
                tile += 1


def test_answer_is_shown(open_page: Open, seen: Inspection) -> None:
    tab = open_page([seen], title="Cats & dogs")
    assert tab.title() == tab.locator("h1").inner_text() == "Cats & dogs"
    assert tab.locator("#name").inner_text() == "noise.png"
    assert tab.locator("#predictions bdi").all_inner_texts() == [p.class_name for p in seen.predictions]
    assert tab.locator("#predictions .number").first.inner_text() == f"{seen.predictions[0].probability:.1%}"


def test_slider_mixes_anew(open_page: Open, seen: Inspection) -> None:
    tab = open_page([seen])
    tab.keyboard.press("c")
    layer, head, query = seen.layers[1], 4, 6
    tab.evaluate("window.convit.select(6)")
    for gate in (0.0, 0.25, 1.0):
        tab.get_by_label("gate of layer 2, head 5").fill(f"{gate:g}")
        frame(tab)
        assert pressed(tab, "kind") == "mix"
        content, position, mixed = (shown(tab, layer, head, kind, query) for kind in ("content", "position", "mix"))
        assert mixed is not None
        torch.testing.assert_close(mixed, (1 - gate) * content + gate * position, rtol=1e-12, atol=1e-15)  # type: ignore[operator]
        assert tab.locator(".tile").nth(13).locator(".changed").inner_text() == f"{gate:.2f}"
        assert mixed.argmax().item() in brightest(tab, 13)
    assert tab.locator(".changed").count() == 1
    tab.get_by_role("button", name="Reset gates").click()
    frame(tab)
    assert tab.locator(".changed").count() == 0
    assert_shows(tab, seen, query)


def test_scales(open_page: Open, seen: Inspection) -> None:
    """Linear and log, each head's own brightest colour and a common one, against the colours worked out here."""
    tab = open_page([seen])
    tab.evaluate("window.convit.select(6)")
    rows = [shown(tab, layer, head, "mix", 6)[layer.num_prefix_tokens :] for layer in seen.layers for head in range(9)]  # type: ignore[index]
    colours = tab.evaluate("Array.from(colours, (c) => [c & 255, (c >> 8) & 255, (c >> 16) & 255])")
    assert (colours[0], colours[255]) == ([68, 1, 84], [253, 231, 37])
    for keys in ("", "l", "s", "l"):
        tab.keyboard.press(keys) if keys else None
        frame(tab)
        log, common = tab.evaluate("[window.convit.state.log, window.convit.state.common]")
        for tile in (0, 13, 26):
            top = max(row.max() for row in rows) if common else rows[tile].max()
            part = rows[tile] / top
            level = 255 * (1 + part.log10() / 3 if log else part).clamp(0, 1)
            got = pixels(tab, tile).reshape(-1, 3).tolist()
            assert all(
                pixel in (colours[int(at)], colours[int(at) + (at < 255)]) for pixel, at in zip(got, level, strict=True)
            )


def test_class_token_as_the_query(open_page: Open, seen: Inspection) -> None:
    tab = open_page([seen])
    tab.get_by_role("button", name="class token").click()
    frame(tab)
    assert_shows(tab, seen, -1)
    assert tab.locator(".tile.nothing").count() == 18
    assert tab.locator(".layer h3 span").all_inner_texts()[:2] == ["the class token takes no part here"] * 2
    assert not tab.locator("#mark").is_visible()
    row = shown(tab, seen.layers[2], 0, "mix", -1)
    assert row is not None
    assert row[1:].argmax().item() in brightest(tab, 18)
    tab.mouse.move(*patch_centre(tab, seen.layers[0].grid, 5))
    assert tab.evaluate("window.convit.state.query") == -1  # chosen, so held
    tab.locator("#picture").focus()
    tab.keyboard.press("ArrowRight")
    frame(tab)
    assert tab.locator(".tile.nothing").count() == 0


def test_what_goes_to_the_class_token_is_said(open_page: Open, seen: Inspection) -> None:
    tab = open_page([seen])
    tab.evaluate("window.convit.select(6)")
    frame(tab)
    texts = tab.locator(".to-token").all_inner_texts()
    assert len(texts) == 9
    for head, text in enumerate(texts):
        assert float(text.strip("→ %")) == pytest.approx(100 * seen.layers[2].mixed[0, head, 7, 0].item(), rel=0.03)


def test_tip_says_the_weight(open_page: Open, seen: Inspection) -> None:
    tab = open_page([seen])
    tab.evaluate("window.convit.select(6)")
    frame(tab)
    tab.mouse.move(*patch_centre(tab, seen.layers[0].grid, 9, ".map"))
    first, whole, content, position = tab.locator("#tip").inner_text().splitlines()
    assert first == "layer 1, head 1 → row 3, column 2"
    for line, kind in ((whole, "mix"), (content, "content"), (position, "position")):
        want = shown(tab, seen.layers[0], 0, kind, 6)[9].item()  # type: ignore[index]
        word = next(word for word in line.split() if word.endswith("%"))
        assert word == "<0.001%" if want < 1e-5 else float(word[:-1]) == pytest.approx(100 * want, rel=0.06)
    tab.mouse.move(1, 1)
    assert not tab.locator("#tip").is_visible()


def test_head_and_relevance_on_the_picture(open_page: Open, seen: Inspection) -> None:
    tab = open_page([seen])
    assert not tab.locator("#overlay").is_visible()
    tab.locator(".map").nth(20).click()
    frame(tab)
    assert pressed(tab, "over") == "head"
    assert tab.locator("#overlay").is_visible()
    assert pixels(tab, -1).tolist() == pixels(tab, 20).tolist()
    tab.get_by_role("button", name="relevance").click()
    frame(tab)
    assert tab.locator("#overlay").is_visible()
    assert brightest(tab, -1) == [int(seen.relevance.argmax())]  # type: ignore[union-attr]
    tab.get_by_role("button", name="picture", exact=True).click()
    frame(tab)
    assert not tab.locator("#overlay").is_visible()


def test_charts_are_of_the_model(open_page: Open, seen: Inspection) -> None:
    tab = open_page([seen])
    assert tab.locator("#gates circle.dot:not(.old)").count() == 18
    first = tab.locator("#gates circle.dot:not(.old) title").first.text_content()
    assert first == f"layer 1, head 1: gate {seen.layers[0].gates[0]:.3f}"  # type: ignore[index]
    for index in (0, 1):
        layer = seen.layers[index]
        chart = tab.locator("#centres figure").nth(index)
        range_ = -float(chart.locator("svg").get_attribute("viewBox").split()[0])
        inside = (layer.centres.abs() <= range_).all(-1) & layer.spans.isfinite()  # type: ignore[union-attr]
        circles = chart.locator("circle")
        assert circles.count() == int(inside.sum())
        where = [
            [float(circles.nth(i).get_attribute(name)) for name in ("cx", "cy", "r")] for i in range(circles.count())
        ]
        torch.testing.assert_close(torch.tensor(where), torch.cat((layer.centres, layer.spans[:, None]), 1)[inside])  # type: ignore[arg-type, index]


def test_masking_table_is_that_of_the_inspection(open_page: Open, seen: Inspection) -> None:
    table = tuple(replace(r, best=replace(r.best, probability=0.1 + 0.05 * i)) for i, r in enumerate(seen.masking))
    seen = replace(seen, masking=table)
    tab = open_page([seen])
    rows = [row.locator("th, td").all_inner_texts() for row in tab.locator("#masking tbody tr").all()]
    order = [
        r for part in ("nothing", "position embeddings", "content", "position") for r in seen.masking if r.off == part
    ]
    assert [(row[0], row[1]) for row in rows] == [(str(r.layers or r.off), r.best.class_name) for r in order]
    for row, want in zip(rows, order, strict=True):
        assert float(row[2].strip("%")) == pytest.approx(100 * want.best.probability, abs=0.051)
        assert float(row[3].strip("%")) == pytest.approx(100 * want.before.probability, abs=0.051)


def test_hostile_names_are_text(open_page: Open, seen: Inspection) -> None:
    names = [name.replace("\x00", "").replace("\udcff", "\ufffd") for name in HOSTILE]
    pictures = [
        replace(
            seen,
            name=name,
            predictions=tuple(Prediction(other, 0.5) for other in names),
            masking=(MaskedPrediction(off="nothing", layers=0, best=Prediction(name, 1), before=Prediction(name, 1)),),
        )
        for name in names
    ]
    title = "".join(names)
    tab = open_page(pictures, title=title)
    assert tab.locator("h1").text_content() == title
    assert tab.locator("#predictions bdi").all_text_contents() == names
    for i, name in enumerate(names):
        tab.locator("#pictures button").nth(i).click()
        until_named(tab, name)
        assert tab.locator("#masking tbody bdi").text_content() == name
        assert tab.locator("#pictures span").nth(i).text_content() == name
    assert tab.locator("img").count() == 1 + len(names)
    assert tab.locator("main b, main script").count() == 0


@pytest.mark.parametrize("name", ["ours", "DeiT"])
def test_phone_shows_it_without_scrolling_sideways(open_page: Open, name: str) -> None:
    long = "a-very-long-name-without-any-place-to-break-it-" * 4
    seen = seen_by(MODELS[name][0]())
    seen = replace(
        seen, name=long, label=long, predictions=tuple(Prediction(long, p.probability) for p in seen.predictions)
    )
    tab = open_page([seen, seen], title=long, **PHONE)
    tab.locator(".map").first.tap()
    tab.locator("summary").tap()
    frame(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") == 360
    assert tab.locator(".side").bounding_box()["height"] < 370  # half of the screen
    tab.evaluate(
        "scrollTo(0, document.getElementById('layers').offsetTop - document.querySelector('.side').offsetHeight)"
    )
    frame(tab)
    assert tab.evaluate("scrollY") > 0
    assert tab.locator("#picture").bounding_box()["y"] >= 0  # stays in sight above the maps


def test_dark_and_light(open_page: Open, seen: Inspection) -> None:
    colours = "getComputedStyle(document.documentElement).backgroundColor"
    light, dark = (open_page([seen], color_scheme=scheme) for scheme in ("light", "dark"))
    assert light.evaluate(colours) == "rgb(255, 255, 255)"
    assert dark.evaluate(colours) == "rgb(18, 21, 26)"
    dark.get_by_role("button", name="light or dark").click()
    light.keyboard.press("t")
    assert dark.evaluate(colours) == "rgb(255, 255, 255)"
    assert light.evaluate(colours) == "rgb(18, 21, 26)"


def test_several_pictures(open_page: Open) -> None:
    model = ours()
    pictures = [inspect(model, noise(48, 48, seed), name=f"picture {seed}") for seed in (1, 2)]
    tab = open_page(pictures)
    tab.get_by_label("gate of layer 1, head 2").fill("0")
    tab.locator(".map").nth(1).click()
    tab.evaluate("window.convit.select(11)")
    tab.get_by_role("button", name="picture 2").click()
    until_named(tab, "picture 2")
    frame(tab)
    tab.evaluate("window.convit.setGates.clear()")
    assert_shows(tab, pictures[1], 11)
    assert tab.evaluate("window.convit.state.query") == 11
    assert tab.locator("#selected").inner_text().startswith("Layer 1, head 2 · gate 0.00")
    assert tab.locator('#pictures [aria-pressed="true"]').inner_text() == "picture 2"


def test_plain_model_has_no_gates(open_page: Open) -> None:
    tab = open_page([seen_by(vit())])
    assert tab.locator("input").count() == 0
    for kind in ("content", "position"):
        button = tab.get_by_role("button", name=kind, exact=True)
        assert button.is_disabled()
        assert button.get_attribute("title") == "No layer here has gated positional attention"
    for hidden in ("#gates-card", "#centres-card", "#reset"):
        assert not tab.locator(hidden).is_visible()
    tab.keyboard.press("p")
    frame(tab)
    assert pressed(tab, "kind") == "attention"
    assert tab.locator(".tile.nothing").count() == 0


def test_chosen_layers_and_heads_keep_their_numbers(open_page: Open) -> None:
    seen = seen_by(ours(), layers=[1], heads=[7, 2])
    tab = open_page([seen])
    assert [text.strip() for text in tab.locator(".caption span:first-child").all_inner_texts()] == ["8", "3"]
    assert tab.locator("h3").inner_text().startswith("Layer 2 · GPSA")
    assert_shows(tab, seen, 3)
    assert tab.get_by_role("button", name="relevance").count() == 0


def test_diverged_model_is_shown_empty(open_page: Open, seen: Inspection) -> None:
    layer = seen.layers[0]
    lost = {
        name: torch.full_like(getattr(layer, name), torch.nan) for name in ("mixed", "content", "gates", "pos_weight")
    }
    tab = open_page([replace(seen, layers=(replace(layer, **lost), *seen.layers[1:]))])
    frame(tab)
    assert (pixels(tab, 0) == 0).all()
    assert tab.locator(".caption span").nth(1).inner_text() == "–"
    assert tab.locator("#centres figcaption").first.inner_text() == "Layer 1, 9 not in view"
