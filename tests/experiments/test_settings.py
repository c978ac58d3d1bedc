"""Which runs an experiment makes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from convit.errors import InputError
from convit.experiments import STUDIES, Cell, settle, small_data
from convit.experiments.variants import TABLE_3

MICRO = ("convit_micro_patch4_16",)


def cells(name: str, **given: Any) -> list[Cell]:
    teacher = {"teacher": "resnet18"} if name == "distillation" else {}
    given = {**teacher, **given}
    return STUDIES[name].cells(settle(name, "digits", {"models": MICRO, **given}))


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("sample-efficiency", 3 * 2 * 2),  # fractions, models, seeds
        ("ablation", 8 * 2),
        ("locality", (1 + 3 * 3) * 2),  # one of plain attention, 3 numbers of layers with 3 strengths
        ("masking", 2 * 3),
        ("dynamics", 2),
        ("distillation", 2 * 2 * 3),
        ("models", 2 * 3),
    ],
)
def test_grid_on_the_digits(name: str, runs: int) -> None:
    made = cells(name)
    assert len(made) == runs
    assert len({cell.name for cell in made}) == runs
    assert all(Cell.from_dict(cell.to_dict()) == replace(cell, labels=dict(cell.labels)) for cell in made)


def test_each_fraction_shows_as_many_images() -> None:
    made = cells("sample-efficiency", fractions=(0.05, 0.3, 1.0), epochs=10, seeds=(0,))
    assert {(cell.config.source.fraction, cell.config.optim.epochs) for cell in made} == {
        *((0.05, 200), (0.3, 33), (None, 10))
    }


OF_THE_PAPER = [name for name in STUDIES if STUDIES[name].paper is not None]


@pytest.mark.parametrize("name", OF_THE_PAPER)
def test_variants_of_a_seed_differ_in_the_model_alone(name: str) -> None:
    for cell in cells(name):
        like = [other for other in cells(name) if other.seed == cell.seed]
        for other in like:
            if other.labels["fraction"] == cell.labels["fraction"]:
                same = {"model": cell.config.model, "distill": cell.config.distill}
                assert replace(other.config, **same) == cell.config


def test_rows_of_table_3_are_named() -> None:
    assert [cell.labels["variant"] for cell in cells("ablation", seeds=(0,))] == [*TABLE_3, "psa"]


def test_half_of_the_runs_have_the_teacher() -> None:
    made = {str(cell.labels["variant"]): cell.config for cell in cells("distillation", seeds=(0,))}
    assert list(made) == ["twin", "twin_distilled", "convit", "convit_distilled"]
    assert [config.distill.teacher for config in made.values()] == [None, "resnet18"] * 2
    assert replace(made["convit_distilled"], distill=made["convit"].distill) == made["convit"]


def test_other_weights_of_the_teacher_are_other_settings(tmp_path: Path) -> None:
    def shared(content: bytes) -> Any:
        (tmp_path / "model.safetensors").write_bytes(content)
        return settle("distillation", "digits", {"models": MICRO, "teacher_weights": tmp_path}).shared()

    assert shared(b"a") == shared(b"a") != shared(b"b")


def test_rows_of_the_search_differ_from_the_base_in_one_thing() -> None:
    base, *others = cells("small-data", seeds=(0,))
    assert (base.labels["variant"], base.config.source.skip_test, base.config.source.fraction) == (
        "as-it-is",
        True,
        0.1,
    )
    kinds = ("changes", "optim", "augment")
    for other in others:
        assert replace(other.config, model=base.config.model, optim=base.config.optim, augment=base.config.augment) == (
            base.config
        )
        row = small_data.ROWS[str(other.labels["variant"])]
        (kind,) = [kind for kind in kinds if getattr(row, kind)]
        group = getattr(other.config, {"changes": "model"}.get(kind, kind))
        for name, value in getattr(row, kind).items():
            assert getattr(group, name) == value


def test_the_search_is_not_the_papers() -> None:
    with pytest.raises(InputError, match="preset: got paper for small-data, expected none"):
        settle("small-data", "digits", {}, preset="paper")
    with pytest.raises(InputError, match="rows: got twin, expected as-it-is too"):
        settle("small-data", "digits", {"rows": ("twin",)})
    with pytest.raises(InputError, match="rows: got psa, expected some of as-it-is, twin, "):
        settle("small-data", "digits", {"rows": ("psa",)})


@pytest.mark.parametrize("name", OF_THE_PAPER)
def test_paper_preset(name: str) -> None:
    settings = settle(name, "imagenet-is-not-opened", {}, preset="paper")
    assert (settings.recipe, settings.epochs) == ("paper", 300)
    assert settings.batch_size is None  # the recipe's 1024, or 512 for plus models
    assert all(model.endswith("_patch16_224") for model in settings.models)
    assert STUDIES[name].cells(settings)


def test_paper_grids() -> None:
    assert settle("sample-efficiency", "x", {}, preset="paper").fractions == (0.05, 0.1, 0.3, 0.5, 1.0)
    assert settle("locality", "x", {}, preset="paper").layers == (0, 3, 6, 9)
    assert settle("masking", "x", {}, preset="paper").layers == (3, 5, 10)


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("ablation", {"strengths": (1.0,)}, "strengths: got it for ablation, expected --fractions, --rows"),
        ("models", {"fractions": (0.1,)}, "fractions: got it for models, expected none of these"),
        ("ablation", {"rows": ("a", "z")}, "rows: got z, expected some of a, b"),
        ("ablation", {"rows": ()}, "rows: got nothing"),
        ("ablation", {"seeds": ()}, "seeds: got nothing"),
        ("ablation", {"seeds": (1, 1)}, "seeds: got 1 1, expected each once"),
        ("sample-efficiency", {"fractions": (0.0,)}, "fractions: got 0, expected 1e-06 to 1"),
        ("sample-efficiency", {"epochs": 0}, "epochs: got 0, expected at least 1"),
        ("locality", {"layers": (0, 4)}, "layers: got 4, expected 0 to 3"),
        ("masking", {"layers": (0, 1)}, "layers: got 0, expected 1 to 3"),
        ("distillation", {}, "teacher: got none for distillation, expected --teacher NAME"),
        ("models", {"teacher_weights": Path("x")}, "teacher-weights: got it for models"),
        ("models", {"models": ("convit_tin",)}, "model: got 'convit_tin'"),
    ],
)
def test_refuses(name: str, given: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as error:
        settle(name, "digits", {"models": MICRO, **given})
    assert str(error.value).startswith(says)
