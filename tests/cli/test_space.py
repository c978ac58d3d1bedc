"""``convit export --format space``: a folder for a static host, and its upload."""

from pathlib import Path

import pytest
import yaml

from tests.cli.command import Shell
from tests.hub import FakeHub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    return FakeHub.instead_of_the_client(monkeypatch)


def test_a_page_and_a_card(trained: Path, tmp_path: Path, shell: Shell) -> None:
    out, page = tmp_path / "deep" / "space", tmp_path / "page.html"
    assert shell("export", trained, "--format", "space", "--out", out, "--license", "mit").status == 0
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "index.html"]
    assert shell("export", trained, "--format", "web", "--out", page).status == 0
    assert (out / "index.html").read_bytes() == page.read_bytes()
    card = (out / "README.md").read_text()
    _, front, body = card.split("---\n", 2)
    found = yaml.safe_load(front)
    assert (found["sdk"], found["app_file"], found["license"]) == ("static", "index.html", "mit")
    assert "animals" in found["title"]
    assert "Its 3 classes, in the order of the outputs: ape, bee, cow." in body
    assert str(trained) not in card


def test_an_older_one_is_replaced_if_asked_for(run: Path, shell: Shell) -> None:
    words = ("export", run, "--format", "space")
    assert shell(*words).status == 0
    shell.refuses(*words, says=(f"{run / 'space' / 'index.html'}: exists", "--overwrite"))
    assert shell(*words, "--overwrite").status == 0
    (run / "space" / "README.md").write_text("mine")
    shell.refuses(*words, "--overwrite", says=("README.md: exists and was not written by convit",))
    assert (run / "space" / "README.md").read_text() == "mine"


def test_push(hub: FakeHub, trained: Path, tmp_path: Path, shell: Shell) -> None:
    (tmp_path / "private.txt").write_text("not for others")
    got = shell("export", trained, "--format", "space", "--out", tmp_path, "--push", "ann/cats")
    assert got.status == 0
    assert (hub.created["repo_id"], hub.created["repo_type"], hub.created["space_sdk"]) == (
        "ann/cats",
        "space",
        "static",
    )
    assert hub.uploaded == {name: (tmp_path / name).read_bytes() for name in ("README.md", "index.html")}
    assert "uploaded to https://huggingface.co/ann/cats" in got.out


def test_refused(trained: Path, tmp_path: Path, shell: Shell) -> None:
    space = ("export", trained, "--format", "space", "--out", tmp_path / "space")
    shell.refuses(*space, "--push", "cats", says=("repo_id: got 'cats'", "owner/name"))
    shell.refuses("export", trained, "--push", "a/b", says=("format: got onnx with --push", "--format space"))
    shell.refuses(*space, "--int8", says=("format: got space with --int8",))
    (tmp_path / "file").write_text("")
    shell.refuses(*space[:-1], tmp_path / "file", says=("out: got", "expected a folder"))
    assert not (tmp_path / "space").exists()
