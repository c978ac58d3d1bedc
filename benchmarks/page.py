"""How fast the pages are, in headless Chromium, and how near the classifier's page is to PyTorch.

    python benchmarks/page.py --rounds 10
    python benchmarks/page.py --agreement RUN PHOTOS

Needs playwright, a Chromium and onnxruntime. Prints, least and median of so many rounds, in milliseconds:

- of the attention page of a base model: from sending the browser there to all tiles drawn, and one move of the query
  patch over all tiles (computed, drawn and laid out);
- of the classifier's page of nano, mini and tiny: an answer for a prepared photo, and a gate of the first and of the
  last layer moved, to the new answer on the screen; beside them onnxruntime with one thread for the same answer, in
  turn with the page; and the size of the page and of its weights.

``--agreement`` exports a run instead, hands its page every photo of a folder, and prints how far the logits are from
PyTorch's, as a part of the largest logit of all photos and of the photo's own, and for how many photos the most
probable class is the same: once with the pixels that Python decodes, and once with the files, which the browser
decodes.
"""

import argparse
import io
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from playwright.sync_api import sync_playwright

import convit
from convit.analysis.page import write_page
from convit.classifier import Classifier
from convit.data import Preprocess
from convit.export import export_onnx, onnx_runner
from convit.export_web import export_web
from convit.preprocess import prepared

SMALL = ("convit_nano_patch4_32", "convit_mini_patch8_128", "convit_tiny_patch16_224")
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
SHOWN = """async (side) => {
    const canvas = document.createElement("canvas"), context = canvas.getContext("2d");
    canvas.width = canvas.height = side;
    const pixels = context.createImageData(side, side);
    for (let i = 0; i < pixels.data.length; i++) pixels.data[i] = i % 4 === 3 ? 255 : (i * 7919) % 251;
    context.putImageData(pixels, 0, 0);
    await window.convit.take([[canvas, "photo"]]);
}"""
ANSWER = """async () => {
    const start = performance.now();
    await window.convit.logitsWith(window.convit.photos[0], trainedGates());
    return performance.now() - start;
}"""
GATE = """async ([layer, value]) => {
    const start = performance.now();
    window.convit.setGates.set(`${layer}:0`, value);
    await window.convit.recompute();
    document.body.getBoundingClientRect();
    return performance.now() - start;
}"""


