"""Which runs an experiment makes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from convit.errors import InputError
from convit.experiments.results import Cell
from convit.experiments.settings import Settings
from convit.experiments.settle import settle
from convit.experiments.studies import STUDIES, ablation, design
from convit.options import options_of
from convit.training.options import Asked
from tests.experiments.made import MICRO


def settled(name: str, data: str = "digits", **options: Any) -> Settings:
    return settle(Settings(**{"name": name, "data": data, **options}))


def cells(name: str, **options: Any) -> list[Cell]:
    teacher = {"teacher": "resnet18"} if name == "distillation" else {}
    return STUDIES[name].cells(settled(name, models=(MICRO,), **{**teacher, **options}))


def differing(one: Asked, other: Asked) -> set[str]:
    """The options that two runs do not share."""
    return {o.name for o in options_of(Asked) if getattr(one, o.name) != getattr(other, o.name)}


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
        ("design", 19 * 2),
        ("small-data", 3 * 5 * 2),
    ],
)
def test_grid_on_the_digits(name: str, runs: int) -> None:
    made = cells(name)
    assert len(made) == runs
    assert len({cell.name for cell in made}) == runs


def test_other_data_has_the_axes_and_the_recipes_length() -> None:
    settings = settled("sample-efficiency", "is-not-opened", models=(MICRO,))
    assert (settings.fractions, settings.seeds) == ((0.1, 0.3, 1.0), (0, 1))
    assert (settings.epochs, settings.batch_size) == (None, None)


def test_the_model_is_that_of_convit_train() -> None:
    assert settled("dynamics").models == ("convit_mini_patch4_16",)


def test_each_fraction_shows_as_many_images() -> None:
    made = cells("sample-efficiency", fractions=(0.05, 0.3, 1.0), epochs=10, seeds=(0,))
    assert {(cell.asked.fraction, cell.asked.epochs) for cell in made} == {(0.05, 200), (0.3, 33), (None, 10)}
    part = cells("sample-efficiency", fractions=(0.1, 1.0), epochs=0.4, seeds=(0,))
    assert {(cell.asked.fraction, cell.asked.epochs) for cell in part} == {(0.1, 4), (None, 1)}  # one at least


VARIED = {
    "sample-efficiency": {"local_up_to_layer"},
    "ablation": {"local_up_to_layer", "ungated", "random_init", "freeze_gates", "freeze_gpsa"},
    "locality": {"local_up_to_layer", "locality_strength"},
    "masking": {"local_up_to_layer"},
    "dynamics": {"local_up_to_layer"},
    "distillation": {"local_up_to_layer", "teacher"},
    "models": {"local_up_to_layer"},
}
"""By experiment of the paper: all that its runs of one seed and fraction differ in."""


@pytest.mark.parametrize("name", VARIED)
def test_variants_of_a_seed_differ_in_the_model_alone(name: str) -> None:
    for seed in settled(name, models=(MICRO,), **({"teacher": "resnet18"} if name == "distillation" else {})).seeds:
        for fraction in {cell.asked.fraction for cell in cells(name)}:
            made = [c.asked for c in cells(name) if c.asked.seed == seed and c.asked.fraction == fraction]
            assert set().union(*(differing(made[0], other) for other in made)) == VARIED[name]


def test_rows_of_table_3_are_named() -> None:
    assert [cell.labels["variant"] for cell in cells("ablation", seeds=(0,))] == [*"abcdefg", "psa"]
    assert list(ablation.ROWS) == [*"abcdefg", "psa"]


def test_half_of_the_runs_have_the_teacher() -> None:
    made = {str(cell.labels["variant"]): cell.asked for cell in cells("distillation", seeds=(0,))}
    assert list(made) == ["twin", "twin_distilled", "convit", "convit_distilled"]
    assert [asked.teacher for asked in made.values()] == [None, "resnet18"] * 2
    assert differing(made["convit"], made["convit_distilled"]) == {"teacher"}
    weights = Path("runs/teacher")
    *_, last = cells("distillation", seeds=(0,), teacher=None, teacher_weights=weights)
    assert last.asked.teacher_weights == weights


def test_rows_of_the_search_differ_from_the_base_in_what_they_say() -> None:
    base, *others = cells("design", seeds=(0,))
    assert (base.labels["variant"], base.asked.skip_test, base.asked.fraction) == ("as-it-is", True, 0.1)
    for other in others:
        changes = design.ROWS[str(other.labels["variant"])].changes
        assert replace(base.asked, **changes) == other.asked
        assert changes


def test_models_of_equal_minutes_differ_in_the_model() -> None:
    made = cells("small-data", seeds=(0,), fractions=(1.0,), rows=("convit", "twin", "cnn", "cnn-24"))
    assert [cell.rival for cell in made] == [None, None, "cnn", "cnn-24"]
    convit, twin, *others = (cell.asked for cell in made)
    assert differing(convit, twin) == {"local_up_to_layer"}
    assert all(other == convit for other in others)
    assert not convit.skip_test


def test_a_search_of_rates_never_reads_the_test_split() -> None:
    made = cells("small-data", seeds=(0,), fractions=(0.1,), rows=("convit", "cct"), rates=(0.5, 1.0))
    assert [cell.name.removeprefix("micro_patch4_16-") for cell in made] == [
        "convit-fraction_0.1-rate_0.5-seed_0",
        "convit-fraction_0.1-seed_0",
        "cct-fraction_0.1-rate_0.5-seed_0",
        "cct-fraction_0.1-seed_0",
    ]
    assert all(cell.asked.skip_test for cell in made)


def test_the_search_is_not_the_papers() -> None:
    with pytest.raises(InputError, match="preset: got paper for design, expected none"):
        settled("design", preset="paper")
    with pytest.raises(InputError, match="rows: got twin, expected as-it-is too"):
        settled("design", rows=("twin",))
    with pytest.raises(InputError, match="rows: got psa, expected some of as-it-is, twin, "):
        settled("design", rows=("psa",))


@pytest.mark.parametrize("name", VARIED)
def test_paper_preset(name: str) -> None:
    settings = settled(name, "imagenet-is-not-opened", preset="paper")
    assert (settings.recipe, settings.epochs) == ("paper", 300)
    assert settings.batch_size is None  # the recipe's 1024, or 512 for plus models
    assert all(model.endswith("_patch16_224") for model in settings.models)
    assert STUDIES[name].cells(settings)


def test_paper_grids() -> None:
    assert settled("sample-efficiency", preset="paper").fractions == (0.05, 0.1, 0.3, 0.5, 1.0)
    assert settled("locality", preset="paper").layers == (0, 3, 6, 9)
    assert settled("masking", preset="paper").layers == (3, 5, 10)
    assert settled("ablation", preset="paper", seeds=(4,), epochs=2).seeds == (4,)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("ablation", {"strengths": (1.0,)}, "strengths: got it for ablation, expected --fractions, --rows"),
        ("ablation", {"rates": (0.5,)}, "rates: got it for ablation, expected --fractions, --rows"),
        ("small-data", {"rates": (0.5, 0.5)}, "rates: got 0.5 0.5, expected each once"),
        ("small-data", {"rows": ("cnn",)}, "rows: got cnn, expected convit too, to compare with"),
        ("small-data", {"rows": ("convit", "vit")}, "rows: got vit, expected some of convit, twin, cnn, "),
        ("models", {"fractions": (0.1,)}, "fractions: got it for models, expected none of these"),
        ("models", {"teacher_weights": Path("x")}, "teacher-weights: got it for models"),
        ("ablation", {"rows": ("a", "z")}, "rows: got z, expected some of a, b"),
        ("ablation", {"seeds": (1, 1)}, "seeds: got 1 1, expected each once"),
        ("sample-efficiency", {"fractions": (0.0,)}, "fractions: got 0"),
        ("sample-efficiency", {"epochs": 0}, "epochs: got 0, expected a number"),
        ("sample-efficiency", {"image_size": (1, 2, 3)}, "image-size: got 1 2 3"),
        ("locality", {"layers": (0, 4)}, "layers: got 4, expected 0 to 3"),
        ("masking", {"layers": (0, 1)}, "layers: got 0, expected 1 to 3"),
        ("distillation", {}, "teacher: got none for distillation, expected --teacher NAME"),
        ("models", {"models": ("convit_tin",)}, "model: got 'convit_tin'"),
        ("models", {"models": (), "data": "nowhere"}, "'nowhere': no such folder"),
        ("ablaton", {}, "name: got ablaton"),
    ],
)
def test_refuses(name: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as error:
        settled(name, **{"models": (MICRO,), **options})
    assert str(error.value).startswith(says)
