"""Runs that an earlier version began go on."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from convit.errors import InputError
from convit.train import Stopped, train
from convit.train.legacy import as_it_was
from convit.train.run_folder import RunFolder
from tests.train.small import exact, newest_state, options, photos
from tests.train.test_resume import StopAt

pytestmark = pytest.mark.usefixtures("empty_pictures")

# By version, newest first: the options that its config.yaml did not have.
NEWER = {
    "before a rate for gates": {
        "model": ["heads", "stem", "norm", "pool", "position_embedding", "gate_start", "weight_start"],
        "optim": ["position_lr"],
    },
    "before the recipe of the paper": {
        "source": ["balanced_sampling"],
        "model": ["crop_pct"],
        "optim": ["accumulate", "warmup_lr", "ema_decay", "ema_warmup", "class_weights", "patience", "channels_last",
                  "compile"],
        "augment": ["repeated_augmentation"],
        "run": ["save_minutes"],
    },
    "before recipes": {
        "source": ["balanced_sampling", "fraction", "per_class", "classes"],
        "model": ["crop_pct", "pretrained", "weights", "freeze"],
        "optim": ["accumulate", "warmup_lr", "ema_decay", "ema_warmup", "class_weights", "patience", "channels_last",
                  "compile", "recipe", "layer_decay"],
        "augment": ["repeated_augmentation"],
        "run": ["save_minutes"],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photos(tmp_path_factory.mktemp("data") / "two", {"dark": 6, "light": 6})


@pytest.fixture(scope="module", params=[{}, {"clip_grad": 0.0}], ids=["clipped", "unclipped"])
def whole(request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(options(data, out, **request.param))
    return out, request.param


def age(run: Path, version: str) -> None:
    """Makes ``config.yaml`` and the state what that version wrote."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    for group, names in NEWER[version].items():
        for name in names:
            del config[group][name]
    if "ema_decay" in NEWER[version]["optim"] and config["optim"]["clip_grad"] == 0:
        config["optim"]["clip_grad"] = None  # it said so then
    (run / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


@pytest.mark.parametrize("version", NEWER)
@pytest.mark.parametrize("given", [True, False], ids=["same options", "all left out"])
def test_goes_on_to_the_same_bits(
    version: str, given: bool, data: Path, whole: tuple[Path, Any], tmp_path: Path
) -> None:
    out, more = tmp_path / "run", whole[1]
    with pytest.raises(Stopped):
        train(options(data, out, **more), StopAt("epoch 2/2", 1))
    age(out, version)
    then, now = (RunFolder(run).read_config() for run in (out, whole[0]))
    assert (then.model, then.optim, then.augment, then.source) == (now.model, now.optim, now.augment, now.source)
    left_out = {"epochs": None, "batch_size": None, "model": None, "image_size": None, "patch_size": None}
    train(options(data, out, resume=True, **(more if given else left_out)))
    assert exact(out) == exact(whole[0])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"ema_decay": 0.9}, "its ema-decay is 0.0, got 0.9"),
        ({"recipe": "paper"}, "its recipe is small, got paper"),
        ({"accumulate": 2}, "its accumulate is 1, got 2"),
        ({"crop_pct": 0.5}, "its crop-pct is 1.0, got 0.5"),
        ({"warmup_lr": 0.0}, r"its warmup-lr is [\d.e-]+, got 0.0"),
        ({"compile": True}, "its compile is False, got True"),
    ],
)
def test_newer_options_are_refused(more: dict[str, Any], message: str, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        train(options(data, out), StopAt("epoch 2/2", 1))
    age(out, "before recipes")
    state = newest_state(out).name
    with pytest.raises(InputError, match=f"{message}; expected the run's own to resume it"):
        train(options(data, out, resume=True, **more))
    assert newest_state(out).name == state


def test_locality_strength_beside_weights(data: Path, whole: tuple[Path, Any], tmp_path: Path) -> None:
    """It was written down, and had no effect: today it is refused, yet such a run goes on."""
    out = tmp_path / "run"
    given = {"weights": whole[0], "image_size": None, "patch_size": None, "model": None, "epochs": 1}
    train(options(data, out, **given))
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["model"]["locality_strength"] is None
    config["model"]["locality_strength"] = 2.0
    (out / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    before = exact(out)
    train(options(data, out, **given, resume=True))
    assert exact(out) == before
    with pytest.raises(InputError, match="locality-strength: got it with --pretrained or --weights"):
        options(data, out, **given, locality_strength=3.0)


def test_crop_is_that_of_the_model(data: Path, whole: tuple[Path, Any], tmp_path: Path) -> None:
    """Fine-tuning took it from the weights, and ``config.yaml`` did not tell."""
    run = Path(shutil.copytree(whole[0], tmp_path / "run"))
    age(run, "before recipes")
    assert RunFolder(run).read_config().model.crop_pct == 1.0
    text = (run / "config.json").read_text()
    (run / "config.json").write_text(text.replace('"crop_pct": 1.0', '"crop_pct": 0.9'))
    assert RunFolder(run).read_config().model.crop_pct == 0.9


@pytest.mark.parametrize("values", [None, [], {}, {"optim": 3}, {"model": {}, "optim": {}, "augment": {}}])
def test_what_is_no_run_is_left_as_it_is(values: Any) -> None:
    assert as_it_was(values, 1.0) == values


def test_a_run_of_today_is_left_as_it_is(whole: tuple[Path, Any]) -> None:
    values = yaml.safe_load((whole[0] / "config.yaml").read_text())
    assert as_it_was(values, 0.5) == values
