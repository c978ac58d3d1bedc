"""How the attention page opens: fast, in a notebook too, and with a word where it cannot."""

from pathlib import Path

import pytest

from convit.analysis.page import notebook_html, write_page
from tests.analysis.models import ours, seen_by
from tests.browser.conftest import Open
from tests.browser.looks import base_sized

pytestmark = pytest.mark.browser


def test_base_model_opens_and_follows_the_pointer(open_file: Open, tmp_path: Path) -> None:
    """How fast it does that is for ``benchmarks/page.py``."""
    path = tmp_path / "base.html"
    write_page(path, [base_sized()], title="Base")
    assert path.stat().st_size < 10e6
    tab = open_file(path)
    tab.evaluate("window.convit.ready")
    assert tab.locator(".tile").count() == 192
    drawn = tab.evaluate("""() => [17, 150].map(query => {
        window.convit.select(query);
        draw();
        return [...document.querySelectorAll(".tile canvas")].map(canvas => canvas.toDataURL());
    })""")
    assert len(drawn[0]) == 192
    assert all(before != after for before, after in zip(*drawn, strict=True))


def test_notebook_frame(open_file: Open, tmp_path: Path) -> None:
    seen = seen_by(ours())
    (tmp_path / "notebook.html").write_text(f"<!doctype html><meta charset=utf-8>{notebook_html(seen)}", "utf-8")
    tab = open_file(tmp_path / "notebook.html")
    inner = tab.frames[1]
    inner.evaluate("window.convit.ready")
    assert inner.locator(".tile").count() == 27
    assert inner.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert tab.locator("iframe").bounding_box()["height"] == 760


def test_old_browser_is_told(open_file: Open, tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", [seen_by(ours())], title="")
    tab = open_file(tmp_path / "page.html", script="delete window.DecompressionStream")
    tab.evaluate("window.convit.ready")
    assert tab.get_by_role("alert").inner_text().startswith("This browser cannot unpack this page.")
