"""The attention page for every way to read it: low screens, keys alone, high contrast, a screen reader, a finger."""

from dataclasses import replace
from typing import Any

import pytest

from convit.analysis import Inspection
from tests.browser.conftest import Open
from tests.browser.looks import PHONE, base_sized, frame, patch_centre, shown

pytestmark = pytest.mark.browser


def node(tab: Any, selector: str) -> dict[str, str]:
    """What a screen reader is told of the first such element: role, name, description."""
    session = tab.context.new_cdp_session(tab)
    root = session.send("DOM.getDocument")["root"]["nodeId"]
    found = session.send("DOM.querySelector", {"nodeId": root, "selector": selector})["nodeId"]
    tree = session.send("Accessibility.getPartialAXTree", {"nodeId": found, "fetchRelatives": False})
    told = tree["nodes"][0]
    return {key: told[key]["value"] for key in ("role", "name", "description") if key in told}


@pytest.mark.parametrize(("width", "height"), [(320, 256), (740, 340), (844, 390)])
def test_low_screen_is_left_to_the_maps(open_page: Open, seen: Inspection, width: int, height: int) -> None:
    tab = open_page([seen], viewport={"width": width, "height": height})
    tab.locator(".tiles").nth(2).evaluate("(tiles) => tiles.scrollIntoView()")
    frame(tab)
    box = tab.locator(".side").bounding_box()
    assert box["y"] + box["height"] <= 0 or box["x"] + box["width"] <= tab.locator(".maps").bounding_box()["x"]
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.locator("#picture").bounding_box()["height"] <= 0.61 * height  # room for a finger that scrolls


def test_arrow_keys_scroll_where_there_is_no_map(open_page: Open, seen: Inspection) -> None:
    tab = open_page([seen], viewport={"width": 1280, "height": 500})
    tab.evaluate("window.convit.select(5)")
    tab.keyboard.press("ArrowDown")
    tab.get_by_role("button", name="content").focus()
    tab.keyboard.press("ArrowDown")
    assert tab.evaluate("window.convit.state.query") == 5
    scrolled = """new Promise((done) => {
        const look = () => scrollY > 0 ? done(true) : requestAnimationFrame(look);
        look();
        setTimeout(() => done(false), 3000);
    })"""
    assert tab.evaluate(scrolled)
    tab.locator("#picture").focus()
    tab.keyboard.press("ArrowUp")
    assert tab.evaluate("window.convit.state.query") == 1
    kept = "document.addEventListener('keydown', (event) => document.body.dataset.kept = event.defaultPrevented)"
    tab.evaluate(kept)
    tab.keyboard.press("ArrowDown")
    assert tab.locator("body").get_attribute("data-kept") == "true"  # it moves the patch, not the page


def test_high_contrast_tells_pressed_from_not_and_keeps_the_bars(open_page: Open, seen: Inspection) -> None:
    tab = open_page([seen, seen], forced_colors="active")
    look = "(e) => { const s = getComputedStyle(e); return [s.backgroundColor, s.borderTopColor].join(); }"
    for group in ("#kind", "#pictures"):
        pressed, not_pressed = (
            tab.locator(f'{group} [aria-pressed="{state}"]').first.evaluate(look) for state in ("true", "false")
        )
        assert pressed != not_pressed, group
    fill = "(e) => { const s = getComputedStyle(e); return [s.borderBottomStyle, s.borderBottomWidth]; }"
    for bars in ("#predictions .fill", "#masking .fill"):
        assert tab.locator(bars).first.evaluate(fill) == ["solid", "3px"]
    mark = "(e) => getComputedStyle(e).outlineColor"
    assert tab.locator("#mark").evaluate(mark) == "rgb(255, 42, 31)"  # the mark lies on a map, not on the page


def test_tiles_say_what_they_look_at(open_page: Open, seen: Inspection) -> None:
    tab = open_page([seen])
    tab.evaluate("window.convit.select(6)")
    tab.wait_for_timeout(600)  # it is written when pointing has stopped
    row = shown(tab, seen.layers[0], 0, "mix", 6)
    assert row is not None
    best = int(row.argmax())
    told = node(tab, ".map")
    assert (told["role"], told["name"]) == ("button", "layer 1, head 1")
    where, weight = told["description"].split(": ")
    assert where == f"most at row {best // 4 + 1}, column {best % 4 + 1}"
    assert float(weight[:-1]) == pytest.approx(100 * row.max().item(), rel=0.06)
    tab.evaluate("window.convit.select(-1)")
    tab.locator(".map").first.focus()  # at once where one is
    frame(tab)
    assert node(tab, ".map")["description"] == "the class token takes no part here"


