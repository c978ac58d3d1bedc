"""A run that was stopped anywhere goes on to the same bits, and only as what it was."""

import multiprocessing
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from convit.errors import InputError
from convit.events import Advanced, Event, PassBegan
from convit.training import Stopped, plots
from convit.training.run import train
from tests.training.small import StopAt, exact, metrics, newest_state, options, photos, resume

EPOCHS = 3
COUNTS = {"ape": 6, "bee": 5, "cow": 7}


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody stopped."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(options(data, out, epochs=EPOCHS))
    return out


def stopped(data: Path, out: Path, what: str, batch: int) -> Stopped:
    with pytest.raises(Stopped) as caught:
        train(options(data, out, epochs=EPOCHS), StopAt(what, batch))
    return caught.value


@pytest.mark.parametrize(
    ("what", "batch", "state"),
    [
        ("epoch 1/3", 1, "epoch-0000-step-000001"),
        ("epoch 2/3", 2, "epoch-0001-step-000002"),
        ("epoch 2/3", 3, "epoch-0001-step-000003"),  # after the last step: noticed in the validation
        ("validation", 1, "epoch-0001-step-000000"),  # after its only batch: the epoch still counts
        ("best model on the val images", 1, "epoch-0003-step-000000"),
        ("best model on the val images", 0, "epoch-0003-step-000000"),  # training is done, the evaluation is not
    ],
)
def test_stop_and_resume(what: str, batch: int, state: str, data: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    error = stopped(data, out, what, batch)
    assert (error.signum, error.folder) == (signal.SIGINT, out)
    assert newest_state(out).name == state
    assert (out / "model.safetensors").is_file()  # there is a model to use, also before the first epoch
    assert (out / "curves.png").exists() == (what != "epoch 1/3")
    train(resume(out, **({"workers": 2} if batch == 2 else {})))
    assert exact(out) == exact(whole)
    assert {path.name for path in out.iterdir()} == {path.name for path in whole.iterdir()}


def test_stopped_while_it_draws(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes no more than seconds is done to its end."""
    draw = plots.confusion
    monkeypatch.setattr(plots, "confusion", lambda *a, **b: (signal.raise_signal(signal.SIGTERM), draw(*a, **b)))
    train(options(data, tmp_path / "run", epochs=1))
    assert (tmp_path / "run/confusion.png").exists()


def test_stopped_twice(data: Path, whole: Path, tmp_path: Path) -> None:
    stopped(data, tmp_path / "run", "epoch 1/3", 2)
    with pytest.raises(Stopped):
        train(resume(tmp_path / "run"), StopAt("epoch 3/3", 1))
    train(resume(tmp_path / "run"))
    assert exact(tmp_path / "run") == exact(whole)


def test_resume_of_a_complete_run_changes_nothing(data: Path, tmp_path: Path) -> None:
    train(options(data, tmp_path / "run", epochs=1))
    before = exact(tmp_path / "run")
    train(resume(tmp_path / "run"))
    assert exact(tmp_path / "run") == before


def test_second_signal_acts_at_once(data: Path, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start without it
    try:
        with pytest.raises(KeyboardInterrupt):
            train(options(data, tmp_path / "run"), StopAt("epoch 1/2", 1, times=2))
    finally:
        signal.signal(signal.SIGINT, before)


def test_handlers_are_put_back(data: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped) as caught:
        train(options(data, tmp_path / "run"), StopAt("epoch 1/2", 1, signum=signal.SIGTERM))
    assert caught.value.signum == signal.SIGTERM
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.fixture(scope="module")
def half(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "half"
    stopped(data, out, "epoch 1/3", 1)
    return out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"epochs": 4}, "epochs: got 4, the run in .* began with 3"),
        ({"seed": 1}, "seed: got 1, the run in .* began with 0"),
        ({"lr": 0.5}, r"lr: got 0\.5, the run in .* began with [\d.]+"),
        ({"mixup": 0.5}, r"mixup: got 0\.5, the run in .* began with 0\.0"),
        ({"image_size": (8, 16)}, r"image-size: got \[8, 16\], the run in .* began with \[8, 8\]"),
        ({"precision": "bf16"}, "precision: got bf16, the run in .* began with fp32"),
        ({"val_fraction": 0.3}, "val-fraction: got 0.3, the run in .* began with 0.1"),
        ({"out": "elsewhere"}, "out: got elsewhere with --resume .*, expected none: a run goes on in its own folder"),
    ],
)
def test_other_options_are_refused(more: dict[str, Any], message: str, half: Path) -> None:
    state = newest_state(half).name
    with pytest.raises(InputError, match=message) as caught:
        train(resume(half, **more))
    assert "\n" not in str(caught.value)
    assert newest_state(half).name == state


def test_the_same_options_may_be_given_again(data: Path, whole: Path, half: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(half, tmp_path / "run"))
    same = {"data": data, "out": run, "epochs": EPOCHS, "image_size": 8, "batch_size": 4}
    train(resume(run, **same))
    assert exact(run) == exact(whole)


def test_an_option_that_is_given_at_its_default_counts(data: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train(options(data, tmp_path / "run", seed=5), StopAt("epoch 1/2", 1))
    with pytest.raises(InputError, match=r"seed: got 0, the run in .* began with 5"):
        train(resume(tmp_path / "run", seed=0))


def test_images_that_were_moved(data: Path, whole: Path, half: Path, tmp_path: Path) -> None:
    """They may lie elsewhere, as on another machine; what they are has to be the same."""
    run, moved = Path(shutil.copytree(half, tmp_path / "run")), Path(shutil.copytree(data, tmp_path / "moved"))
    train(resume(run, data=moved))
    assert exact(run) == exact(whole)


def test_other_images_are_refused(half: Path, data: Path, tmp_path: Path) -> None:
    other = photos(tmp_path / "animals", {"ape": 6, "bee": 5, "dog": 7})
    with pytest.raises(InputError, match=r"other images than when the run"):
        train(resume(half, data=other))
    new = data / "cow/new.png"
    new.write_bytes((data / "cow/0.png").read_bytes())
    try:
        with pytest.raises(InputError, match=r"other images than .* started: 'cow/new\.png' is new; expected the same"):
            train(resume(half))
    finally:
        new.unlink()


def test_no_image_is_decoded_again(half: Path, whole: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(half, tmp_path / "run"))
    heard: list[str] = []
    train(resume(run), lambda event: heard.append(event.what) if isinstance(event, PassBegan) else None)
    assert heard[0] == "epoch 1/3"
    assert exact(run) == exact(whole)


def test_no_run_to_resume(tmp_path: Path) -> None:
    for where in (tmp_path, tmp_path / "run"):
        with pytest.raises(InputError, match=r"resume: .*; expected the folder of a run that was begun"):
            train(resume(where))
    assert not (tmp_path / "run").exists()


def test_metrics_of_a_stopped_run_are_whole_lines(half: Path, whole: Path) -> None:
    assert not (half / "metrics.jsonl").exists()
    assert len(metrics(whole)) == EPOCHS


class KillWorker:
    """A listener that kills the loader processes at the first batch of a pass."""

    def __init__(self, what: str) -> None:
        self.what, self.now, self.killed = what, "", False

    def __call__(self, event: Event) -> None:
        if isinstance(event, PassBegan):
            self.now = event.what
        elif isinstance(event, Advanced) and self.now == self.what and not self.killed:
            self.killed = True
            for worker in multiprocessing.active_children():
                worker.kill()


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("what", ["epoch 1/3", "validation"])
def test_dead_worker(what: str, data: Path, whole: Path, tmp_path: Path) -> None:
    """One line, the state saved, and from there to the same bits."""
    # The training loader lives through all epochs: what it has fetched ahead lasts to the next epoch at most.
    with pytest.raises(InputError, match=r"a process that loads images died.*the state is saved in.*--resume"):
        train(options(data, tmp_path / "run", epochs=EPOCHS, workers=1), KillWorker(what))
    assert newest_state(tmp_path / "run").name.startswith("epoch-000")
    train(resume(tmp_path / "run"))
    assert exact(tmp_path / "run") == exact(whole)


def test_a_finished_run_without_its_states_is_not_started_again(data: Path, whole: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    shutil.rmtree(run / "checkpoints")
    before = (run / "model.safetensors").read_bytes()
    with pytest.raises(InputError, match="no state in it, though epochs were completed; expected the checkpoints"):
        train(resume(run))
    assert (run / "model.safetensors").read_bytes() == before


def test_the_line_of_the_last_epoch_is_written_again(data: Path, whole: Path, tmp_path: Path) -> None:
    """A kill between the state and the metrics loses nothing."""
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:-1]))
    train(resume(run))
    assert (run / "metrics.jsonl").read_text() == "".join(lines)
