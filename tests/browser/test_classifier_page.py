"""The page of ``convit export --format web`` in Chromium: it answers as Python does, whatever is dropped on it."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from convit import Classifier
from convit.analysis.masking import gates_set
from convit.calibration import Calibration
from convit.data import Preprocess
from convit.export_web import export_web
from convit.preprocess import prepared
from tests.analysis.test_page import HOSTILE
from tests.browser.conftest import Open
from tests.browser.looks import PHONE, brightest, frame, patch_centre
from tests.helpers import encoded, noise, randomise, tiny_model

pytestmark = pytest.mark.browser
NAMES = ["cat", "dog", *HOSTILE[:2], "=1+1"]
SIZE = (24, 16)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    torch.manual_seed(0)
    model = randomise(tiny_model(img_size=SIZE), std=0.15).eval()
    return Classifier(model, Preprocess(image_size=SIZE, crop_pct=0.9), NAMES, model_name=HOSTILE[0])


def photo(seed: int = 0, size: tuple[int, int] = (90, 70)) -> Image.Image:
    return noise(9, 7, seed).resize(size, Image.Resampling.BICUBIC)


HANDED = """async ([files, how]) => {
    const data = new DataTransfer();
    for (const [name, content, type] of files) {
        data.items.add(new File([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))], name, { type }));
    }
    const event = how === "drop" ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
        : new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
    document.body.dispatchEvent(event);
    const done = () => document.querySelectorAll("#pictures button, #problems li").length >= files.length;
    while (!done()) await new Promise((go) => setTimeout(go, 10));
    await new Promise((go) => setTimeout(go, 50));
}"""


def hand(tab: Any, files: dict[str, bytes], how: str = "drop") -> None:
    """Drops or pastes files, and waits until each is answered or refused."""
    coded = [[name, base64.b64encode(content).decode(), "image/png"] for name, content in files.items()]
    tab.evaluate(HANDED, [coded, how])


def logits(tab: Any, number: int = 0) -> torch.Tensor:
    return torch.tensor(tab.evaluate("(number) => [...window.convit.photos[number].logits]", number))


def expected(classifier: Classifier, image: Image.Image, covered: tuple[int, ...] = ()) -> torch.Tensor:
    pixels = torch.from_numpy(prepared(image, classifier.preprocess))
    for patch in covered:
        row, column = divmod(patch, SIZE[1] // 4)
        pixels[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 0
    with torch.no_grad():
        return classifier.model(pixels[None])[0]


def near(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    return bool((found - wanted).abs().max() <= 1e-3 * wanted.abs().max())


def shown(tab: Any) -> torch.Tensor:
    """The logits that belong to the answer that is shown."""
    settled = """async () => {
        await window.convit.recompute();
        const { photos } = window.convit;
        return [...photos.find(({ pass }) => pass).pass.logits];
    }"""
    return torch.tensor(tab.evaluate(settled))


@pytest.mark.parametrize("how", ["drop", "paste"])
def test_answers_as_python_does(open_classifier: Open, classifier: Classifier, how: str) -> None:
    tab = open_classifier()
    hand(tab, {"one.png": encoded(photo())}, how)
    assert near(logits(tab), expected(classifier, photo()))
    best = classifier.predict(photo(), top_k=5)
    assert tab.locator("#predictions bdi").all_inner_texts() == [p.class_name for p in best]
    told = tab.locator("#predictions .number").first.inner_text()
    assert float(told.strip("%")) == pytest.approx(100 * best[0].probability, abs=0.2)
    assert tab.locator("#status").inner_text().startswith(best[0].class_name)


def test_pixels_are_pythons(open_classifier: Open, classifier: Classifier) -> None:
    """To the byte for opaque pictures without loss, within one level with transparency; EXIF turns a photo."""
    clear = photo(1).convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    turned, exif = photo(2), Image.Exif()
    exif[0x0112] = 6
    files = {
        "opaque.png": (encoded(photo(3, (400, 300))), photo(3, (400, 300)), 0),
        "small.png": (encoded(photo(4, (9, 5))), photo(4, (9, 5)), 0),
        "clear.png": (encoded(clear), clear, 1),
        "turned.png": (encoded(turned, exif=exif), turned.transpose(Image.Transpose.ROTATE_270), 0),
        "grey.png": (encoded(photo(5).convert("L")), photo(5).convert("L"), 0),
        "palette.png": (encoded(photo(6).quantize(64)), photo(6).quantize(64), 0),
    }
    tab = open_classifier()
    hand(tab, {name: content for name, (content, _, _) in files.items()})
    mean, std = np.array(classifier.preprocess.mean), np.array(classifier.preprocess.std)
    for number, (name, (_, image, most)) in enumerate(files.items()):
        found = np.array(tab.evaluate("(number) => [...window.convit.photos[number].bytes]", number)).reshape(*SIZE, 3)
        wanted = prepared(image, classifier.preprocess).transpose(1, 2, 0) * std + mean
        assert np.abs(found - np.rint(255 * wanted)).max() <= most, name


def test_a_gate_moved_and_a_patch_covered_change_the_answer(open_classifier: Open, classifier: Classifier) -> None:
    tab = open_classifier()
    hand(tab, {"one.png": encoded(photo())})
    before = expected(classifier, photo())
    slider = tab.get_by_role("slider", name="gate of layer 2, head 3")
    slider.focus()
    tab.keyboard.press("Home")
    assert tab.locator(".tile input").nth(9 + 2).input_value() == "0"
    with gates_set(classifier.model, {1: {2: 0.0}}):
        assert near(shown(tab), expected(classifier, photo()))
    assert tab.locator("#answer-note").inner_text().startswith("1 gate moved")
    for button, value in (("position only", 1.0), ("content only", 0.0)):
        tab.get_by_role("button", name=button).click()
        with gates_set(classifier.model, {layer: dict.fromkeys(range(9), value) for layer in (0, 1)}):
            assert near(shown(tab), expected(classifier, photo())), button
    tab.get_by_role("button", name="as trained").click()
    assert near(shown(tab), before)
    tab.get_by_role("slider", name="all gates of layer 1").focus()
    tab.keyboard.press("End")
    with gates_set(classifier.model, {0: dict.fromkeys(range(9), 1.0)}):
        assert near(shown(tab), expected(classifier, photo()))
    tab.get_by_role("button", name="as trained").click()
    tab.locator("#picture").click(position={"x": 2, "y": 2})
    tab.get_by_role("button", name="cover this patch").click()
    assert near(shown(tab), expected(classifier, photo(), covered=(0,)))
    assert tab.locator(".cover").count() == 1
    tab.locator("#picture").focus()
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("x")
    assert near(shown(tab), expected(classifier, photo(), covered=(0, 1)))
    tab.get_by_role("button", name="uncover all").click()
    assert near(shown(tab), before)
    assert tab.locator("#answer-note").is_hidden()


def test_what_cannot_be_read_is_told_in_one_line(open_classifier: Open, classifier: Classifier) -> None:
    tab = open_classifier()
    files = {
        "broken.jpg": encoded(photo(), "JPEG")[:300],
        "text.jpg": b"hello",
        "empty.png": b"",
        "apple.heic": b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(100),
        HOSTILE[0]: b"x",
        "x" * 3000: b"x",
        "good.png": encoded(photo()),
    }
    hand(tab, files)
    told = tab.locator("#problems li").all_inner_texts()
    assert len(told) == 6 or (len(told) == 5 and "broken" not in told[0])  # a browser may show the rest of a photo
    assert any("apple.heic: is a HEIC file" in line for line in told)
    assert "empty.png: is empty" in told
    assert any(line.startswith(HOSTILE[0]) for line in told)
    assert all(len(line) < 250 for line in told)
    number = tab.evaluate("window.convit.photos.findIndex(({ name }) => name === 'good.png')")
    assert near(logits(tab, number), expected(classifier, photo()))


def test_a_photo_of_50_megapixels(open_classifier: Open, classifier: Classifier) -> None:
    large = photo(7, (8000, 6250))
    tab = open_classifier()
    hand(tab, {"large.png": encoded(large, compress_level=1)})
    assert tab.locator("#problems li").count() == 0
    assert near(logits(tab), expected(classifier, large))


def test_names_are_never_markup(open_classifier: Open, classifier: Classifier) -> None:
    tab = open_classifier()
    usual = tab.evaluate("document.querySelectorAll('script, img, b').length")
    names = [name for name in HOSTILE if name.isascii()]
    hand(tab, {name: encoded(photo(i)) for i, name in enumerate(names)})
    assert tab.locator("#pictures button").count() == len(names)
    assert tab.evaluate("document.querySelectorAll('script, img, b').length") == usual + len(names)
    titles = tab.locator("#pictures button").evaluate_all("(all) => all.map(({ title }) => title)")
    assert titles == names
    assert tab.title() == classifier.model_name


def test_csv(open_classifier: Open, classifier: Classifier) -> None:
    tab = open_classifier()
    hand(tab, {"a,b.png": encoded(photo()), "=cmd.png": encoded(photo(1))})
    with tab.expect_download() as download:
        tab.get_by_role("button", name="Answers as CSV").click()
    text = Path(download.value.path()).read_text("utf-8-sig")
    best = classifier.predict(photo(), top_k=1)[0]
    lines = text.splitlines()
    assert lines[0] == "image,rank,class,probability"
    assert lines[1].startswith('"a,b.png",1,')
    assert float(lines[1].rsplit(",", 1)[1]) == pytest.approx(best.probability, abs=2e-3)
    assert len(lines) == 1 + 2 * 5
    assert lines[6].startswith("'=cmd.png,1,")
    assert ",'=1+1," in text


def test_none_of_these(classifier: Classifier, open_file: Open, tmp_path: Path) -> None:
    """As Python says it, at the rate that is chosen; the rates that the run cannot tell are not offered."""
    pictures = [photo(seed) for seed in range(4)]
    highest = torch.stack([expected(classifier, picture) for picture in pictures]).amax(dim=1) / 2
    low, high = ((a + b) / 2 for a, b in zip(highest.sort().values[:-1:2], highest.sort().values[1::2], strict=True))
    knows = Calibration(temperature=2.0, images=40, reject_below={"0.05": low.item(), "0.10": high.item()})
    one = Classifier(
        classifier.model, classifier.preprocess, NAMES, model_name=classifier.model_name, calibration=knows
    )
    tab = open_file(export_web(one, tmp_path / "page.html").path)
    tab.evaluate("window.convit.ready")
    hand(tab, {f"{number}.png": encoded(picture) for number, picture in enumerate(pictures)})
    assert tab.locator("#reject").input_value() == "0.05"
    assert tab.locator("#reject option").all_inner_texts() == ["never", "with 5% false alarms", "with 10% false alarms"]
    for rate in (0.05, 0.1):
        tab.locator("#reject").select_option(f"{rate:.2f}")
        wanted = [answer.none_of_these for answer in one.answer(pictures, reject=rate)]
        below = tab.locator("#pictures button span:last-child").all_inner_texts()
        assert [text == "none of these" for text in below] == wanted
        assert tab.locator("#status").inner_text().startswith("none of these; nearest: ") == wanted[0]
        table = tab.evaluate("window.convit.csv()").splitlines()
        assert table[0] == "image,rank,class,probability,none of these"
        assert [line.endswith(",yes") for line in table[1::5]] == wanted
    assert sum(wanted) == 3
    tab.locator("#reject").select_option("")
    assert "none of these" not in tab.locator("#pictures").inner_text() + tab.evaluate("window.convit.csv()")


def test_narrow_screens_and_keys(open_classifier: Open) -> None:
    for context in (PHONE, {"viewport": {"width": 320, "height": 600}, "color_scheme": "dark"}):
        tab = open_classifier(**context)
        hand(tab, {"one.png": encoded(photo()), "two.png": encoded(photo(1))})
        assert tab.evaluate("document.documentElement.scrollWidth") <= context["viewport"]["width"]  # type: ignore[index]
    tab = open_classifier()
    reached = []
    for _ in range(3):
        tab.keyboard.press("Tab")
        reached.append(tab.evaluate("document.activeElement.id"))
    assert "choose" in reached
    with tab.expect_file_chooser() as chooser:
        tab.locator("#choose").focus()
        tab.keyboard.press("Enter")
    chooser.value.set_files([{"name": "p.png", "mimeType": "image/png", "buffer": encoded(photo())}])
    tab.locator("#pictures button").wait_for()
    assert tab.locator("#status").get_attribute("role") == "status"


def test_photos_go_when_they_are_removed(open_classifier: Open, classifier: Classifier) -> None:
    tab = open_classifier()
    hand(tab, {"one.png": encoded(photo()), "two.png": encoded(photo(1))})
    tab.locator("#pictures button").nth(1).click()
    frame(tab)
    assert tab.locator("#name").inner_text() == "two.png"
    tab.get_by_role("button", name="Remove all photos").click()
    assert tab.locator("#main").is_hidden()
    assert tab.evaluate("window.convit.photos.length") == 0
    hand(tab, {"three.png": encoded(photo(2))})
    assert near(logits(tab), expected(classifier, photo(2)))


def test_maps_are_the_models(open_classifier: Open, classifier: Classifier) -> None:
    from convit.analysis import inspect

    tab = open_classifier()
    hand(tab, {"one.png": encoded(photo())})
    seen = inspect(classifier, photo())
    grid = seen.layers[0].grid
    tab.mouse.move(*patch_centre(tab, grid, 5))
    frame(tab)
    for layer in seen.layers:
        for head in (0, 8):
            row = tab.evaluate("([l, h]) => [...window.convit.row(l, h, 'mix', 5)]", [layer.index, head])
            wanted = layer.mixed[0, head, layer.num_prefix_tokens + 5].numpy()
            assert np.abs(np.array(row) - wanted).max() < 1e-3
    assert tab.evaluate("window.convit.state.query") == 5
    relevance = tab.evaluate("""async () => {
        const found = () => window.convit.photos[0].relevance;
        while (!found().length) await new Promise((go) => setTimeout(go, 20));
        return found();
    }""")
    assert seen.relevance is not None
    wanted = seen.relevance.flatten().numpy()
    assert np.abs(np.array(relevance) - wanted).max() <= 0.01 * wanted.max()
    tab.get_by_role("button", name="relevance").click()
    frame(tab)
    assert brightest(tab, -1) == [wanted.argmax()]


DAMAGE = {
    "a number of the preprocessing": (b'"crop_pct":0.9', b'"crop_pct":0.8'),
    "two classes": (b'"cat","dog"', b'"dog","cat"'),
    "the weights": (None, None),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_page_says_so_and_does_not_answer(what: str, page: Path, tmp_path: Path, chromium: Any) -> None:
    content, (old, new) = page.read_bytes(), DAMAGE[what]
    if old is None:
        at = content.index(b'id="weights">') + 900
        old, new = content[at : at + 8], b"abcdefgh"
    assert content.count(old) == 1
    (tmp_path / "damaged.html").write_bytes(content.replace(old, new))
    tab = chromium.new_page()
    tab.goto((tmp_path / "damaged.html").as_uri())
    tab.evaluate("window.convit.ready")
    assert "This file is damaged" in tab.locator("body").inner_text()
    assert tab.evaluate("window.convit.photos.length") == 0
    tab.close()


@pytest.mark.parametrize("rest", [100, 20_000])
def test_a_page_that_was_cut_off_says_so(rest: int, page: Path, tmp_path: Path, chromium: Any) -> None:
    (tmp_path / "cut.html").write_bytes(page.read_bytes()[:-rest])
    tab = chromium.new_page()
    tab.goto((tmp_path / "cut.html").as_uri())
    assert "damaged or was cut off" in tab.locator("body").inner_text()
    tab.goto(page.as_uri())
    tab.evaluate("window.convit.ready")
    assert "cut off" not in tab.locator("body").inner_text()
    tab.close()