def test_descriptions_wait_until_pointing_stops(open_page: Open, seen: Inspection) -> None:
    tab = open_page([seen])
    written = tab.evaluate("""() => new Promise((done) => {
        let written = 0, moves = 0;
        new MutationObserver((all) => { written += all.length; })
            .observe(document.getElementById("layers"), { subtree: true, attributeFilter: ["aria-description"] });
        const move = setInterval(() => {
            window.convit.select(moves % 16);
            if (++moves === 20) { clearInterval(move); setTimeout(() => done(written), 800); }
        }, 20);
    })""")
    assert 0 < written <= 27 * 3  # 27 for each of 20 moves is 540; a loaded machine may pause between two moves


def test_what_changes_is_announced(open_page: Open, seen: Inspection) -> None:
    for context in ({}, PHONE):
        tab = open_page([seen], **context)
        for name in ("where", "selected"):
            assert tab.locator(f"#{name}").get_attribute("aria-live") == "polite"
            assert tab.locator(f"#{name}").evaluate("(e) => getComputedStyle(e).display") != "none"
    assert tab.locator("#where").evaluate("(e) => e.getBoundingClientRect().height") <= 1  # unseen on a phone


def test_charts_have_their_numbers_as_tables(open_page: Open, seen: Inspection) -> None:
    tab = open_page([seen])
    for chart, text in (
        ("#gates", lambda layer, head: f"{layer.gates[head]:.2f}"),
        ("#centres", lambda layer, head: f"span {s:.2f}" if (s := layer.spans[head]).isfinite() else "no centre"),
    ):
        table = tab.locator(f"{chart} table")
        assert node(tab, f"{chart} table")["role"] == "table"
        assert table.locator("thead th").all_text_contents() == ["layer", *(f"head {n}" for n in range(1, 10))]
        for index, row in enumerate(table.locator("tbody tr").all()):
            layer = seen.layers[index]
            assert row.locator("th").text_content() == str(index + 1)
            for head, cell in enumerate(row.locator("td").all_text_contents()):
                assert cell.endswith(text(layer, head)), (chart, index, head)
        assert table.locator("tbody tr").count() == 2
        box = tab.locator(f"{chart} .visually-hidden").bounding_box()
        assert max(box["width"], box["height"]) <= 1


def test_key_0_goes_to_the_class_token_and_back(open_page: Open, seen: Inspection) -> None:
    tab = open_page([seen])
    tab.evaluate("window.convit.select(9)")
    for back in (lambda: tab.keyboard.press("0"), lambda: tab.get_by_role("button", name="class token").click()):
        for query in (-1, 9):
            back()
            assert tab.evaluate("window.convit.state.query") == query
    tab.keyboard.press("0")
    tab.locator("#picture").focus()
    tab.keyboard.press("ArrowRight")
    assert tab.evaluate("window.convit.state.query") == 10


def test_tap_on_a_tile_reads_the_weight_of_a_patch(open_page: Open) -> None:
    seen = base_sized()
    tab = open_page([seen], **PHONE)
    tab.evaluate("window.convit.select(20)")
    tab.evaluate("scrollTo(0, 150)")
    grid = seen.layers[0].grid
    for patch, place in ((45, "row 4, column 4"), (130, "row 10, column 5")):
        tab.touchscreen.tap(*patch_centre(tab, grid, patch, ".map"))
        frame(tab)
        first, weight, *_ = tab.locator("#tip").inner_text().splitlines()
        assert first == f"layer 1, head 1 → {place}"
        want = shown(tab, seen.layers[0], 0, "mix", 20)
        assert want is not None
        assert float(weight.split("%")[0]) == pytest.approx(100 * want[patch].item(), rel=0.06)
        assert tab.locator("#selected").inner_text().startswith("Layer 1, head 1")  # another patch keeps the head
    tab.touchscreen.tap(*patch_centre(tab, grid, 130, ".map"))
    frame(tab)
    assert not tab.locator("#tip").is_visible()
    assert tab.locator("#selected").inner_text() == ""
    tab.touchscreen.tap(*patch_centre(tab, grid, 130, ".map"))
    tab.touchscreen.tap(*patch_centre(tab, grid, 7))
    frame(tab)
    assert not tab.locator("#tip").is_visible()  # any other tap puts it away


@pytest.mark.parametrize("right", [True, False])
def test_true_class_is_said(open_page: Open, seen: Inspection, right: bool) -> None:
    label = seen.predictions[0].class_name if right else "<b>cat"
    tab = open_page([replace(seen, label=label)])
    assert tab.locator("#label").text_content() == (f"true class: {label}" if right else "true class: <b>cat, missed")
    assert tab.locator("#label.other").count() == (not right)


def test_unknown_true_class_is_left_out(open_page: Open, seen: Inspection) -> None:
    assert not open_page([seen]).locator("#label").is_visible()


def test_nothing_of_the_side_is_cut_off(open_page: Open, seen: Inspection) -> None:
    tab = open_page([replace(seen, label="a long class " * 9)], viewport={"width": 800, "height": 700})
    assert tab.locator(".side").evaluate("(side) => side.scrollWidth <= side.clientWidth")
