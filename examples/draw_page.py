"""Draws a digit on the web page of the demo's model, and takes the picture of the page in the README.

    make demo
    python examples/draw_page.py runs/digits/model.html docs/images/page.png

Needs playwright and a Chromium.
"""

import shutil
import sys
from math import cos, pi, sin
from pathlib import Path

from playwright.sync_api import sync_playwright

SIZE = {"width": 1180, "height": 800}


def bow(x: float, y: float, radius: float, begin: float, end: float) -> list[tuple[float, float]]:
    """Points of a part of a circle, angles in turns, clockwise from the right."""
    turns = [2 * pi * (begin + (end - begin) * step / 16) for step in range(17)]
    return [(x + radius * cos(turn), y + radius * sin(turn)) for turn in turns]


FIVE = [(0.72, 0.12), (0.34, 0.12), (0.32, 0.47), *bow(0.46, 0.66, 0.23, -1 / 3, 0.39)]


def main(page: Path, picture: Path) -> None:
    """Opens the page, draws, saves what the window shows."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        tab = browser.new_page(viewport=SIZE, color_scheme="light")
        tab.goto(page.absolute().as_uri())
        tab.evaluate("window.convit.ready")
        tab.click("#draw")
        box = tab.locator("#pad").bounding_box()
        assert box is not None
        for number, (x, y) in enumerate(FIVE):
            tab.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
            if number == 0:
                tab.mouse.down()
        tab.mouse.up()
        tab.click("#take")
        tab.wait_for_selector("#pictures button img")
        tab.click("#leave")
        tab.mouse.move(0, 0)
        tab.wait_for_timeout(1500)  # until the relevance is there, too
        tab.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
