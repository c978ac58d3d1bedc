"""Every page by axe-core, the rules that audits of accessibility use: no serious and no critical violation."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from convit import Classifier
from convit.analysis.page import write_page
from convit.calibration import Calibration
from convit.checks import check, files
from convit.data import Preprocess
from convit.export_web import export_web
from convit.training.page import REPORT, page
from tests.analysis.models import ours, seen_by
from tests.browser.conftest import Open
from tests.browser.test_classifier_page import hand, photo
from tests.checks.made import photos
from tests.helpers import encoded, randomise, tiny_model
from tests.training.made_report import class_folders, made_plan, made_report

pytestmark = [pytest.mark.browser, pytest.mark.pictures]
RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}}


def attention(folder: Path) -> Path:
    torch.manual_seed(0)
    write_page(folder / "attention.html", [seen_by(ours())], title="Heads")
    return folder / "attention.html"


def classifier(folder: Path) -> Path:
    torch.manual_seed(0)
    knows = Calibration(temperature=1.5, images=40, reject_below={"0.05": 0.2})
    model = randomise(tiny_model(img_size=(16, 16)), std=0.15).eval()
    preprocess = Preprocess(image_size=(16, 16), crop_pct=0.9)
    names = ["ape", "bee", "cow", "dog", "eel"]
    one = Classifier(model, preprocess, names, model_name="convit_tiny", calibration=knows)
    return export_web(one, folder / "model.html").path


def report(folder: Path) -> Path:
    plan = made_plan(class_folders(folder / "data", ("ape", "bee", "cow", "dog")))
    confusion = [[4 if i == j else 1 for j in range(4)] for i in range(4)]
    (folder / REPORT).write_text(page(made_report(plan, confusion, losses=(1.2, 0.8, 0.9))), "utf-8")
    return folder / REPORT


def checked(folder: Path) -> Path:
    data = photos(folder / "data", per_class=3)
    shutil.copy(data / "train/ape/0.jpg", data / "test/bee/copy.jpg")
    (data / "train/bee/broken.jpg").write_bytes(b"no picture")
    files.write_report(check.check(check.chosen(str(data))), folder)
    return folder / files.PAGE


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("make", [attention, classifier, report, checked])
def test_no_serious_violation(make: Callable[[Path], Path], scheme: str, open_file: Open, tmp_path: Path) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install convit[browser]").Axe()
    tab = open_file(make(tmp_path), color_scheme=scheme)
    tab.evaluate("window.convit?.ready")
    if make is classifier:
        tab.click("#draw")
        assert serious(axe, tab) == []
        hand(tab, {"one.png": encoded(photo()), "two.png": encoded(photo(1)), "broken.png": b"no picture"})
    assert serious(axe, tab) == []


def serious(axe: Any, tab: Any) -> list[str]:
    """What axe-core finds: the rule, and the first elements that break it."""
    found = axe.run(tab, options=RULES).response
    assert len(found["passes"]) > 10, "axe-core did not look at the page"
    return [
        f"{violation['id']}: {violation['help']}: " + "; ".join(node["html"][:160] for node in violation["nodes"][:3])
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
    ]
