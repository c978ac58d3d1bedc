"""The attention page in Chromium, under a mouse, a finger and the keys: each moves the patch, the head, the view."""

import pytest

from convit.analysis import Inspection
from tests.browser.conftest import Open
from tests.browser.looks import PHONE, assert_shows, frame, patch_centre, pixels, pressed

pytestmark = pytest.mark.browser


def test_pointing_moves_without_a_button_and_a_click_holds(open_page: Open, seen: Inspection) -> None:
    tab = open_page([seen])
    grid = seen.layers[0].grid

    def query() -> int:
        frame(tab)
        return tab.evaluate("window.convit.state.query")

    tab.mouse.move(*patch_centre(tab, grid, 3))
    before = pixels(tab, 27 - 9)
    assert query() == 3
    tab.mouse.move(*patch_centre(tab, grid, 12))
    assert query() == 12
    assert (pixels(tab, 27 - 9) != before).any()
    tab.mouse.click(*patch_centre(tab, grid, 5))
    tab.mouse.move(*patch_centre(tab, grid, 9))
    assert query() == 5
    assert "row 2, column 2 of 4 × 4, held" in tab.locator("#where").inner_text()
    tab.mouse.click(*patch_centre(tab, grid, 5))
    tab.mouse.move(*patch_centre(tab, grid, 9))
    assert query() == 9


def test_mark_lies_on_the_patch(open_page: Open, seen: Inspection) -> None:
    tab = open_page([seen])
    tab.evaluate("window.convit.select(6)")
    frame(tab)
    for mark, around in (("#mark", "#picture"), (".map .mark", ".map")):
        box = tab.locator(mark).first.bounding_box()
        centre = patch_centre(tab, seen.layers[0].grid, 6, around)
        assert (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2) == pytest.approx(centre, abs=0.5)
        assert box["width"] == pytest.approx(tab.locator(around).first.bounding_box()["width"] / 4, abs=0.5)


def test_touch(open_page: Open, seen: Inspection) -> None:
    tab = open_page([seen], **PHONE)
    grid = seen.layers[0].grid
    tab.touchscreen.tap(*patch_centre(tab, grid, 14))
    frame(tab)
    assert tab.evaluate("window.convit.state.query") == 14
    assert_shows(tab, seen, 14)
    tab.locator(".map").nth(2).tap()
    frame(tab)
    assert tab.locator("#selected").inner_text().startswith("Layer 1, head 3 · gate")
    assert tab.evaluate("window.convit.state.query") == 14


def test_dragging_a_finger_follows_and_does_not_scroll(open_page: Open, seen: Inspection) -> None:
    tab = open_page([seen], **PHONE)
    session = tab.context.new_cdp_session(tab)
    for kind, patch in (("touchStart", 0), ("touchMove", 5), ("touchMove", 10)):
        x, y = patch_centre(tab, seen.layers[0].grid, patch)
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    frame(tab)
    assert tab.evaluate("[window.convit.state.query, scrollY]") == [10, 0]


def test_keys(open_page: Open, seen: Inspection) -> None:
    tab = open_page([seen])
    state = "window.convit.state"
    tab.locator("#picture").focus()
    tab.evaluate("window.convit.select(5)")
    for key, query in (("ArrowRight", 6), ("ArrowDown", 10), ("ArrowLeft", 9), ("ArrowUp", 5), ("0", -1), ("0", 5)):
        tab.keyboard.press(key)
        assert tab.evaluate(f"{state}.query") == query, key
    tab.evaluate("window.convit.select(0)")
    for key in ("ArrowUp", "ArrowLeft"):  # at the border
        tab.keyboard.press(key)
        assert tab.evaluate(f"{state}.query") == 0
    for key, group, button in (
        ("c", "kind", "content"),
        ("p", "kind", "position"),
        ("m", "kind", "mix"),
        ("l", "scale", "log"),
        ("s", "top", "common"),
    ):
        tab.keyboard.press(key)
        frame(tab)
        assert pressed(tab, group) == button
    assert tab.evaluate(f"{state}.held")
    tab.keyboard.press("Escape")
    assert not tab.evaluate(f"{state}.held")


def test_tab_goes_through_the_controls_and_arrows_through_the_tiles(open_page: Open, seen: Inspection) -> None:
    tab = open_page([seen])
    focus = "document.activeElement.getAttribute('aria-label') || document.activeElement.textContent"
    stops = []
    for _ in range(19):
        tab.keyboard.press("Tab")
        stops.append(tab.evaluate(focus))
    assert stops == [
        *("light or dark", "picture; arrow keys move the patch", "picture", "head", "relevance", "class token"),
        *("content", "position", "mix", "linear", "log", "each head", "common", "Reset gates"),
        *("layer 1, head 1", "gate of layer 1, head 1", "Keys, and what the numbers are"),
        *stops[17:],  # the browser's own
    ]
    tab.locator(".map").first.focus()
    query = tab.evaluate("window.convit.state.query")
    for key, label in (
        ("ArrowRight", "layer 1, head 2"),
        ("ArrowDown", "layer 2, head 2"),
        ("ArrowLeft", "layer 2, head 1"),
    ):
        tab.keyboard.press(key)
        assert tab.evaluate(focus) == label
    tab.keyboard.press("Enter")
    frame(tab)
    assert tab.locator("#selected").inner_text().startswith("Layer 2, head 1")
    tab.keyboard.press("Tab")
    assert tab.evaluate(focus) == "gate of layer 2, head 1"
    tab.keyboard.press("ArrowLeft")
    frame(tab)
    assert tab.evaluate("window.convit.setGates.has('1:0')")
    assert tab.evaluate("window.convit.state.query") == query
