"""A whole run: what it writes, that it can be repeated to the bit, and which model it keeps."""

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

import convit
from convit.calibration import calibrate
from convit.data.select import Evaluating, select
from convit.errors import InputError
from convit.events import Advanced, EpochEnded, Event, PassBegan
from convit.training import engine, evaluate, logits_of
from convit.training.run import Run, train
from convit.training.run_folder import RunFolder
from tests.training.small import exact, metrics, options, photos, trainer_of, weights

pytestmark = pytest.mark.pictures

COUNTS = {"ape": 6, "bee": 5, "cow": 7}  # 15 to learn from (three steps of 4, 3 left), 3 to validate on


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "first"
    train(options(data, out))
    return out


def test_files_of_the_contract(run: Path) -> None:
    files = {"config.yaml", "metrics.jsonl", "curves.png", "confusion.png", "gates.png", "model.safetensors"}
    files |= {"config.json", "checkpoints", "log.txt", "split.json", "images.json", "plan.json", "evaluation.json"}
    files |= {"mistakes.csv", "confusion.csv", "reliability.png", "report.html", ".lock"}
    wrong = len((run / "mistakes.csv").read_text().splitlines()) - 1
    assert wrong == 3 - np.trace(json.loads((run / "evaluation.json").read_text())["confusion"])
    assert {path.name for path in run.iterdir()} == files | ({"mistakes.png"} if wrong else set())
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "epoch-0001-step-000000",
        "epoch-0002-step-000000",
    ]
    for path in run.glob("*.png"):
        with Image.open(path) as image:
            assert min(image.size) > 200


def test_metrics(run: Path) -> None:
    lines = metrics(run)
    keys = ["epoch", "train_loss", "val_loss", "val_images", "val_top1", "lr", "images", "seconds", "images_per_second"]
    assert [list(line) for line in lines] == [[*keys, "gates"]] * 2
    assert [line["val_images"] for line in lines] == [3, 3]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert [len(layer) for layer in lines[0]["gates"]] == [9] * 3
    assert all(0 < gate < 1 for layer in lines[0]["gates"] for gate in layer)
    assert 0 < lines[1]["lr"] < 1e-3


def test_split_and_config_repeat_the_run(run: Path, data: Path) -> None:
    splits = json.loads((run / "split.json").read_text())
    assert {split: len(names) for split, names in splits.items()} == {"train": 15, "val": 3}
    everything = {path.relative_to(data).as_posix() for path in data.rglob("*.png")}
    assert set(splits["train"]) | set(splits["val"]) == everything
    assert {name.split("/")[0] for name in splits["val"]} == set(COUNTS)
    asked = RunFolder(run).read_options()
    assert asked.lr is not None
    again = run.with_name("again")
    train(dataclasses.replace(asked, out=again))
    assert exact(again) == exact(run)


def test_what_was_asked_found_and_decided_is_written(run: Path) -> None:
    plan = json.loads((run / "plan.json").read_text())
    assert plan["given"]["epochs"] == 2
    assert plan["facts"]["counts"] == {"train": [5, 4, 6], "val": [1, 1, 1]}
    assert plan["options"]["lr"] == RunFolder(run).read_options().lr
    assert "training images" not in plan["reasons"].get("epochs", "")  # it was asked for
    assert plan["reasons"]["lr"].endswith("(batch size 4)")


def test_evaluation_is_that_of_the_best_model(run: Path, data: Path) -> None:
    written = json.loads((run / "evaluation.json").read_text())
    assert (written["split"], written["images"]) == ("val", 3)
    best = convit.load(run)
    assert best.class_names == tuple(COUNTS)
    val = select(str(data), Evaluating(known=RunFolder(run).known())).splits["val"]
    result = evaluate(best.model, val, best.preprocess, temperature=best.temperature)
    assert result.confusion.tolist() == written["confusion"]
    assert result.loss == pytest.approx(written["loss"], rel=1e-5)
    assert best.calibration == calibrate(logits_of(best.model, val, best.preprocess).numpy(), val.targets)
    assert written["calibration"]["temperature"] == best.temperature != 1
    plain = evaluate(best.model, val, best.preprocess)
    assert written["calibration"]["before"]["nll"] == pytest.approx(plain.loss, rel=1e-5)


def test_what_a_run_gives_back(run: Path, data: Path, tmp_path: Path) -> None:
    got = train(options(data, tmp_path / "run"))
    assert isinstance(got, Run)
    assert (got.folder, got.split, got.evaluation.num_images) == (tmp_path / "run", "val", 3)
    assert got.best in metrics(tmp_path / "run")
    assert got.classifier.class_names == tuple(COUNTS)


@pytest.mark.parametrize("more", [{"workers": 2}, {}])
def test_same_seed_same_bits(more: dict[str, Any], run: Path, data: Path, tmp_path: Path) -> None:
    torch.rand(17)  # whatever else used the generator
    train(options(data, tmp_path / "run", **more))
    assert exact(tmp_path / "run") == exact(run)


def test_another_seed_is_another_run(run: Path, data: Path, tmp_path: Path) -> None:
    train(options(data, tmp_path / "run", seed=1))
    assert exact(tmp_path / "run")[0] != exact(run)[0]


