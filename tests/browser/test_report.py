"""``report.html`` in Chromium: no request, no script, nothing cut off, light and dark, wide and narrow."""

from pathlib import Path
from typing import Any

import pytest

from convit.training.page import REPORT, Report, page
from tests.browser.conftest import Open
from tests.training.made_report import class_folders, made_plan, made_report

pytestmark = [pytest.mark.browser, pytest.mark.pictures]
NAMES = ("<img src=x onerror=alert(1)>", "猫", "a class with a name that is long " * 4, "w" * 90)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    plan = made_plan(class_folders(tmp_path_factory.mktemp("data") / "<b>hostile & animals", NAMES))
    return made_report(plan, [[4 if i == j else 1 for j in range(4)] for i in range(4)], losses=(1.2, 0.8, 0.9))


def opened(open_file: Open, report: Report, folder: Path, width: int, **context: Any) -> Any:
    (folder / REPORT).write_text(page(report), "utf-8")
    return open_file(folder / REPORT, viewport={"width": width, "height": 800}, **context)


@pytest.mark.parametrize("width", [1280, 760, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_off(open_file: Open, report: Report, tmp_path: Path, width: int, scheme: str) -> None:
    tab = opened(open_file, report, tmp_path, width, color_scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    beyond = """(width) => [...document.querySelectorAll("main *, header *")].filter((element) =>
        !element.closest(".wide") && element.getBoundingClientRect().right > width + 0.5).map((e) => e.outerHTML)"""
    assert tab.evaluate(beyond, width) == []
    cut = """() => [...document.querySelectorAll("svg")].flatMap((svg) => {
        const box = svg.getBoundingClientRect();
        return [...svg.querySelectorAll("text")].filter((text) => {
            const at = text.getBoundingClientRect();
            return at.left < box.left - 1 || at.right > box.right + 1 || at.bottom > box.bottom + 1;
        }).map((text) => text.textContent);
    })"""
    assert tab.evaluate(cut) == []


def test_names_are_text(open_file: Open, report: Report, tmp_path: Path) -> None:
    tab = opened(open_file, report, tmp_path, 1280)
    assert tab.locator("img").count() == len(report.mistakes)
    assert tab.locator(".matrix tbody th").all_text_contents() == list(report.plan.class_names)
    assert tab.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    assert tab.title().startswith("<b>hostile & animals")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(open_file: Open, report: Report, tmp_path: Path, scheme: str) -> None:
    """At least 4.5 to 1, as WCAG asks for."""
    tab = opened(open_file, report, tmp_path, 1280, color_scheme=scheme)
    contrast = """() => {
        const draw = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
        const rgb = (colour) => {
            draw.clearRect(0, 0, 1, 1); draw.fillStyle = colour; draw.fillRect(0, 0, 1, 1);
            return [...draw.getImageData(0, 0, 1, 1).data];
        };
        const light = (colour) => rgb(colour).slice(0, 3).map((v) => v / 255)
            .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
            .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
        const behind = (element) => {
            for (let at = element; at; at = at.parentElement) {
                const colour = getComputedStyle(at).backgroundColor;
                if (rgb(colour)[3] === 255) return colour;
            }
            return "white";
        };
        const all = [...document.querySelectorAll("h1, h2, p, dt, dd, th, td:not(.none), figcaption, a, svg text")];
        return all.map((element) => {
            const style = getComputedStyle(element);
            const pair = [light(element.closest("svg") ? style.fill : style.color), light(behind(element))];
            return [(Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05), element.outerHTML.slice(0, 90)];
        }).filter(([ratio]) => ratio < 4.5);
    }"""
    assert tab.evaluate(contrast) == []


def test_a_screen_reader_is_told_what_the_charts_show(open_file: Open, report: Report, tmp_path: Path) -> None:
    tab = opened(open_file, report, tmp_path, 1280)
    labels = [svg.get_attribute("aria-label") for svg in tab.locator("svg").all()]
    assert len(labels) == 1 + 2 + 3  # the scale, two curves, three layers
    assert all(labels)
    assert labels[0].startswith("accuracy ")
