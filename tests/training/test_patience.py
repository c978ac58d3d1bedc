"""Early stop: when, what it leaves, and after a resume."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import convit
from convit.training import Stopped, engine, evaluate
from convit.training.evaluation import epochs_since_best
from convit.training.run import train
from tests.training.small import StopAt, exact, metrics, options, resume

TOP1 = [20.0, 60.0, 40.0, 60.0, 50.0, 90.0, 90.0]
LOSS = [1.0, 0.5, 0.1, 0.6, 0.4, 0.3, 0.3]
COUNTS = {"dark": 5, "light": 5}


@pytest.fixture(autouse=True)
def _scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every epoch has the accuracy and the loss of the lists above, whichever process evaluates it."""

    def scripted(*args: Any, **kwargs: Any) -> Any:
        epoch = len(TRAINERS[-1].progress.history)
        return dataclasses.replace(evaluate(*args, **kwargs), top1=TOP1[epoch], loss=LOSS[epoch])

    real = engine.Trainer.__init__

    def made(self: engine.Trainer, *args: Any, **kwargs: Any) -> None:
        TRAINERS.append(self)
        real(self, *args, **kwargs)

    monkeypatch.setattr(engine.Trainer, "__init__", made)
    monkeypatch.setattr(engine, "evaluate", scripted)


TRAINERS: list[engine.Trainer] = []


def test_epochs_since_best() -> None:
    history = [{"val_top1": top1, "val_loss": loss} for top1, loss in zip(TOP1, LOSS, strict=True)]
    # The fourth ties the second with a higher loss: no better. The seventh ties the sixth in both: the first stays.
    assert [epochs_since_best(history[:n]) for n in range(8)] == [0, 0, 0, 1, 2, 3, 0, 1]


@pytest.mark.parametrize(("patience", "epochs"), [(1, 3), (2, 4), (3, 5), (4, 7), (None, 7)])
def test_stops_early(patience: int | None, epochs: int, data: Path, tmp_path: Path) -> None:
    train(options(data, tmp_path / "run", epochs=7, patience=patience))
    records = metrics(tmp_path / "run")
    assert len(records) == epochs
    assert [record.get("stopped_early", False) for record in records] == [False] * (epochs - 1) + [epochs < 7]
    log = (tmp_path / "run/log.txt").read_text()
    assert (f"no better epoch for {patience}: stopped early, after {epochs} of 7 epochs" in log) == (epochs < 7)
    training = convit.load(tmp_path / "run").training
    assert training is not None
    assert (training.epochs, training.best_epoch) == (epochs, 2 if epochs < 6 else 6)
    assert (tmp_path / "run/evaluation.json").exists()


@pytest.mark.parametrize("what", ["epoch 2/7", "epoch 4/7", "validation"])
def test_after_a_resume(what: str, data: Path, tmp_path: Path) -> None:
    train(options(data, tmp_path / "whole", epochs=7, patience=3))
    with pytest.raises(Stopped):
        train(options(data, tmp_path / "run", epochs=7, patience=3), StopAt(what, 1))
    train(resume(tmp_path / "run"))
    assert exact(tmp_path / "run") == exact(tmp_path / "whole")
    train(resume(tmp_path / "run"))  # it is over: nothing more is learned
    assert exact(tmp_path / "run") == exact(tmp_path / "whole")