@pytest.mark.parametrize(("last_loss", "best_epoch"), [(0.6, 2), (0.5, 2), (0.4, 3)])
def test_best_epoch_is_kept(
    last_loss: float, best_epoch: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The highest top-1; among equals the lowest loss; among those the first."""
    figures = iter([(20.0, 0.1), (60.0, 0.5), (60.0, last_loss)])

    def scripted(*args: Any, **kwargs: Any) -> Any:
        top1, loss = next(figures)
        return dataclasses.replace(evaluate(*args, **kwargs), top1=top1, loss=loss)

    monkeypatch.setattr(engine, "evaluate", scripted)
    train(options(data, tmp_path / "run", epochs=3))
    states = {path.name[:10]: path for path in (tmp_path / "run/checkpoints").iterdir()}
    kept = weights(tmp_path / "run")
    for epoch, best in (("epoch-0002", best_epoch == 2), ("epoch-0003", best_epoch == 3)):
        tensors = _model_of(states[epoch])
        assert all(torch.equal(tensors[name], kept[name]) for name in kept) == best
    assert f"The best epoch is {best_epoch} of" in (tmp_path / "run/log.txt").read_text()


def _model_of(state: Path) -> dict[str, torch.Tensor]:
    tensors = safetensors.torch.load_file(state / "tensors.safetensors")
    return {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}


class Listener:
    """Writes down what it hears of passes and epochs."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, PassBegan):
            self.heard.append([event.what, event.images, 0])
        elif isinstance(event, Advanced):
            self.heard[-1][2] += event.images
        elif isinstance(event, EpochEnded):
            self.heard.append([event.record["epoch"], event.epochs, 0])


def test_what_a_listener_hears(data: Path, tmp_path: Path) -> None:
    listener = Listener()
    train(options(data, tmp_path / "run", epochs=1, cache_gb=0), listener)  # copies of another test would be read
    assert listener.heard == [
        ["checking images", 18, 18],
        ["epoch 1/1", 12, 12],
        ["validation", 3, 3],
        [1, 1, 0],
        ["best model on the val images", 3, 3],
        ["best model on images it learned from", 15, 15],
    ]


def test_options_are_refused_before_the_images_are_decoded(data: Path, tmp_path: Path) -> None:
    listener = Listener()
    with pytest.raises(InputError, match="batch-size: got 40, expected at most the 15 training images"):
        train(options(data, tmp_path / "run", batch_size=40), listener)
    assert (listener.heard, (tmp_path / "run").exists()) == ([], False)


def test_official_test_split_is_for_the_end(tmp_path: Path) -> None:
    for split, count in (("train", 5), ("val", 2), ("test", 3)):
        photos(tmp_path / "data" / split, {"a": count, "b": count})
    train(options(tmp_path / "data", tmp_path / "run", epochs=1))
    written = json.loads((tmp_path / "run/evaluation.json").read_text())
    assert (written["split"], written["images"]) == ("test", 6)
    splits = json.loads((tmp_path / "run/split.json").read_text())
    assert {split: len(names) for split, names in splits.items()} == {"train": 10, "val": 4, "test": 6}


@pytest.fixture
def trainer(data: Path, tmp_path: Path) -> engine.Trainer:
    (tmp_path / "run").mkdir()
    return trainer_of(options(data, tmp_path / "run", mixup=0.0))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_loss_that_is_no_number_stops_before_the_update(trainer: engine.Trainer, value: float) -> None:
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.learner.objective.loss = lambda logits, target: logits.sum() * value
    with pytest.raises(
        InputError, match=r"loss: got (nan|-?inf) in epoch 1, step 1 \(images .*\), expected a number.* lower --lr"
    ):
        trainer.fit()
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))
    assert not trainer.learner.optimizer.state
    assert not trainer.folder.checkpoints.exists()


def test_rate_warms_up_and_falls(trainer: engine.Trainer) -> None:
    lr, steps = trainer.plan.options.lr, 2 * trainer.plan.steps_per_epoch
    rates = []
    for step in range(steps + 1):
        trainer.learner.scheduler.step_update(step)
        rates.append(trainer.learner.optimizer.param_groups[0]["lr"])
    warmup = round(trainer.plan.options.warmup_epochs * trainer.plan.steps_per_epoch)
    assert rates[warmup] == pytest.approx(lr, rel=0.1)
    assert rates[-1] == pytest.approx(1e-5)
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)


def test_one_run_at_a_time_in_a_process(data: Path, tmp_path: Path) -> None:
    """Two in two threads would take their random draws from one state."""
    refused: list[InputError] = []

    def meanwhile(event: Event) -> None:
        if isinstance(event, Advanced) and not refused:
            with ThreadPoolExecutor() as threads, pytest.raises(InputError, match="another thread") as caught:
                threads.submit(train, options(data, tmp_path / "second")).result()
            refused.append(caught.value)

    train(options(data, tmp_path / "first", epochs=1), meanwhile)
    assert refused
    assert not (tmp_path / "second").exists()
