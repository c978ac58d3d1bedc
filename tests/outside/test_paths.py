"""Paths of strangers: what is no regular file is refused and never waited for; where results go is looked at before
the work; results of one image set do not replace those of another."""

import errno
import json
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

from convit.cli import evaluate, export, inspect, runs
from convit.data import UnreadableImageError, open_source, read_image
from convit.errors import InputError
from convit.training.run_folder import RunFolder
from tests.cli.command import SMALL, Shell, photos, tree

pytestmark = pytest.mark.pictures

posix = pytest.mark.skipif(os.name != "posix", reason="needs named pipes")


@pytest.fixture(autouse=True)
def _never_waits() -> Iterator[None]:
    """What waits for somebody to write into a pipe fails."""

    def late(signum: int, frame: FrameType | None) -> None:
        pytest.exit("waited for a pipe", returncode=9)

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


# -- what is read ----------------------------------------------------------------------------------


def pipe(path: Path) -> Path:
    """A named pipe that nobody writes into."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


@posix
@pytest.mark.parametrize("target", ["/dev/zero", "/dev/null", "pipe"])
def test_a_link_to_what_is_no_file_is_an_image_that_cannot_be_read(tmp_path: Path, target: str) -> None:
    link = tmp_path / "a.png"
    link.symlink_to(pipe(tmp_path / "pipe") if target == "pipe" else target)
    with pytest.raises(UnreadableImageError, match=r"a\.png.*regular file"):
        read_image(link)


@posix
def test_a_pipe_among_photos_is_found_by_the_check(tmp_path: Path, shell: Shell) -> None:
    data = photos(tmp_path / "animals", {"ape": 6, "bee": 6})
    (data / "ape/pipe.png").symlink_to(pipe(tmp_path / "pipe"))
    shell.refuses("train", data, "--out", tmp_path / "run", *SMALL, says=("pipe.png", "--skip-bad"))
    got = shell("train", data, "--out", tmp_path / "run", "--skip-bad", *SMALL)
    assert got.status == 0, got.err
    assert "left out 1 files" in got.out


PIPES: dict[str, Callable[[Path, Path], tuple[object, ...]]] = {
    # from a folder of one's own and a run: the command, of a pipe; last what is a file of the run, and no argument
    "list": lambda folder, run: ("evaluate", run, pipe(folder / "list.csv")),
    "columns": lambda folder, run: ("evaluate", run, pipe(folder / "list.parquet")),
    "shard": lambda folder, run: ("evaluate", run, pipe(folder / "list.tar")),
    "data": lambda folder, run: ("evaluate", run, pipe(folder / "photos")),
    "config": lambda folder, run: ("train", "--config", pipe(folder / "config.yaml")),
    "weights": lambda folder, run: ("train", "digits", "--weights", pipe(folder / "w.pth"), "--out", folder / "out"),
    "onnx": lambda folder, run: ("predict", pipe(folder / "model.onnx"), folder),
    "picture": lambda folder, run: ("predict", run, pipe(folder / "a.png")),
    "split": lambda folder, run: ("evaluate", run, "digits", pipe(run / "split.json")),
    "model": lambda folder, run: ("predict", run, folder, pipe(run / "model.safetensors")),
    "model config": lambda folder, run: ("predict", run, folder, pipe(run / "config.json")),
}


@posix
@pytest.mark.parametrize("kind", PIPES)
def test_a_pipe_in_place_of_a_file_is_refused_by_name(kind: str, tmp_path: Path, run: Path, shell: Shell) -> None:
    command = PIPES[kind](tmp_path, run)
    culprit = next(path for path in (*command, *tmp_path.iterdir(), *run.iterdir()) if Path(str(path)).is_fifo())
    own = command[:-1] if Path(str(command[-1])).parent == run else command  # a file of the run is no argument
    shell.refuses(*own, says=(Path(str(culprit)).name, "pipe"))


@posix
def test_a_pipe_in_a_run_folder_is_no_state_to_resume(tmp_path: Path, animals: Path, shell: Shell) -> None:
    out = tmp_path / "run"
    assert shell("train", animals, "--out", out, *SMALL).status == 0
    for path in (out / "checkpoints").iterdir():
        pipe(path / "state.json")
    shell.refuses("train", "--resume", out, says=("checkpoints", "none of them"))
    pipe(out / "plan.json")
    shell.refuses("train", "--resume", out, says=("plan.json", "pipe"))


@posix
def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path has at most 108 letters
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("list.csv")
        with pytest.raises(InputError, match="socket"):
            open_source("list.csv")


# -- what is written -------------------------------------------------------------------------------


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model is loaded: a command that is refused has not begun its work."""

    def begun(*_: object) -> None:
        pytest.fail("the work has begun")

    for module in (evaluate, export, inspect, runs):
        monkeypatch.setattr(module, "load_run", begun)


