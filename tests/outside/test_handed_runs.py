"""A run folder of somebody else, or one that was changed by hand."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import convit
from convit.errors import InputError
from convit.files import fingerprint
from convit.training import train
from convit.training.run_folder import RunFolder
from tests.cli.command import Shell
from tests.helpers import refused
from tests.outside.handed_over import changed, little_memory
from tests.training.small import resume

pytestmark = pytest.mark.pictures


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run of one epoch, with its states."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


TEXTS = [
    *("", "null", "3", "[]", "{}", '"a"', "[" * 100_000, '{"a":' * 100_000, '{"train": NaN}', '{"a": 1, "a": 2}'),
    *('{"train": "abc"}', '{"train": [1, 2]}', '{"train": {"a": 1}}', '{"train": null}', f'{{"train": {"9" * 5000}}}'),
    '{"class_names": ["ape"], "splits": {"train": {}}}',
]


@pytest.mark.parametrize("name", ["plan.json", "split.json", "images.json", "skipped.json"])
def test_a_file_of_a_run_in_another_form(name: str, run: Path, shell: Shell) -> None:
    for text in TEXTS:
        (run / name).write_text(text)
        if (name, text) == ("skipped.json", "[]"):
            continue
        shell.refuses("train", "--resume", run, "--device", "cpu", says=(f"{run / name}: ",))


@pytest.mark.parametrize(
    "line", ["null", "[]", "{}", '{"epoch": 1}', "[" * 100_000, '{"epoch": true}', '{"epoch": 1, "epoch": 1}', "\xff"]
)
def test_metrics_in_another_form(line: str, run: Path) -> None:
    (run / "metrics.jsonl").write_text(line)
    refused(RunFolder(run).read_history, "metrics.jsonl: not readable")


def plan_by_hand(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the plan as somebody would who knows of its checksum."""
    plan = json.loads((run / "plan.json").read_text())
    del plan["checksum"]
    change(plan)
    (run / "plan.json").write_text(json.dumps(plan | {"checksum": fingerprint(plan)}))


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: plan.update(blocks=10**400),
        lambda plan: plan.update(side="large"),
        lambda plan: plan.update(given=[1]),
        lambda plan: plan.update(sources={"images": 3}),
        lambda plan: plan["model_args"].update(depth=10**6),
        lambda plan: plan["model_args"].update(device="meta"),
        lambda plan: plan["options"].update(epochs=10**400),
        lambda plan: plan["facts"].update(counts={"train": [10**400] * 3}),
        lambda plan: plan["preprocess"].update(crop_pct=1e-9),
    ],
)
def test_a_plan_by_hand(change: Callable[[dict[str, Any]], object], run: Path, shell: Shell) -> None:
    plan_by_hand(run, change)
    shell.refuses("train", "--resume", run, "--device", "cpu", says=(run / "plan.json",))


