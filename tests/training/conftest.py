"""What the tests of runs share."""

from collections.abc import Iterator

import pytest

from convit.training import plots, reliability_plot


@pytest.fixture(scope="module")
def empty_pictures() -> Iterator[None]:
    """Drawing takes longer than a small run: test_plots.py and test_run.py look at the pictures."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("curves", "gates", "confusion", "mistakes"):
            patch.setattr(plots, name, lambda _what, path, **_: path.touch())
        patch.setattr(reliability_plot, "draw_reliability", lambda _what, path, **_: path.touch())
        yield
