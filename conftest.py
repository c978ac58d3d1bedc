"""Tests and examples in docstrings write their files where nobody minds."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest


def _cache_apart() -> None:
    """Copies of images are kept in a folder that goes away: a user's own would make tests depend on each other. All
    else that is in the user's cache, such as matplotlib's list of fonts, is found as ever."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    apart = Path(tempfile.mkdtemp(prefix="convit-tests-"))
    for entry in usual.iterdir() if usual.is_dir() else ():
        if entry.name != "convit":
            (apart / entry.name).symlink_to(entry)
    os.environ["XDG_CACHE_HOME"] = str(apart)
    atexit.register(shutil.rmtree, apart, ignore_errors=True)


_cache_apart()


@pytest.fixture(autouse=True)
def _doctests_write_elsewhere(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    if isinstance(request.node, pytest.DoctestItem):
        monkeypatch.chdir(tmp_path_factory.mktemp(Path(request.node.name).name[-20:]))
