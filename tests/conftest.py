"""What all tests share: one seed, one profile of the property tests, and runs that do not draw."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# Without a GPU Triton's kernels are interpreted. It has to know before it is imported, which timm and torch.compile do.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Commands that tests start hold back what they write until there is enough of it, as a user's do.
os.environ.pop("PYTHONUNBUFFERED", None)

# A loaded machine is slow, not wrong: no deadline. The same examples every run: a failure can be repeated.
settings.register_profile("convit", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("convit")


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Every test starts from the same random state, alone or in a suite."""
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small photos, of each class as many as the module's ``COUNTS`` says; read only."""
    from tests.training.small import photos

    return photos(tmp_path_factory.mktemp("data") / "photos", request.module.COUNTS)


@pytest.fixture(scope="module", autouse=True)
def _empty_pictures(request: pytest.FixtureRequest) -> Iterator[None]:
    """Drawing takes longer than a small run: within this process only the modules marked ``pictures`` draw.

    A run that a fixture of the session makes is drawn or not by the module that needs it first: to look at a run's
    pictures, make the run in the module.
    """
    if request.node.get_closest_marker("pictures") is not None:
        yield
        return
    from convit.training import plots, reliability_plot

    with pytest.MonkeyPatch.context() as patch:
        for name in ("curves", "gates", "confusion"):
            patch.setattr(plots, name, lambda _what, path, **_: path.touch())
        patch.setattr(plots, "mistakes", lambda wrong, path, **_: path.touch() if wrong else None)
        patch.setattr(reliability_plot, "draw_reliability", lambda _what, path, **_: path.touch())
        yield
