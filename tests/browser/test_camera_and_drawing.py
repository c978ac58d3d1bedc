"""Pictures that the classifier's page makes itself: by the camera, and by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from convit import Classifier
from convit.data import Preprocess
from tests.browser.conftest import Open
from tests.helpers import randomise, tiny_model

pytestmark = pytest.mark.browser
SEVEN = [(0.2, 0.2), (0.8, 0.2), (0.4, 0.9)]
FILMING = """async () => {
    const video = document.getElementById("video");
    while (!video.videoWidth) await new Promise((go) => setTimeout(go, 20));
    await new Promise((go) => setTimeout(go, 200));
    window.track = video.srcObject.getTracks()[0];
}"""
REFUSED = """navigator.mediaDevices.getUserMedia = async () => {
    throw new DOMException("no", "%s");
};"""


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    torch.manual_seed(0)
    model = randomise(tiny_model(num_classes=3), std=0.15).eval()
    return Classifier(model, Preprocess(image_size=(16, 16)), ["one", "seven", "eight"], model_name="tiny")


def draw(tab: Any, places: list[tuple[float, float]]) -> None:
    box = tab.locator("#pad").bounding_box()
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in places]
    tab.mouse.move(*points[0])
    tab.mouse.down()
    for point in points[1:]:
        tab.mouse.move(*point, steps=8)
    tab.mouse.up()


def test_a_picture_of_the_camera_is_answered_and_the_camera_let_go(open_classifier: Open) -> None:
    tab = open_classifier()
    tab.click("#camera")
    tab.evaluate(FILMING)
    tab.click("#snap")
    tab.wait_for_selector("#pictures button img")
    assert tab.evaluate("window.convit.photos[0].name").startswith("camera ")
    assert len(set(tab.evaluate("[...window.convit.photos[0].bytes]"))) > 3  # the pattern, and no black picture
    tab.click("#close")
    assert tab.evaluate("window.track.readyState") == "ended"
    assert not tab.is_visible("#video")
    assert tab.evaluate("document.activeElement.id") == "camera"


@pytest.mark.parametrize(("error", "said"), [("NotAllowedError", "may not"), ("NotFoundError", "none")])
def test_no_camera_is_told_in_one_line(open_classifier: Open, error: str, said: str) -> None:
    tab = open_classifier(script=REFUSED % error)
    tab.click("#camera")
    tab.wait_for_selector("#problems li")
    assert said in tab.inner_text("#problems")
    assert not tab.is_visible("#video")


@pytest.mark.parametrize("light", [True, False])
def test_a_drawing_is_answered_as_python_answers_it(open_classifier: Open, classifier: Classifier, light: bool) -> None:
    tab = open_classifier()
    tab.click("#draw")
    assert tab.is_disabled("#take")
    draw(tab, [(0.5, 0.5), (0.6, 0.6)])
    tab.click("#wipe")
    draw(tab, SEVEN)
    tab.set_checked("#light", light)
    tab.click("#take")
    tab.wait_for_selector("#pictures button img")
    paper, ink = ("black", "white") if light else ("white", "black")
    square = Image.new("RGB", (280, 280), paper)
    ImageDraw.Draw(square).line([(280 * x, 280 * y) for x, y in SEVEN], ink, width=31, joint="curve")
    seen = np.array(tab.evaluate("[...window.convit.photos[0].bytes]")).reshape(16, 16, 3)
    like = np.asarray(square.resize((16, 16), Image.Resampling.BICUBIC))
    assert np.corrcoef(seen.ravel(), like.ravel())[0, 1] > 0.9, "the same strokes; the page's have soft edges"
    logits = torch.tensor(list(tab.evaluate("[...window.convit.photos[0].logits]")))
    expected = classifier.probabilities(seen.astype(np.uint8))
    torch.testing.assert_close(logits.softmax(0)[None], expected, atol=2e-3, rtol=0)
    assert tab.is_disabled("#take"), "the next drawing begins on an empty square"


def test_a_finger_draws(open_classifier: Open) -> None:
    tab = open_classifier(has_touch=True, is_mobile=True, viewport={"width": 360, "height": 740})
    tab.evaluate("window.convit.ready")
    tab.tap("#draw")
    tab.tap("#pad")
    assert tab.is_enabled("#take"), "a dot"
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    tab.tap("#leave")
    assert not tab.is_visible("#pad")