def state_by_hand(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes every state of the run as somebody would who knows of their checksums."""
    for state in (run / "checkpoints").iterdir():
        meta = json.loads((state / "state.json").read_text().split("\n")[1])
        change(meta)
        body = json.dumps(meta)
        (state / "state.json").write_text(f"{hashlib.sha256(body.encode()).hexdigest()}\n{body}\n")


STATES: dict[str, Callable[[dict[str, Any]], object]] = {
    "epochs below none": lambda meta: meta["progress"].update(epoch=-1),
    "more epochs than planned": lambda meta: meta["progress"].update(epoch=9),
    "true for an epoch": lambda meta: meta["progress"].update(epoch=True),
    "huge steps": lambda meta: meta["progress"].update(step=10**400),
    "a loss that is no number": lambda meta: meta["progress"].update(loss_sum=float("nan")),
    "no history": lambda meta: meta["progress"].update(history=None),
    "another history": lambda meta: meta["progress"].update(history=[{"epoch": 1}]),
    "no gates": lambda meta: meta["progress"]["history"][0].pop("gates"),
    "gates that are no numbers": lambda meta: meta["progress"]["history"][0].update(gates=[["x"]]),
    "unknown progress": lambda meta: meta["progress"].update(teeth=3),
    "no progress": lambda meta: meta.update(progress=[]),
    "no groups": lambda meta: meta.update(param_groups=[]),
    "other groups": lambda meta: meta["param_groups"][0].update(params=[0]),
    "a rate that is no number": lambda meta: meta["param_groups"][0].update(lr="fast"),
    "an infinite rate": lambda meta: meta["param_groups"][0].update(lr=float("inf")),
    "three betas": lambda meta: meta["param_groups"][0].update(betas=[0.9, 0.9, 0.9]),
    "another decay": lambda meta: meta["param_groups"][0].update(weight_decay=1e9),
}


@pytest.mark.parametrize("what", STATES)
def test_a_state_by_hand(what: str, run: Path, shell: Shell) -> None:
    state_by_hand(run, STATES[what])
    shell.refuses("train", "--resume", run, "--device", "cpu", says=(run / "checkpoints", "expected"))


def test_a_run_that_nobody_changed_goes_on(run: Path, shell: Shell) -> None:
    plan_by_hand(run, lambda plan: None)
    state_by_hand(run, lambda meta: None)
    assert shell("train", "--resume", run, "--device", "cpu").status == 0


@pytest.mark.skipif(os.name != "posix", reason="links and pipes")
@pytest.mark.parametrize("name", [".lock", "log.txt", "curves.png", "confusion.csv", "metrics.jsonl"])
def test_a_run_does_not_write_through_links(name: str, run: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(victim)
    with pytest.raises(InputError, match=name):
        train(resume(run))
    assert victim.read_text() == "precious"


@pytest.mark.skipif(os.name != "posix", reason="links and pipes")
@pytest.mark.parametrize("name", [".lock", "log.txt", "evaluation.json"])
def test_a_run_does_not_wait_for_pipes(name: str, run: Path) -> None:
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    with pytest.raises(InputError, match=name):
        train(resume(run))


def test_a_split_or_classes_of_another_run_are_refused(run: Path) -> None:
    split = (run / "split.json").read_bytes()
    (run / "split.json").write_text("{}")
    with pytest.raises(InputError, match=r"split\.json"):
        RunFolder(run).known()
    (run / "split.json").write_bytes(split)
    config = json.loads((run / "config.json").read_text())
    config["pretrained_cfg"]["label_names"].reverse()
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"config\.json"):
        RunFolder(run).known()


def test_counts_and_devices_from_python(run: Path) -> None:
    classifier = convit.load(run)
    picture = Image.new("RGB", (8, 8))
    assert len(classifier.predict(picture, top_k=np.int64(2))) == 2
    for wrong in (0, "3", 1.5, None, True):
        with pytest.raises(InputError):
            classifier.probabilities([picture], batch_size=wrong)
    for device in (5, "", "nowhere"):
        with pytest.raises(InputError, match="device"):
            convit.load(run, device=device)
    with pytest.raises(InputError):
        classifier.predict(Image.fromarray(np.full((8, 8), np.nan, np.float32)))


@pytest.mark.parametrize("name", ["plan.json", "split.json", "images.json", "state.json", "tensors.safetensors"])
def test_a_file_of_a_run_that_was_lengthened(name: str, run: Path, shell: Shell) -> None:
    """It is refused, or skipped as damaged, and not read into memory."""
    for path in run.rglob(name):
        os.truncate(path, 3 << 30)
    with little_memory():
        shell.refuses("train", "--resume", run, "--device", "cpu", says=(run,))


def test_a_finished_run_with_another_preprocessing(run: Path, shell: Shell) -> None:
    """``--resume`` evaluates a finished run once more: not with the mean that somebody wrote into its config.json."""
    changed(run, lambda config: config["pretrained_cfg"]["mean"].reverse())
    shell.refuses("train", "--resume", run, "--device", "cpu", says=(run / "config.json", "not as it was written"))