def main() -> None:
    """Measures both pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--agreement", nargs=2, type=Path, metavar=("RUN", "PHOTOS"))
    options = parser.parse_args()
    rounds = options.rounds
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        if options.agreement:
            agreement(browser, Path(folder), *options.agreement)
            return
        for name in SMALL:
            classifier_page(browser, Path(folder), name, rounds)
        attention_page(browser, Path(folder), rounds)


def agreement(browser: Any, folder: Path, run: Path, photos: Path) -> None:
    """The page of a run beside PyTorch, on every photo of a folder."""
    classifier = convit.load(run)
    page = export_web(classifier, folder / "run.html")
    print(f"{page.path.name}: {page.bytes} bytes, weights at {page.weights}, {page.difference:.1e} by rounding them")
    files = sorted(file for file in photos.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
    expected, coded = [], []
    for file in files:
        with Image.open(file) as opened_file:
            image = ImageOps.exif_transpose(opened_file).convert("RGB")
        with torch.inference_mode():
            expected.append(classifier.model(torch.from_numpy(prepared(image, classifier.preprocess))[None])[0])
        buffer = io.BytesIO()
        image.save(buffer, "PNG", compress_level=1)
        coded.append({"name": f"{file.stem}.png", "mimeType": "image/png", "buffer": buffer.getvalue()})
    for what, handed in (("the same pixels", coded), ("its own decoding", files)):
        tab, found = opened(browser, page.path), []
        for at in range(0, len(handed), 25):  # all at once are too much for one message
            tab.locator("#files").set_input_files(handed[at : at + 25])
            count = min(at + 25, len(handed))
            tab.wait_for_function("(count) => window.convit.photos.length === count", arg=count, timeout=300_000)
        found = [torch.tensor(each) for each in tab.evaluate("window.convit.photos.map(({ logits }) => [...logits])")]
        ours, theirs = torch.stack(found), torch.stack(expected)
        differences, largest = (ours - theirs).abs().amax(1), theirs.abs().amax(1)
        of_all, of_own = float(differences.max() / largest.max()), float((differences / largest).max())
        same = int((ours.argmax(1) == theirs.argmax(1)).sum())
        print(f"{what}: same class {same} of {len(files)}; largest difference {of_all:.1e} of the largest logit of all")
        print(f"    photos, {of_own:.1e} of a photo's own largest")
        tab.close()


def attention_page(browser: Any, folder: Path, rounds: int) -> None:
    """The page of ``convit inspect``, of a base model with random weights."""
    model = convit.create_model("convit_base_patch16_224").eval()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8))
    page = folder / "attention.html"
    write_page(page, [convit.inspect(model, picture, masking=False)], title="Base")
    opening, moves = [], []
    for _ in range(rounds):
        tab = opened(browser, page)
        opening.append(tab.evaluate("performance.now()"))
        moves += tab.evaluate(MOVES)
        tiles = tab.locator(".tile").count()
        tab.close()
    print(f"attention page of a base model: {page.stat().st_size / 1e6:.1f} MB, {tiles} tiles")
    say("opens", opening)
    say("a move", moves)


def classifier_page(browser: Any, folder: Path, name: str, rounds: int) -> None:
    """The page of ``convit export --format web``, of a model with random weights."""
    model = convit.create_model(name, num_classes=10).eval()
    height, width = model.img_size
    names = [f"class {index}" for index in range(10)]
    classifier = Classifier(model, Preprocess(image_size=(height, width)), names, model_name=name)
    page = export_web(classifier, folder / f"{name}.html")
    onnx = onnx_runner(export_onnx(classifier, folder / f"{name}.onnx").path, threads=1)
    weights = sum(parameter.numel() for parameter in model.parameters()) * (2 if page.weights == "fp16" else 4)
    print(f"{name}: {page.bytes / 1e6:.2f} MB, of it {weights / 1e6:.2f} MB of {page.weights} weights")
    tab = opened(browser, page.path)
    tab.evaluate(SHOWN, width)
    image, last = torch.rand(1, 3, height, width), len(model.blocks) - 1
    gated = max(index for index in range(last + 1) if hasattr(model.blocks[index].attn, "gates"))
    measures: dict[str, Callable[[int], float]] = {
        "an answer": lambda turn: tab.evaluate(ANSWER),
        "the same in onnxruntime, one thread": lambda turn: timed(lambda: onnx(image)),
        "a gate of the first layer": lambda turn: tab.evaluate(GATE, [0, turn % 9 / 10]),
        f"a gate of layer {gated + 1}": lambda turn: tab.evaluate(GATE, [gated, turn % 9 / 10]),
    }
    times: dict[str, list[float]] = {what: [] for what in measures}
    for turn in range(rounds + 2):
        for what, measure in measures.items():
            times[what].append(measure(turn))
    for what, found in times.items():
        say(what, found[2:])  # the first two warm up
    ratio = [page / other for page, other in zip(*list(times.values())[:2], strict=True)][2:]
    print(f"    page / onnxruntime: {median(ratio):.1f}")
    tab.close()


def opened(browser: Any, page: Path) -> Any:
    """A new tab with this page, ready."""
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.goto(page.as_uri())
    tab.evaluate("window.convit.ready")
    return tab


def timed(work: Callable[[], object]) -> float:
    """Milliseconds."""
    start = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - start)


def say(what: str, times: list[float]) -> None:
    """The least and the median."""
    print(f"    {what}: {min(times):.1f} ms at least, {median(times):.1f} in the middle")


if __name__ == "__main__":
    main()
