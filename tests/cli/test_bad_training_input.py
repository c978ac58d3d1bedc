"""What ``convit train`` refuses: one line, status 2, and the disk as it was."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from convit.training import run_folder
from tests.cli.command import SMALL, Shell, tree


@pytest.fixture
def place(tmp_path: Path, animals: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a copy of the pictures in ``data``."""
    shutil.copytree(animals, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def nothing_changes(place: Path, shell: Shell, *arguments: object, says: tuple[object, ...]) -> str:
    before = tree(place)
    line = shell.refuses("train", *arguments, says=says)
    assert tree(place) == before
    return line


def damage(place: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Puts a bad file among the pictures; returns its name."""
    path = place / "data/bee/bad.jpg"
    Image.effect_noise((90, 70), 50).convert("RGB").save(path)
    if kind == "text":
        path.write_text("not a picture")
    elif kind == "zero bytes":
        path.write_bytes(b"")
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:-200])
    elif kind == "bomb":
        Image.new("RGB", (90, 70)).save(path, "PNG")  # a JPEG would be decoded at half its size
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)  # 90 * 70 is more than twice as many
    return "bee/bad.jpg"


REASONS = {
    "text": "not an image",
    "zero bytes": "0 bytes",
    "truncated": "truncated JPEG",
    "bomb": "a decompression bomb",
}


@pytest.mark.parametrize("kind", REASONS)
def test_bad_files(kind: str, place: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    name = damage(place, kind, monkeypatch)
    says = ("data: 1 file does not decode", name, REASONS[kind], "--skip-bad")
    nothing_changes(place, shell, "data", "--out", "run", *SMALL, says=says)


def test_missing_file_of_a_list(place: Path, shell: Shell) -> None:
    rows = [f"{kind}/{file.name},{kind}" for kind in ("ape", "bee") for file in (place / "data" / kind).iterdir()]
    (place / "data/list.csv").write_text("\n".join(["path,label", *rows, "ape/gone.png,ape"]))
    given = ("data/list.csv", "--out", "run", *SMALL)
    nothing_changes(place, shell, *given, says=("no file 'ape/gone.png'", "leave them out with --skip-bad"))
    got = shell("train", *given, "--skip-bad")
    assert (got.status, got.err) == (0, "")
    assert "No such file" in json.loads((place / "run/skipped.json").read_text())[0]["reason"]
    assert shell("train", "--resume", "run").status == 0
    assert shell("evaluate", "run", "data/list.csv").status == 0  # it is none of the validation images
    got = shell("evaluate", "run", "data/list.csv", "--split", "all")
    assert got.status == 1
    assert "ape/gone.png" in got.err
    assert shell("inspect", "run").status == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--image-size 30 --patch-size 4", ("30 x 30", "expected multiples of the patch size 4", "28 x 28 or 32 x 32")),
        ("--resume runs/x", ("runs/x", "expected")),
    ],
)
def test_options(options: str, says: tuple[str, ...], place: Path, shell: Shell) -> None:
    nothing_changes(place, shell, "data", "--out", "runs/x", *options.split(), says=says)


def test_run_that_exists(place: Path, trained: Path, shell: Shell) -> None:
    shutil.copytree(trained, place / "run")
    (place / "other").mkdir()
    (place / "other/thesis.tex").write_text("precious")
    (place / "file").write_text("a file")
    run = nothing_changes(
        place, shell, "data", "--out", "run", *SMALL, says=("run: exists (a run", "--resume", "run-2")
    )
    assert "--overwrite" in run
    nothing_changes(place, shell, "data", "--out", "other", *SMALL, says=("other: exists (no run)", "other-2"))
    refusal = ("exists and is no run, so it is not overwritten", "expected another --out")
    nothing_changes(place, shell, "data", "--out", "other", "--overwrite", *SMALL, says=("other", *refusal))
    nothing_changes(place, shell, "data", "--out", "file", "--overwrite", *SMALL, says=("out: got file", "a folder"))
    nothing_changes(place, shell, "data", "--out", "data", "--overwrite", *SMALL, says=("data", *refusal))
    nothing_changes(place, shell, "data", "--out", "file/run", *SMALL, says=("file",))


def test_disk_is_read_only(place: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(self: object, **_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "runs")

    monkeypatch.setattr(run_folder.RunFolder, "locked", read_only)
    nothing_changes(place, shell, "data", *SMALL, says=("runs: Read-only file system; expected a place",))
