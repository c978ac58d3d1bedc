"""With everything on: a run that was stopped goes on to the same bits, with any number of workers."""

import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch

import convit
from convit.events import Advanced, Event, PassBegan
from convit.training import Stopped, saving
from convit.training.run import train
from tests.training.small import StopAt, exact, metrics, newest_state, options, resume, weights

EVERYTHING: dict[str, Any] = {
    "epochs": 2, "batch_size": 4, "accumulate": 2, "ema_decay": 0.9, "repeated_augmentation": 2,
    "mixup": 0.8, "cutmix": 1.0, "mix_prob": 0.7, "drop_path": 0.3, "random_erasing": 0.5, "color_jitter": 0.2,
    "rand_augment": "rand-m9-mstd0.5-inc1", "balanced_sampling": True, "class_weights": "balanced", "patience": 50,
    "label_smoothing": 0.1, "flip": True, "first_epochs": 1,
}  # fmt: skip


COUNTS = {"ape": 12, "bee": 5, "cow": 3}  # 16 + 1 images to learn from: four steps of 4


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(options(data, out, **EVERYTHING))
    return out


def stop_and_resume(data: Path, out: Path, what: str, batch: int, workers: int, **more: Any) -> None:
    with pytest.raises(Stopped):
        train(options(data, out, workers=workers, **more), StopAt(what, batch, signum=signal.SIGTERM))
    train(resume(out, workers=2 - workers))


@pytest.mark.parametrize("what", ["epoch 1/2", "epoch 2/2", "validation"])
def test_everything_at_once(what: str, data: Path, whole: Path, tmp_path: Path) -> None:
    stop_and_resume(data, tmp_path / "run", what, 1, 0 if what == "epoch 1/2" else 2, **EVERYTHING)
    assert exact(tmp_path / "run") == exact(whole)


def test_with_workers(data: Path, whole: Path, tmp_path: Path) -> None:
    train(options(data, tmp_path / "run", **EVERYTHING, workers=2))
    assert exact(tmp_path / "run") == exact(whole)


def test_the_average_is_the_model(data: Path, whole: Path) -> None:
    """The last epoch's average is in its state, apart from the weights; the best epoch's is what is saved."""
    states = sorted((whole / "checkpoints").iterdir())
    best = max(metrics(whole), key=lambda record: (record["val_top1"], -record["val_loss"]))["epoch"]
    tensors = safetensors.torch.load_file(states[best - 1] / "tensors.safetensors")
    for name, value in weights(whole).items():
        assert torch.equal(tensors[f"ema.{name}"], value)
    assert not torch.equal(tensors["ema.head.weight"], tensors["model.head.weight"])


@pytest.fixture(scope="module")
def one_epoch(data: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    out = tmp_path_factory.mktemp("runs") / "one"
    train(options(data, out, **EVERYTHING | {"epochs": 1}))
    return exact(out)[0]


OFF = {"accumulate": 1, "repeated_augmentation": 1, "class_weights": "none", "rand_augment": "", "mix_prob": 0.2}
SAME_BITS = {"epochs", "batch_size", "patience"}


@pytest.mark.parametrize("option", [name for name in EVERYTHING if name not in SAME_BITS])
def test_every_option_counts(option: str, data: Path, one_epoch: bytes, tmp_path: Path) -> None:
    """Without one of them the run is another: none of the tests above passes because an option does nothing."""
    without = OFF.get(option, type(EVERYTHING[option])(0))
    train(options(data, tmp_path / "run", **EVERYTHING | {"epochs": 1, option: without}))
    assert exact(tmp_path / "run")[0] != one_epoch


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision(precision: str, data: Path, tmp_path: Path) -> None:
    more = {"precision": precision, "epochs": 2}
    train(options(data, tmp_path / "whole", **more))
    stop_and_resume(data, tmp_path / "run", "epoch 2/2", 2, 0, **more)
    assert exact(tmp_path / "run") == exact(tmp_path / "whole")
    if precision == "fp16":
        states = [(newest_state(tmp_path / name) / "state.json").read_text() for name in ("run", "whole")]
        assert all('"scaler": {"scale": ' in state for state in states)


def test_the_design_for_small_data(data: Path, tmp_path: Path) -> None:
    """Running means of the norms are part of the state, rates of the gates part of the schedule."""
    more = {"model": "convit_nano_patch4_16", "position_lr": 5.0, "ema_decay": 0.9}
    train(options(data, tmp_path / "whole", **more))
    stop_and_resume(data, tmp_path / "run", "epoch 2/2", 2, 0, **more)
    assert exact(tmp_path / "run") == exact(tmp_path / "whole")
    means = [value for name, value in weights(tmp_path / "run").items() if name.endswith("running_mean")]
    assert means
    assert all(mean.any() for mean in means)


@pytest.mark.slow
def test_compiled(data: Path, tmp_path: Path) -> None:
    if shutil.which("c++") is None and shutil.which("g++") is None:
        pytest.skip("no C++ compiler here")
    more = {"compile": True, "epochs": 1, "drop_path": 0.3}
    train(options(data, tmp_path / "whole", **more))
    torch.compiler.reset()
    stop_and_resume(data, tmp_path / "run", "epoch 1/1", 2, 0, **more)
    assert exact(tmp_path / "run") == exact(tmp_path / "whole")
    model = convit.create_model("convit_micro_patch4_32", img_size=8, num_classes=3)
    assert set(weights(tmp_path / "run")) == set(model.state_dict())  # no name of the compiler's in it


def test_saved_by_the_clock(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock decides when a state is saved, and nothing else; what is lost by a kill is the rest of the epoch."""
    train(options(data, tmp_path / "plain", epochs=1))
    seen: list[str] = []

    def look(event: Event) -> None:
        folder = tmp_path / "run/checkpoints"
        if isinstance(event, Advanced) and event.loss is not None:
            seen.append(newest_state(tmp_path / "run").name if folder.is_dir() else "none")

    seconds = iter(range(0, 100_000, 25))  # every look at the clock takes 25 s
    monkeypatch.setattr(saving, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    train(options(data, tmp_path / "run", epochs=1, save_minutes=1.0), look)
    monkeypatch.undo()
    assert seen == ["none", "none", "none", "epoch-0000-step-000003"]  # 75 s after the start
    assert exact(tmp_path / "run") == exact(tmp_path / "plain")


def test_killed_after_a_state_by_the_clock(data: Path, tmp_path: Path) -> None:
    train(options(data, tmp_path / "whole"))

    class Killed(BaseException):
        pass

    steps = iter(range(1, 100))

    def kill(event: Event) -> None:
        if isinstance(event, Advanced) and passes and passes[-1] == "epoch 2/2" and next(steps) == 3:
            raise Killed
        if isinstance(event, PassBegan):
            passes.append(event.what)

    passes: list[str] = []
    with pytest.raises(Killed):
        train(options(data, tmp_path / "run", save_minutes=1e-9), kill)
    assert newest_state(tmp_path / "run").name == "epoch-0001-step-000002"
    train(resume(tmp_path / "run"))
    assert exact(tmp_path / "run") == exact(tmp_path / "whole")