def _commands(target: Path, run: Path, animals: Path) -> dict[str, tuple[object, ...]]:
    return {
        "csv": ("predict", run, animals, "--csv", target),
        "predict-json": ("predict", run, animals, f"--json={target}"),
        "evaluate-json": ("evaluate", run, animals, f"--json={target}"),
        "inspect-json": ("inspect", run, f"--json={target}"),
        "export": ("export", run, "--out", target),
        "models": ("models", f"--json={target}"),
        "bench-json": ("bench", f"--json={target}", "--image-size", "32", "64"),
    }


SUFFIX = {"csv": ".csv", "export": ".onnx"}
FILES = [*_commands(Path(), Path(), Path())]


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("command", FILES)
def test_a_place_for_a_file_is_looked_at_before_the_work(
    command: str, tmp_path: Path, run: Path, animals: Path, shell: Shell
) -> None:
    name = "out" + SUFFIX.get(command, ".json")
    (tmp_path / "there" / name).mkdir(parents=True)
    (tmp_path / "file").write_text("")
    before = tree(tmp_path)
    for place, says in {
        tmp_path / "there" / name: "a folder",
        tmp_path / "missing" / name: str(tmp_path / "missing"),
        tmp_path / "file" / name: str(tmp_path / "file"),
        tmp_path / ("x" * 252 + name): "name",
    }.items():
        line = shell.refuses(*_commands(place, run, animals)[command], says=(says,))
        assert line.startswith(f"convit {_commands(place, run, animals)[command][0]}: "), line
    assert tree(tmp_path) == before


@posix
@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("words", [("evaluate", "RUN", "DATA"), ("inspect", "RUN"), ("train", "DATA")])
def test_a_place_for_a_folder_is_looked_at_before_the_work(
    words: tuple[str, ...], tmp_path: Path, run: Path, animals: Path, shell: Shell
) -> None:
    (tmp_path / "file").write_text("")
    named = [{"RUN": run, "DATA": animals}.get(word, word) for word in words]
    for place in (tmp_path / "file", tmp_path / "file" / "in", Path("/proc/out"), tmp_path / "a" / ("x" * 256)):
        shell.refuses(*named, "--out", place, says=("out",))
    assert not (tmp_path / "a").exists()


def test_a_folder_for_an_experiment_is_looked_at_before_the_work(tmp_path: Path, shell: Shell) -> None:
    (tmp_path / "file").write_text("")
    shell.refuses("experiment", "ablation", "digits", "--out", tmp_path / "file" / "in", says=("out", "file"))


@posix
def test_a_link_to_what_is_not_there_is_said_to_be_one(tmp_path: Path, shell: Shell) -> None:
    (tmp_path / "photos.csv").symlink_to("moved.csv")
    assert "did you mean" not in shell.refuses("train", tmp_path / "photos.csv", says=("photos.csv: a link",))


