"""``convit train --track``: each epoch's figures where they belong, once, also for a run that goes on."""

import json
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from convit.cli.tracking import figures, tracking
from convit.events import RunBegan, ignore
from tests.cli.command import SMALL, Shell, tree


class FakeRun:
    """A run of Weights & Biases that keeps what it gets."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.given, self.logged, self.finished = given, list[tuple[int, dict[str, float]]](), False

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[FakeRun]:
    """Stands for wandb; the runs that were begun."""
    begun: list[FakeRun] = []
    fake = types.ModuleType("wandb")

    def init(**given: Any) -> FakeRun:
        begun.append(FakeRun(given))
        return begun[-1]

    fake.init = init  # type: ignore[attr-defined]
    fake.login = lambda **_: True  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return begun


def test_weights_and_biases(animals: Path, tmp_path: Path, shell: Shell, runs: list[FakeRun]) -> None:
    out = tmp_path / "run"
    given = ("train", animals, *SMALL, "--out", out, "--track", "wandb")
    assert shell(*given).status == 0
    (first,) = runs
    (line,) = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert first.logged == [(1, figures(line))]
    assert first.logged[0][1]["loss/training"] == line["train_loss"]
    assert first.finished
    assert first.given["project"] == "convit"
    assert (first.given["dir"], first.given["name"], first.given["resume"]) == (str(out), "run", "allow")
    assert first.given["config"]["epochs"] == 1
    assert shell("train", "--resume", out, "--track", "wandb").status == 0  # nothing is left to do; it is the same run
    assert shell(*given, "--overwrite").status == 0
    assert runs[1].given["id"] == first.given["id"] != runs[2].given["id"]
    assert runs[1].logged == []


def test_no_key_is_one_line(animals: Path, tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = types.ModuleType("wandb")

    def fails(**_: Any) -> None:
        raise RuntimeError("api_key not configured (no-tty)\ncall wandb.login()")

    fake.init = fake.login = fails  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    says = ("track: wandb does not start (api_key not configured", "WANDB_MODE=offline")
    out = tmp_path / "run"
    given = ("train", animals, *SMALL, "--out", out)
    shell.refuses(*given, "--track", "wandb", says=says)
    assert not out.exists()
    assert shell(*given).status == 0
    before = tree(out)
    shell.refuses(*given, "--track", "wandb", "--overwrite", says=says)
    assert tree(out) == before, "the run that was to be replaced"
    shell.refuses("train", "--resume", out, "--track", "wandb", says=says)
    after = tree(out)
    assert {name for name in before if after[name] != before[name]} <= {"log.txt"}


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_missing_library_is_one_line(
    name: str, animals: Path, tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("torch.utils.tensorboard", "wandb"):
        monkeypatch.setitem(sys.modules, module, None)
    says = (f"track: {name} is not installed", "pip install 'convit[track]'")
    shell.refuses("train", animals, *SMALL, "--out", tmp_path / "run", "--track", name, says=says)
    assert list(tmp_path.iterdir()) == []


def series(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a folder: (step, value) by name."""
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulators.EventAccumulator(str(folder)).Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_tensorboard_goes_on(animals: Path, tmp_path: Path, shell: Shell) -> None:
    """The epochs of both starts are one series, and one that is made again is there once."""
    pytest.importorskip("tensorboard")
    out = tmp_path / "run"
    assert shell("train", animals, *SMALL, "--epochs", "3", "--out", out, "--track", "tensorboard").status == 0
    whole = series(out / "tensorboard")
    shutil.rmtree(max((out / "checkpoints").iterdir()))
    assert shell("train", "--resume", out, "--track", "tensorboard").status == 0
    again = series(out / "tensorboard")
    assert [step for step, _ in again["loss/validation"]] == [1, 2, 3]
    same = [name for name in whole if name != "images per second"]
    assert {name: again[name] for name in same} == {name: whole[name] for name in same}
    assert {"loss/training", "accuracy/top-1", "learning rate", "gate/layer 1"} <= again.keys()


def test_fault_later_on_does_not_end_the_training(
    animals: Path, tmp_path: Path, shell: Shell, runs: list[FakeRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(FakeRun, "log", fails)
    monkeypatch.setattr(FakeRun, "finish", fails)
    got = shell("train", animals, *SMALL, "--out", tmp_path / "run", "--track", "wandb")
    assert (got.status, got.err) == (0, "")
    assert "wandb: epoch 1 not tracked (no route to host); training goes on" in got.out
    assert "wandb: not closed (no route to host)" in got.out


def test_own_project(tmp_path: Path, runs: list[FakeRun], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    with tracking("wandb", print) as tell:
        tell(RunBegan(tmp_path, {}, 0))
    assert "project" not in runs[0].given


def test_nothing_is_nothing() -> None:
    with tracking("none", print) as tell:
        assert tell is ignore
