"""A run only goes on from its own states and on what it learned from, and nobody else trains in its folder."""

import csv
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from convit import create_model
from convit.errors import InputError
from convit.training.run import train
from convit.training.run_folder import RunFolder
from tests.training.small import exact, newest_state, options, photos, resume


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


def refuses(out: Path, match: str) -> None:
    before = exact(out)
    with pytest.raises(InputError, match=match) as caught:
        train(resume(out))
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
    refuses(out, f"other images than when the run in {out} started: ")


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
    refuses(out, "started: the label of 'ape/1.png' was 'ape', now 'bee'; expected the same")


def test_another_file_of_the_same_name(data: Path, tmp_path: Path) -> None:
    out = run(data, tmp_path / "run")
    file = data.parent / learned(out)
    file.write_bytes(file.read_bytes() + b"\0")
    refuses(out, f"started: '{learned(out)}' is another image; expected the same")


def test_other_weights_of_the_teacher(data: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        torch.manual_seed(seed)
        torch.save(timm.create_model("resnet10t", num_classes=3).state_dict(), tmp_path / f"{seed}.pth")
    weights = tmp_path / "0.pth"
    teacher = {"teacher": "resnet10t", "teacher_weights": weights}
    out = run(data, tmp_path / "run", **teacher)
    train(resume(out))
    shutil.copy(tmp_path / "1.pth", weights)
    refuses(out, f"teacher-weights: {weights} is not what it was when the run in {out} started")


def test_teacher_that_is_gone(data: Path, tmp_path: Path) -> None:
    weights = tmp_path / "teacher.pth"
    torch.save(timm.create_model("resnet10t", num_classes=3).state_dict(), weights)
    teacher = {"teacher": "resnet10t", "teacher_weights": weights}
    out = run(data, tmp_path / "run", **teacher)
    weights.unlink()
    refuses(out, f"teacher-weights: no such file or folder {weights}; expected what the run in {out}")


def test_other_weights_to_start_from(data: Path, tmp_path: Path) -> None:
    """They count until there is a state, in which all that came of them is."""
    start, out = tmp_path / "start.pth", tmp_path / "run"

    def write(seed: int) -> None:
        torch.manual_seed(seed)
        torch.save(create_model("convit_micro_patch4_32", img_size=8, num_classes=3).state_dict(), start)

    write(0)
    run(data, out, weights=start)
    write(1)
    train(resume(out))
    shutil.rmtree(out / "checkpoints")
    (out / "metrics.jsonl").unlink()
    with pytest.raises(InputError, match=f"weights: {start} is not what it was when the run in {out} started"):
        train(resume(out))
    write(0)
    train(resume(out))


def test_where_weights_lie_makes_no_other_run(data: Path, tmp_path: Path) -> None:
    torch.save(create_model("convit_micro_patch4_32", img_size=8, num_classes=3).state_dict(), tmp_path / "a.pth")
    shutil.copy(tmp_path / "a.pth", tmp_path / "b.pth")
    runs = [run(data, tmp_path / name, weights=tmp_path / f"{name}.pth") for name in ("a", "b")]
    first, second = (RunFolder(out).read_plan().fingerprint for out in runs)
    assert first == second


@pytest.mark.parametrize(
    ("line", "changed", "message"),
    [
        ("lr: ", "lr: 0.125\n", r"config.yaml: lr is 0\.125, the run began with 0\.0014; expected what the run began"),
        ("seed: ", "seed: 5\n", "config.yaml: seed is 5, the run began with 0"),
        ("epochs: ", "epochs: 9\n", "config.yaml: epochs is 9, the run began with 1"),
        ("mixup: ", "", r"config.yaml: mixup is None, the run began with 0\.0"),
        ("lr: ", "lr: fast\n", "config.yaml: lr: got fast, expected a number above 0"),
        ("lr: ", "rate: 0.1\n", "config.yaml: unknown option 'rate'"),
    ],
)
def test_an_edited_option_is_named(line: str, changed: str, message: str, data: Path, tmp_path: Path) -> None:
    out = run(data, tmp_path / "run")
    lines = (out / "config.yaml").read_text().splitlines(keepends=True)
    (out / "config.yaml").write_text("".join(changed if text.startswith(line) else text for text in lines))
    refuses(out, message)


def test_an_image_that_was_moved_to_another_split_is_named(data: Path, tmp_path: Path) -> None:
    out = run(data, tmp_path / "run")
    split = RunFolder(out).read_split()
    moved = split["train"].pop()
    split["val"].append(moved)
    (out / "split.json").write_text(json.dumps(split))
    refuses(out, rf"split\.json: '{moved}' is in val, was in train when the run began")
    split["val"].remove(moved)
    (out / "split.json").write_text(json.dumps(split))
    refuses(out, rf"split\.json: '{moved}' is in no split, was in train")


def test_an_edited_class_is_named(data: Path, tmp_path: Path) -> None:
    out = run(data, tmp_path / "run")
    config = json.loads((out / "config.json").read_text())
    config["pretrained_cfg"]["label_names"][1] = "wasp"
    (out / "config.json").write_text(json.dumps(config))
    refuses(out, r"config\.json: class 'wasp', the run began with 'bee'")


FOR_PEOPLE = r".*expected .*'convit train' wrote"
CHANGES: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (
        lambda plan: plan["options"].update(lr=0.125),
        r"changed since the run began: its lr is 0\.125, that of config.yaml 0\.0014",
    ),
    (lambda plan: plan["facts"]["counts"].update(train=[3, 3, 3]), "changed since the run began"),  # other steps
    (lambda plan: plan.update(blocks=9), FOR_PEOPLE),
    (lambda plan: plan.update(given={"epochs": 9}), FOR_PEOPLE),
    (lambda plan: plan.update(given=[1]), FOR_PEOPLE),
    (lambda plan: plan.update(reasons={}), FOR_PEOPLE),
    (lambda plan: plan.update(reasons=None), FOR_PEOPLE),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_an_edited_plan_is_noticed(
    change: Callable[[dict[str, Any]], object], message: str, data: Path, tmp_path: Path
) -> None:
    out = run(data, tmp_path / "run")
    plan = json.loads((out / "plan.json").read_text())
    change(plan)
    (out / "plan.json").write_text(json.dumps(plan))
    refuses(out, rf"plan\.json: {message}")


def test_edited_in_every_place_the_states_are_still_those_of_the_run(data: Path, tmp_path: Path) -> None:
    out = run(data, tmp_path / "run")
    plan = RunFolder(out).read_plan()
    other = dataclasses.replace(plan, options=dataclasses.replace(plan.options, lr=0.125))
    (out / "plan.json").write_text(json.dumps(other.to_dict()))
    text = (out / "config.yaml").read_text()
    (out / "config.yaml").write_text(text.replace("\nlr: 0.0014\n", "\nlr: 0.125\n"))
    refuses(out, r"lr: .*0\.0014.*0\.125")


@pytest.mark.parametrize("more", [{"seed": 1}, {"lr": 1e-4}, {"weight_decay": 0.1}])
def test_state_of_another_run(more: dict[str, float], data: Path, tmp_path: Path) -> None:
    """Of the same shape. It is passed over, also where the run comes to the same step again."""
    train(options(data, tmp_path / "whole", epochs=2))
    out, other = Path(shutil.copytree(tmp_path / "whole", tmp_path / "run")), tmp_path / "other"
    train(options(data, other, epochs=2, **more))
    foreign = newest_state(out)
    shutil.rmtree(foreign)
    shutil.copytree(newest_state(other), foreign)
    train(resume(out))
    log = (out / "log.txt").read_text()
    assert f"{foreign}: the state of another run; taking the one before it" in log
    assert "resuming after epoch 1, step 0" in log
    assert exact(out) == exact(tmp_path / "whole")


def test_no_state_but_those_of_another_run(data: Path, tmp_path: Path) -> None:
    out, other = run(data, tmp_path / "run"), run(data, tmp_path / "other", seed=1)
    shutil.rmtree(out / "checkpoints")
    shutil.copytree(other / "checkpoints", out / "checkpoints")
    refuses(out, "seed: .*1.*0")


@pytest.mark.parametrize("how", ["new", "resume", "overwrite"])
def test_one_process_at_a_time(how: str, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    if how != "new":
        run(data, out)
    asked = resume(out) if how == "resume" else options(data, out, epochs=1, overwrite=how == "overwrite")
    with RunFolder(out).locked():
        before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
        with pytest.raises(InputError, match=rf"another process \(pid \d+ on .*\) trains in {out}; expected its end"):
            train(asked)
        assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    train(asked)
