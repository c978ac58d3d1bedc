"""Copies of images under faults: runs end with the same bits whatever befalls the folder that they are kept in."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from convit.data.packs import cache_folder
from tests.faults.harness import COUNTS, ENVIRONMENT, FULL, Whole, command, ended, started


@pytest.fixture
def kept(short: Whole) -> Iterator[Path]:
    """The folder of copies, with none in it, which the run that was left alone filled."""
    shutil.rmtree(cache_folder(), ignore_errors=True)
    yield cache_folder()
    shutil.rmtree(cache_folder(), ignore_errors=True)


def test_killed_or_full_at_every_write(kept: Path, short: Whole, out: Path, place: Path) -> None:
    """A kill leaves no half of a pack; a full disk is told, and the run goes on without copies."""
    kept.mkdir(parents=True)
    points_file = place / "points of copies"
    got = short.forks(*short.arguments(out), folder=str(kept), points=str(points_file), pictures=False)
    assert got.status == 0, got.said
    short.same(out)
    shutil.rmtree(out)
    points = points_file.read_text().splitlines()
    assert any(point.startswith("rename") for point in points)
    for point in (
        range(len(points))
        if FULL
        else (0, next(i for i, line in enumerate(points) if line.startswith("rename")), len(points) - 1)
    ):
        shutil.rmtree(kept)
        kept.mkdir()
        got = short.forks(*short.arguments(out), folder=str(kept), fault="kill", first=point, pictures=False)
        assert got.status == 137, (points[point], got.said)
        short.goes_on(out)
        COUNTS["kills while copies are written"] += 1
        shutil.rmtree(kept)
        kept.mkdir()
        got = short.forks(*short.arguments(out), folder=str(kept), fault="full", first=point, pictures=False)
        assert got.status == 0, (points[point], got.said)
        assert "Traceback" not in got.said
        short.same(out)
        shutil.rmtree(out)
        COUNTS["disks that had no room for copies"] += 1


@pytest.mark.parametrize("half", ["pixels", "index", "cut"])
def test_damaged_copies(half: str, kept: Path, short: Whole, out: Path) -> None:
    assert short.forks(*short.arguments(out), pictures=False).status == 0
    shutil.rmtree(out)
    for pack in kept.glob("*/*.pack"):
        content = bytearray(pack.read_bytes())
        if half == "cut":
            del content[len(content) // 2 :]
        else:
            content[20 if half == "pixels" else -60] ^= 1
        pack.write_bytes(content)
    got = short.forks(*short.arguments(out), pictures=False)
    assert got.status == 0, got.said
    assert "decoded again" in got.said
    short.same(out)
    COUNTS["damaged copies"] += 1


def test_two_runs_at_once(kept: Path, short: Whole, out: Path) -> None:
    """Both find no copies, and make them."""
    other = out.with_name("other")
    began = time.monotonic()
    with started(*short.arguments(out)) as one, started(*short.arguments(other)) as two:
        assert [ended(process, began, 600).status for process in (one, two)] == [0, 0]
    short.same(out)
    short.same(other)
    shutil.rmtree(other)
    COUNTS["runs at once on one folder"] += 1


@pytest.mark.skipif(not FULL, reason="in the full form: make fault-tests")
def test_a_disk_that_is_really_full(disk: Callable[[int], Path], short: Whole, out: Path) -> None:
    got = command(*short.arguments(out), env=ENVIRONMENT | {"XDG_CACHE_HOME": str(disk(8 << 10))})
    assert got.status == 0, got.said
    short.same(out)
    COUNTS["disks that had no room for copies"] += 1
