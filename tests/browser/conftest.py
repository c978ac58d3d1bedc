"""Opens pages in Chromium, and holds every one to making no noise and no requests."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from convit import Classifier
from convit.analysis import Inspection
from convit.analysis.page import write_page
from convit.export_web import export_web
from tests.analysis.models import ours, seen_by

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
Open = Callable[..., Any]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser; what needs it is skipped where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install convit[browser]")
    with api.sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        program = next(filter(None, map(shutil.which, CHROMIUM)), own)
        if not Path(program).exists():
            pytest.skip("there is no Chromium: apt-get install chromium, or playwright install chromium")
        # A container's root has no sandbox to be in; a camera of the browser's own films a test pattern.
        camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", *camera])
        yield browser
        browser.close()


@pytest.fixture
def open_file(chromium: Any) -> Iterator[Open]:
    """Opens a file and returns the browser's page; at the end it must have said nothing and asked for nothing else."""
    contexts, noise = [], []

    def opened(path: Path, script: str = "", **context: Any) -> Any:
        contexts.append(chromium.new_context(**({"viewport": {"width": 1280, "height": 900}} | context)))
        tab = contexts[-1].new_page()
        tab.on("console", lambda message: noise.append(f"console: {message.text}"))
        tab.on("pageerror", lambda error: noise.append(f"error: {error}"))
        tab.on("dialog", lambda dialog: (noise.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        tab.on("request", lambda request: request.url == path.as_uri() or noise.append(f"request: {request.url[:99]}"))
        if script:
            tab.add_init_script(script)
        tab.goto(path.as_uri())
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert not noise


@pytest.fixture
def open_page(open_file: Open, tmp_path: Path) -> Open:
    """Writes the attention page of some inspections, opens it and waits until it is drawn."""

    def opened(inspections: Sequence[Inspection], title: str = "Heads", **context: Any) -> Any:
        write_page(tmp_path / "attention.html", inspections, title=title)
        tab = open_file(tmp_path / "attention.html", **context)
        tab.evaluate("window.convit.ready")
        return tab

    return opened


@pytest.fixture(scope="module")
def seen() -> Inspection:
    """A picture as a small ConViT sees it."""
    torch.manual_seed(0)
    return seen_by(ours())


@pytest.fixture(scope="module")
def page(classifier: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the module's ``classifier``."""
    return export_web(classifier, tmp_path_factory.mktemp("page") / "page.html").path


@pytest.fixture
def open_classifier(open_file: Open, page: Path) -> Open:
    """Opens it and waits until it answers."""

    def opened(**context: Any) -> Any:
        tab = open_file(page, **context)
        tab.evaluate("window.convit.ready")
        return tab

    return opened
