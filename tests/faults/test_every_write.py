"""Killed, or out of room, at every single operation on a run's folder: from there it goes on to the same bits."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.faults.harness import COUNTS, FULL, OPTIONS, Forks, Whole

STRIDE = {"kill": 1, "moment": 2, "on": 3} if FULL else dict.fromkeys(["kill", "moment", "on"], 29)
"""Every so manieth point."""


@pytest.fixture(scope="module")
def points(short: Whole, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """All operations of the run, such as ``write checkpoints/.epoch-0001-step-000000.tmp/state.json``."""
    folder = tmp_path_factory.mktemp("points")
    run, file = folder / "run", folder / "points"
    got = short.forks(*short.arguments(run), folder=str(run), points=str(file), pictures=False)
    assert got.status == 0, got.said
    short.same(run)
    return file.read_text().splitlines()


def chosen(points: list[str], fault: str) -> range:
    """Their numbers; the short form has one before the run's options are written."""
    return range(3 % STRIDE[fault], len(points), STRIDE[fault])


def test_points_are_of_all_kinds(points: list[str]) -> None:
    """So that what is swept over below is all that there is."""
    kinds = {line.split()[0] for line in points}
    assert kinds == {"open", "write", "sync", "rename", "mkdir", "remove", "rmdir"}
    written = {line.split("/")[-1].split()[-1] for line in points if line.startswith("write ")}
    expected = {"config.yaml", "split.json", "model.safetensors", "config.json", "metrics.jsonl", "evaluation.json"}
    assert written >= {f".{name}.tmp" for name in expected} | {"tensors.safetensors", "state.json", "log.txt"}


def test_what_a_state_needs_is_on_the_disk_before_it(points: list[str]) -> None:
    """A power cut keeps what was synced: first the model, then the state's files, then the name that makes it count."""
    state = "checkpoints/.epoch-0001-step-000000.tmp"
    order = [
        *(
            "sync .model.safetensors.tmp",
            "rename model.safetensors",
            "sync .config.json.tmp",
            "rename config.json",
            "sync .",
        ),
        *(f"sync {state}/tensors.safetensors", f"sync {state}/state.json"),
        *("rename checkpoints/epoch-0001-step-000000", "sync checkpoints"),
    ]
    begin = points.index(order[0])
    end = points.index(order[-2]) + 2
    assert [line for line in points[begin:end] if line in order] == order


def test_killed_at_every_point(points: list[str], short: Whole, out: Path) -> None:
    for point in chosen(points, "kill"):
        got = short.forks(*short.arguments(out), folder=str(out), fault="kill", first=point, pictures=False)
        assert got.status == 137, (points[point], got.said)
        short.goes_on(out)
        COUNTS["kills at points of writing"] += 1


@pytest.mark.skipif(not FULL, reason="in the full form: make fault-tests")
def test_killed_while_it_replaces_a_run(short: Whole, out: Path, place: Path) -> None:
    """The same command does it, whatever is left of the run that is replaced."""

    def overwrite(**fault: Any) -> int:
        arguments = ["train", short.data, "--out", out, *OPTIONS, *short.length, "--overwrite"]
        return short.forks(*arguments, folder=str(out), pictures=False, **fault).status

    shutil.copytree(short.run, out)
    assert overwrite(points=str(place / "points")) == 0
    points = (place / "points").read_text().splitlines()
    for point in range(points.index("rename config.yaml") + 2):
        assert overwrite(fault="kill", first=point) == 137
        assert overwrite() == 0, points[point]
        short.same(out)
        COUNTS["kills while a run is replaced"] += 1


def full(forks: Forks, whole: Whole, out: Path, first: int, last: int) -> tuple[int, str]:
    got = forks(*whole.arguments(out), folder=str(out), fault="full", first=first, last=last, pictures=False)
    assert "Traceback" not in got.said, got.said
    return got.status, got.said


def needs_room(point: str) -> bool:
    """Removing needs none, nor making the folder once it is there; and a run goes on without its log."""
    return not (point.startswith(("remove", "rmdir")) or "log.txt" in point or point == "mkdir .")


def test_no_room_for_a_moment(points: list[str], short: Whole, out: Path) -> None:
    """At a save: says so, goes on, saves again. Before or after the training: one line, and --resume ends it."""
    first = next(i for i, line in enumerate(points) if line.startswith("mkdir checkpoints"))
    last = max(i for i, line in enumerate(points) if line == "open .metrics.jsonl.tmp")  # written once more at the end
    training = range(first, last)
    for point in chosen(points, "moment"):
        status, said = full(short.forks, short, out, point, point)
        free = not needs_room(points[point])
        assert status == (0 if point in training or free else 2) or (status == 2 and point == 0), (points[point], said)
        if status == 2:
            assert "No space left on device" in said.splitlines()[-1]
        elif not free:
            assert "could not save (No space left on device): training goes on, and this is tried again" in said
            assert "saved again: there is room" in said
        short.goes_on(out)
        COUNTS["moments without room"] += 1


def test_no_room_from_some_point_on(points: list[str], short: Whole, out: Path) -> None:
    """Ends with one line and the last good state; with room again it goes on from there."""
    for point in chosen(points, "on"):
        status, said = full(short.forks, short, out, point, 10**9)
        needed = any(map(needs_room, points[point:]))
        assert status == (2 if needed else 0), (points[point], said)
        if needed:
            assert "No space left on device" in said.splitlines()[-1], (points[point], said)
        short.goes_on(out)
        COUNTS["disks full from some point on"] += 1
