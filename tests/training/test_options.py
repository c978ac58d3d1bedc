"""What can be asked of a run."""

from pathlib import Path

import pytest

from convit.errors import InputError
from convit.options import make, options_of
from convit.options_file import read_yaml, to_yaml
from convit.training.options import Asked
from convit.training.recipes import RECIPES


def test_every_option_is_documented_and_grouped() -> None:
    groups = []
    for option in options_of(Asked):
        assert len(option.text) > 10, f"{option.name} without a text"
        groups.append(option.group.partition(":")[0])
    assert list(dict.fromkeys(groups)) == ["Data", "Model", "Weights", "Training", "Augmentation", "Run"]
    assert options_of(Asked)[0].name == "data"


def test_an_open_option_says_what_is_decided() -> None:
    assert not [option.name for option in options_of(Asked) if option.default is None and "[" not in option.text[-120:]
                and option.name not in ("data", "resume")]  # fmt: skip


def full() -> Asked:
    """Every kind of value."""
    values = {"data": "bilder/ä $x", "image_size": (32, 48), "fraction": 0.5, "lr": 1e-5, "out": "runs/x"}
    return make(Asked, {**values, "flip": False, "rand_augment": "", "skip_bad": True, "classes": 3, "recipe": "paper"})


@pytest.mark.parametrize("asked", [Asked(data="digits"), full()])
def test_round_trip_through_yaml(asked: Asked, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(to_yaml(asked), encoding="utf-8")
    assert make(Asked, read_yaml(tmp_path / "c.yaml")) == asked


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("val_fraction", [0.01, 0.9], [0.0, 0.91, float("nan")]),
        ("fraction", [0.001, 1.0], [0.0, 1.1]),
        ("classes", [2], [1]),
        ("workers", [0], [-1]),
        ("image_size", [(1,), (8, 9)], [(), (0,), (8, -8), (8, 8, 8)]),
        ("drop_path", [0.0, 0.9], [-0.1, 0.91]),
        ("local_up_to_layer", [0, 12], [-1]),
        ("batch_size", [2, 64], [0, 1, 3, 63]),
        ("lr", [1e-9], [0.0, -1e-3, float("nan"), float("inf")]),
        ("clip_grad", [0.0, 1e-9], [-1.0, float("inf")]),
        ("ema_decay", [0.0, 0.9998], [-0.1, 1.0]),
        ("warmup_epochs", [0.0], [-1.0, float("inf")]),
        ("gate_init", [-20.0, 20.0], [21.0]),
        ("seed", [0, 2**62], [-1, 10**25]),
        ("save_minutes", [0.1], [0.0]),
    ],
)
def test_ranges(name: str, good: list[object], bad: list[object]) -> None:
    for value in good:
        assert getattr(make(Asked, {name: value}), name) == value
    for value in bad:
        with pytest.raises(InputError, match=f"^{name.replace('_', '-')}: got .*, expected "):
            make(Asked, {name: value})


def test_a_recipe_can_decide_what_is_open_and_nothing_else() -> None:
    from tests.training.test_plan import facts

    open_ = {option.name for option in options_of(Asked) if option.default is None}
    for recipe in RECIPES.values():
        assert set(recipe(facts(20), Asked(data="d", model="m", image_size=(16,)))) < open_
