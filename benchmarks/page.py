"""How fast the attention page of a base model opens, and how fast it follows the pointer, in headless Chromium.

    python benchmarks/page.py --rounds 10

Needs playwright and a Chromium. Prints milliseconds: from sending the browser there to all tiles drawn, and for one
move of the query patch over all tiles (computed, drawn and laid out); the least and the median of each.
"""

import argparse
import shutil
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from playwright.sync_api import sync_playwright

import convit
from convit.analysis.page import write_page

MOVES = """() => {
    const times = [];
    for (let query = 0; query < 196; query++) {
        const start = performance.now();
        window.convit.select(query);
        draw();
        document.body.getBoundingClientRect();
        times.push(performance.now() - start);
    }
    return times;
}"""


def main() -> None:
    """Writes the page of a model with random weights, opens it so many times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    torch.manual_seed(0)
    model = convit.create_model("convit_base_patch16_224").eval()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = Path(folder) / "attention.html"
        write_page(page, [convit.inspect(model, picture, masking=False)], title="Base")
        program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        opening, moves = [], []
        for _ in range(rounds):
            tab = browser.new_page(viewport={"width": 1280, "height": 900})
            tab.goto(page.as_uri())
            tab.evaluate("window.convit.ready")
            opening.append(tab.evaluate("performance.now()"))
            moves += tab.evaluate(MOVES)
            tiles = tab.locator(".tile").count()
            tab.close()
        print(f"{page.stat().st_size / 1e6:.1f} MB, {tiles} tiles, {rounds} rounds")
        for name, times in {"opens": opening, "a move": moves}.items():
            print(f"{name}: {min(times):.1f} ms at least, {statistics.median(times):.1f} in the middle")


if __name__ == "__main__":
    main()
