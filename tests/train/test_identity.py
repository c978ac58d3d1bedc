"""A run only goes on from its own states and on what it learned from, and nobody else trains in its folder."""

import csv
import shutil
from pathlib import Path

import pytest
import timm
import torch

from convit import create_model
from convit.errors import InputError
from convit.train import train
from convit.train.run_folder import RunFolder
from tests.train.small import exact, newest_state, options, photos

pytestmark = pytest.mark.usefixtures("empty_pictures")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A list of images, whose labels can be changed."""
    root = photos(tmp_path / "animals", {"ape": 6, "bee": 5, "cow": 7})
    return written(root / "list.csv", {str(file.relative_to(root)): file.parent.name for file in root.glob("*/*.png")})


def written(path: Path, labels: dict[str, str]) -> Path:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "label"), *sorted(labels.items())])
    return path


def relabelled(path: Path, name: str, label: str) -> None:
    with path.open(newline="") as stream:
        labels = {row["path"]: row["label"] for row in csv.DictReader(stream)}
    written(path, labels | {name: label})


def run(data: Path, out: Path, **more: object) -> Path:
    train(options(data, out, epochs=1, **more))
    return out


def refuses(data: Path, out: Path, match: str, **more: object) -> None:
    before = exact(out)
    with pytest.raises(InputError, match=match) as caught:
        run(data, out, resume=True, **more)
    assert "\n" not in str(caught.value)
    assert exact(out) == before


def learned(out: Path) -> str:
    """The first of the images that it learned from."""
    return RunFolder(out).read_split()["train"][0]


def test_another_label(data: Path, tmp_path: Path) -> None:
    """The names and numbers of both parts are the same: it was the file of another class that took its place."""
    out = run(data, tmp_path / "run")
    split = RunFolder(out).read_split()
    bee, cow = (next(name for name in split["train"] if name.startswith(kind)) for kind in ("bee", "cow"))
    relabelled(data, bee, "cow")
    relabelled(data, cow, "bee")
    refuses(data, out, f"other images than when the run in {out} started: ")


def test_another_label_of_official_parts(data: Path, tmp_path: Path) -> None:
    """Where no split hides it, the image is named with both labels."""
    root = data.parent
    rows = [("path", "label", "split"), *((f"ape/{i}.png", "ape", "train") for i in range(4))]
    rows += [*((f"bee/{i}.png", "bee", "train") for i in range(4)), ("ape/5.png", "ape", "val")]

    def write() -> None:
        with (root / "list.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows(rows)

    write()
    out = run(data, tmp_path / "run")
    rows[2] = ("ape/1.png", "bee", "train")
    write()
    refuses(data, out, "started: the label of 'ape/1.png' was 'ape', now 'bee'; expected the same")


def test_another_file_of_the_same_name(data: Path, tmp_path: Path) -> None:
    out = run(data, tmp_path / "run")
    file = data.parent / learned(out)
    file.write_bytes(file.read_bytes() + b"\0")
    refuses(data, out, f"started: '{learned(out)}' is another image; expected the same")


def test_other_weights_of_the_teacher(data: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        torch.manual_seed(seed)
        torch.save(timm.create_model("resnet10t", num_classes=3).state_dict(), tmp_path / f"{seed}.pth")
    weights = tmp_path / "0.pth"
    teacher = {"teacher": "resnet10t", "teacher_weights": weights}
    out = run(data, tmp_path / "run", **teacher)
    run(data, out, resume=True, **teacher)
    shutil.copy(tmp_path / "1.pth", weights)
    refuses(data, out, f"teacher-weights: {weights} is not what it was when the run in {out} started", **teacher)


def test_teacher_that_is_gone(data: Path, tmp_path: Path) -> None:
    weights = tmp_path / "teacher.pth"
    torch.save(timm.create_model("resnet10t", num_classes=3).state_dict(), weights)
    teacher = {"teacher": "resnet10t", "teacher_weights": weights}
    out = run(data, tmp_path / "run", **teacher)
    weights.unlink()
    refuses(data, out, f"teacher-weights: no such file or folder {weights}; expected what the run in {out}", **teacher)


def test_other_weights_to_start_from(data: Path, tmp_path: Path) -> None:
    """They count until there is a state, in which all that came of them is."""
    start, out = tmp_path / "start.pth", tmp_path / "run"

    def write(seed: int) -> None:
        torch.manual_seed(seed)
        torch.save(create_model("convit_micro_patch4_32", img_size=8, num_classes=3).state_dict(), start)

    write(0)
    run(data, out, weights=start)
    write(1)
    run(data, out, weights=start, resume=True)
    shutil.rmtree(out / "checkpoints")
    (out / "metrics.jsonl").unlink()
    with pytest.raises(InputError, match=f"weights: {start} is not what it was when the run in {out} started"):
        run(data, out, weights=start, resume=True)
    write(0)
    run(data, out, weights=start, resume=True)


def test_where_weights_lie_makes_no_other_run(data: Path, tmp_path: Path) -> None:
    torch.save(create_model("convit_micro_patch4_32", img_size=8, num_classes=3).state_dict(), tmp_path / "a.pth")
    shutil.copy(tmp_path / "a.pth", tmp_path / "b.pth")
    runs = [run(data, tmp_path / name, weights=tmp_path / f"{name}.pth") for name in ("a", "b")]
    first, second = (RunFolder(out).read_identity()["run"] for out in runs)
    assert first == second


def test_run_of_an_earlier_version(data: Path, tmp_path: Path) -> None:
    """It wrote down the names alone: it goes on, and from then on it knows more."""
    out = run(data, tmp_path / "run")
    (out / "identity.json").unlink()
    run(data, out, resume=True)
    assert "an earlier version began this run" in (out / "log.txt").read_text()
    file = data.parent / learned(out)
    file.write_bytes(file.read_bytes() + b"\0")
    refuses(data, out, "is another image")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"class_names": ["ape", "bee", "cow"], "parts": {"train": {}}}'])
def test_damaged_identity(content: str, data: Path, tmp_path: Path) -> None:
    out = run(data, tmp_path / "run")
    (out / "identity.json").write_text(content)
    refuses(data, out, r"identity\.json: not readable")


@pytest.mark.parametrize("more", [{"seed": 1}, {"lr": 1e-4}, {"weight_decay": 0.1}])
def test_state_of_another_run(more: dict[str, float], data: Path, tmp_path: Path) -> None:
    """Of the same shape. It is passed over, also where the run comes to the same step again."""
    train(options(data, tmp_path / "whole", epochs=2))
    out, other = Path(shutil.copytree(tmp_path / "whole", tmp_path / "run")), tmp_path / "other"
    train(options(data, other, epochs=2, **more))
    foreign = newest_state(out)
    shutil.rmtree(foreign)
    shutil.copytree(newest_state(other), foreign)
    train(options(data, out, epochs=2, resume=True))
    log = (out / "log.txt").read_text()
    assert f"{foreign}: the state of another run; taking the one before it" in log
    assert "resuming after epoch 1, step 0" in log
    assert exact(out) == exact(tmp_path / "whole")


def test_no_state_but_those_of_another_run(data: Path, tmp_path: Path) -> None:
    out, other = run(data, tmp_path / "run"), run(data, tmp_path / "other", seed=1)
    shutil.rmtree(out / "checkpoints")
    shutil.copytree(other / "checkpoints", out / "checkpoints")
    refuses(data, out, r"1 states, none of them whole and of this run \(1 of another one\)")


def test_state_of_an_earlier_version(data: Path, tmp_path: Path) -> None:
    """Does not say of which run it is: it counts as this one's."""
    from convit.train import state

    with pytest.MonkeyPatch.context() as patch:
        real = state._files
        patch.setattr(state, "_files", lambda parts, *more: real(_without_run(parts), *more))
        out = run(data, tmp_path / "run")
    before = exact(out)
    run(data, out, resume=True)
    assert "resuming after epoch 1" in (out / "log.txt").read_text()
    assert exact(out) == before


def _without_run(parts: object) -> object:
    parts.run = None  # type: ignore[attr-defined]
    return parts


@pytest.mark.parametrize("how", [{}, {"resume": True}, {"overwrite": True}])
def test_one_process_at_a_time(how: dict[str, bool], data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    if how:
        run(data, out)
    with RunFolder(out).locked():
        before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
        with pytest.raises(InputError, match=rf"another process \(pid \d+ on .*\) trains in {out}; expected its end"):
            run(data, out, **how)
        assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    run(data, out, **how)