@posix
def test_what_may_not_be_read_is_not_said_to_be_missing(
    run: Path, tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """States that may not be listed are no reason to start again, images in a locked folder are not gone."""
    data = photos(tmp_path / "data", {"ape": 4, "bee": 4})
    (tmp_path / "list.csv").write_text("image_path,category\ndata/ape/0.png,ape\ndata/bee/0.png,bee\n")
    stat, iterdir = Path.stat, Path.iterdir

    def refused(call: Callable[..., object]) -> Callable[..., object]:
        def called(path: Path, **options: object) -> object:
            if path.name == "checkpoints" or data in path.parents:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return call(path, **options)

        return called

    monkeypatch.setattr(Path, "iterdir", refused(iterdir))
    got = shell.refuses("train", "--resume", run, says=("checkpoints", "Permission denied"))
    assert "overwrite" not in got
    monkeypatch.setattr(Path, "stat", refused(stat))
    monkeypatch.setattr(os.path, "isfile", lambda path: False)
    shell.refuses("train", tmp_path / "list.csv", *SMALL, says=("line 2", "Permission denied"))


@posix
@pytest.mark.usefixtures("no_work")
def test_the_usual_place_of_results_is_looked_at_too(run: Path, animals: Path, shell: Shell) -> None:
    (run / "inspect").write_text("")
    shell.refuses("inspect", run, says=("out", "inspect"))
    (run / "model.onnx").mkdir()
    shell.refuses("export", run, says=("out", "model.onnx"))


def test_find_lr_looks_at_its_picture_before_the_work(
    tmp_path: Path, animals: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr-finder.png").mkdir()
    got = shell.refuses("train", animals, "--find-lr", *SMALL, says=("lr-finder.png",))
    assert "range test" not in got


def test_results_do_not_replace_a_photo_or_files_of_the_run(
    run: Path, animals: Path, shell: Shell, tmp_path: Path
) -> None:
    photo = Path(shutil.copy(animals / "ape/0.png", tmp_path / "a.png"))
    for option, target in (("csv", photo), ("csv", run / "model.safetensors"), ("json", run / "config.json")):
        before = target.read_bytes()
        shell.refuses("predict", run, f"--{option}", target, animals / "bee", says=(option, target.name))
        assert target.read_bytes() == before


@posix
def test_a_table_does_not_replace_what_a_link_names(run: Path, animals: Path, shell: Shell, tmp_path: Path) -> None:
    photo = Path(shutil.copy(animals / "ape/0.png", tmp_path / "a.png"))
    for target in (photo, run / "config.json"):
        before = target.read_bytes()
        (tmp_path / "table.csv").unlink(missing_ok=True)
        (tmp_path / "table.csv").symlink_to(target)
        shell.refuses("predict", run, "--csv", tmp_path / "table.csv", photo, says=("csv", "table.csv"))
        assert target.read_bytes() == before


@pytest.mark.parametrize("place", ["", "new", "ape", "ape/new"])
def test_results_do_not_go_among_images(place: str, run: Path, animals: Path, shell: Shell, tmp_path: Path) -> None:
    """A plot among them would be an image of a class for the next command."""
    learned, before = str(RunFolder(run).read_options().data), tree(animals)
    data = Path(shutil.copytree(animals, tmp_path / "data"))
    for words in (
        ("evaluate", run, data, "--out", data / place),
        ("evaluate", run, data, "--out", Path(learned, place)),
        ("inspect", run, data, "--out", data / place),
        ("inspect", run, data / "bee/0.png", "--data", data, "--out", data / place),
        ("inspect", run, data / "bee/0.png", "--out", Path(learned, place)),
    ):
        shell.refuses(*words, says=("out", "images"))
    assert tree(data) == before


def test_two_results_do_not_go_to_one_file(run: Path, animals: Path, shell: Shell, tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    shell.refuses("predict", run, animals, "--csv", target, "--json", target, says=("csv", "json", "out.json"))


@posix
def test_a_device_and_a_pipe_that_is_read_take_results(run: Path, animals: Path, shell: Shell) -> None:
    assert shell("predict", run, animals, "--csv", "/dev/null").status == 0


# -- evaluations -----------------------------------------------------------------------------------


def test_evaluations_of_two_folders_of_one_name_stand_side_by_side(run: Path, tmp_path: Path, shell: Shell) -> None:
    first, second = (photos(tmp_path / at / "new", {"ape": count, "cow": count}) for at, count in (("a", 2), ("b", 3)))
    assert shell("evaluate", run, first).status == 0
    kept = tree(run / "evaluation-new-all")
    got = shell("evaluate", run, second)
    assert got.status == 0, got.err
    assert tree(run / "evaluation-new-all") == kept
    assert "evaluation-new-all-2" in got.out
    assert str(first) in got.err
    for folder, data, images in (("evaluation-new-all", first, 4), ("evaluation-new-all-2", second, 6)):
        document = json.loads((run / folder / "evaluation.json").read_bytes())
        assert (document["data"], document["root"], document["images"]) == ("new", str(data), images)
    again = shell("evaluate", run, second)
    assert again.status == 0
    assert sorted(path.name for path in run.glob("evaluation-*")) == ["evaluation-new-all", "evaluation-new-all-2"]


def test_a_folder_with_the_results_of_other_images_is_kept(run: Path, tmp_path: Path, shell: Shell) -> None:
    first, second = (photos(tmp_path / at / "new", {"ape": 2, "cow": 2}) for at in ("a", "b"))
    assert shell("evaluate", run, first, "--out", tmp_path / "out").status == 0
    kept = tree(tmp_path / "out")
    shell.refuses("evaluate", run, second, "--out", tmp_path / "out", says=(first, "out"))
    assert tree(tmp_path / "out") == kept
    assert shell("evaluate", run, first, "--out", tmp_path / "out").status == 0


def test_a_run_and_an_evaluation_write_the_same_files(
    trained: Path, run: Path, animals: Path, shell: Shell, tmp_path: Path
) -> None:
    got = shell("evaluate", run, animals, "--out", tmp_path / "out")
    assert got.status == 0, got.err
    for name in ("evaluation.json", "confusion.csv", "mistakes.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (trained / name).read_bytes(), name
    for path in (tmp_path / "out").iterdir():
        assert (trained / path.name).is_file()
