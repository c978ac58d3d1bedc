"""The tables, by hand from made-up results; the pictures have what they should."""

import json
from pathlib import Path
from typing import Any

import pytest

from convit.experiments.results import Result
from convit.experiments.run import report_of
from convit.experiments.settings import Settings
from convit.experiments.studies import STUDIES
from convit.experiments.studies.masking import NO_POSITION_EMBEDDING
from convit.experiments.study import Report
from tests.experiments.made import made

HISTORY = [
    {"epoch": epoch, "val_top1": 10.0 * epoch, "gates": [[0.5, 0.7]], "non_locality": [[1.0, 2.0], [3.0, 3.0]]}
    for epoch in (1, 2, 3)
]


def report(name: str, results: list[Result], **options: Any) -> Report:
    options = {"models": ("m",), "fractions": (1.0,), "seeds": (0,), **options}
    return report_of(STUDIES[name], Settings(name=name, data="d", **options), results)


def rows(table: str) -> list[list[str]]:
    """The cells of a table in Markdown, without its head."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]


def test_sample_efficiency() -> None:
    tops = {(0.1, "convit"): (50.0, 54.0), (0.1, "twin"): (40.0, 40.0), (1.0, "convit"): (90.0, 92.0)}
    tops[1.0, "twin"] = (91.0, 91.0)
    results = [
        made(variant, seed, top1, labels={"fraction": fraction}, history=HISTORY)
        for (fraction, variant), values in tops.items()
        for seed, top1 in enumerate(values)
    ]
    got = report("sample-efficiency", results, fractions=(1.0, 0.1), seeds=(0, 1))
    (table,) = got.tables
    assert rows(table) == [
        ["10%", "52.0 ± 2.0", "40.0 ± 0.0", "+12.0 ± 2.0", "100.0 ± 0.0", "100.0 ± 0.0", "59.6", "48.0"],
        ["100%", "91.0 ± 1.0", "91.0 ± 0.0", "+0.0 ± 1.0", "100.0 ± 0.0", "100.0 ± 0.0", "81.4", "79.9"],
    ]
    assert got.figures.keys() == {"accuracy", "curves"}
    left, right = got.figures["accuracy"].axes
    assert next(line.get_ydata().tolist() for line in left.lines if len(line.get_xdata()) == 2) == [52.0, 91.0]
    gains = next(line for line in right.lines if len(line.get_xdata()) == 2).get_ydata()
    assert gains.tolist() == pytest.approx([30.0, 0.0])  # 25% and 35% of 40; -1.1% and +1.1%
    curve = got.figures["curves"].axes[0].lines[0]
    assert curve.get_xdata().tolist() == pytest.approx([0.1, 0.2, 0.3])  # epochs of all the data


def test_fraction_that_the_paper_has_not() -> None:
    results = [made(variant, 0, 50.0, labels={"fraction": 0.2}, history=HISTORY) for variant in ("convit", "twin")]
    (table,) = report("sample-efficiency", results, fractions=(0.2,)).tables
    assert rows(table) == [["20%", "50.0", "50.0", "+0.0", "100.0", "100.0", "", ""]]


def test_ablation() -> None:
    results = [made(row, 0, top1, history=HISTORY) for row, top1 in (("a", 90.0), ("f", 80.0), ("psa", 85.0))]
    got = report("ablation", results, rows=("a", "f", "psa"))
    assert rows(got.tables[0]) == [
        ["a: ConViT", "yes", "yes", "yes", "yes", "90.0", "82.2"],
        ["f: GPSA frozen", "no", "yes", "no", "yes", "80.0", "78.6"],
        ["ungated PSA", "none", "yes", "yes", "ungated", "85.0", ""],
    ]
    assert got.figures.keys() == {"curves", "gating"}
    assert len(got.figures["curves"].axes[0].lines) == 2
    assert len(got.figures["gating"].axes[0].lines) == 2


def test_design() -> None:
    tops = {"as-it-is": (50.0, 54.0), "twin": (47.0, 49.0), "heads-4": (52.0, 52.0)}
    results = [made(row, seed, top1, split="val") for row, values in tops.items() for seed, top1 in enumerate(values)]
    got = report("design", results, rows=tuple(tops), seeds=(0, 1), fractions=(1.0,))
    (table,) = got.tables
    assert rows(table) == [
        ["as-it-is: as it is", "52.0 ± 2.0", ""],
        ["twin: plain attention in every block", "48.0 ± 1.0", "-4.0 ± 1.0"],
        ["heads-4: 4 heads (a 2 x 2 kernel)", "52.0 ± 0.0", "+0.0 ± 2.0"],
    ]
    (axes,) = got.figures["differences"].axes
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "4 heads (a 2 x 2 kernel)",
        "plain attention in every block",
    ]


def test_small_data() -> None:
    history = [{"epoch": e, "val_top1": 10.0 * e, "seconds": 30.0} for e in (1, 2, 3)]
    tops = {"convit": (50.0, 54.0), "cnn": (53.0, 55.0)}
    results = [
        made(row, seed, top1, labels={"rate": 1.0, "fraction": fraction}, history=history)
        for fraction in (1.0, 0.1)
        for row, values in tops.items()
        for seed, top1 in enumerate(values)
    ]
    got = report("small-data", results, rows=tuple(tops), rates=(1.0,), seeds=(0, 1), fractions=(1.0, 0.1))
    assert [table.split("|")[1].strip() for table in got.tables] == ["10% of each class", "100% of each class"]
    assert rows(got.tables[0]) == [
        ["ConViT", "1.25M", "0.040G", "24,000", "1.50 ± 0.00", "52.0 ± 2.0", ""],
        ["small CNN", "1.25M", "0.040G", "24,000", "1.50 ± 0.00", "54.0 ± 1.0", "+2.0 ± 1.0"],
    ]
    assert got.figures.keys() == {"minutes", "accuracy"}
    assert got.figures["minutes"].axes[0].lines[0].get_xdata().tolist() == [0.5, 1.0, 1.5]


def test_rates_of_small_data() -> None:
    results = [
        made(row, 0, top1, labels={"rate": rate}, split="val")
        for row, tops in {"convit": (50.0, 54.0, 53.0), "cnn": (40.0, 43.0, 49.0)}.items()
        for rate, top1 in zip((0.5, 1.0, 2.0), tops, strict=True)
    ]
    table, legend = report("small-data", results, rows=("convit", "cnn"), rates=(0.5, 1.0, 2.0)).tables
    assert [row[-3:] for row in rows(table)] == [["49.0", "**53.0**", "52.0"], ["39.0", "42.0", "**48.0**"]]
    assert "validation images" in legend


def test_locality() -> None:
    results = [
        made("twin", 0, 70.0, labels={"layers": 0}),
        made("convit", 0, 80.0, labels={"layers": 3, "strength": 1.0}),
        made("convit", 0, 75.0, labels={"layers": 3, "strength": 0.1}),
    ]
    got = report("locality", results, strengths=(1.0, 0.1), layers=(3, 0))
    assert rows(got.tables[0]) == [["0", "70.0", "70.0"], ["3", "75.0", "80.0"]]
    assert got.figures.keys() == {"locality"}


def test_masking() -> None:
    off = {NO_POSITION_EMBEDDING: 60.0, "no content in 3": 50.0, "no position in 3": 55.0}
    results = [made("twin", 0, 70.0, measured={NO_POSITION_EMBEDDING: 20.0}), made("convit", 0, 80.0, measured=off)]
    first, second = report("masking", results, layers=(3,)).tables
    assert rows(first) == [
        ["plain attention", "70.0", "20.0", "72.2", "38.3"],
        ["ConViT", "80.0", "60.0", "73.1", "67.1"],
    ]
    assert rows(second) == [["none", "80.0", "80.0", "73.1", "73.1"], ["first 3", "50.0", "55.0", "62.3", "63.5"]]


def test_dynamics() -> None:
    twin = [record | {"gates": []} for record in HISTORY]
    other = [record | {"non_locality": [[1.0, 2.2], [3.0, 3.0]]} for record in twin]
    results = [
        *(made("convit", seed, 80.0, history=HISTORY) for seed in (0, 1)),
        *(made("twin", seed, 70.0, history=history) for seed, history in enumerate((twin, other))),
    ]
    got = report("dynamics", results, seeds=(0, 1))
    same, off = "1.50 ± 0.00", "1.55 ± 0.05"  # 1.5 and 1.6: half of their difference
    assert rows(got.tables[0]) == [
        ["1", same, same, off, off, *["0.60 ± 0.00"] * 2],
        ["2", *["3.00 ± 0.00"] * 4, "", ""],
    ]
    assert got.figures.keys() == {"non_locality_convit", "non_locality_twin", "gates"}


def test_distillation() -> None:
    tops = {"twin": 70.0, "twin_distilled": 76.0, "convit": 80.0, "convit_distilled": 79.0}
    model = "convit_small_plus_patch16_224"
    results = [made(variant, 0, top1, labels={"model": model}, history=HISTORY) for variant, top1 in tops.items()]
    got = report("distillation", results, models=(model,), teacher="resnet18")
    assert rows(got.tables[0]) == [
        ["plain attention", "70.0", "76.0", "+6.0", "", ""],
        ["ConViT", "80.0", "79.0", "-1.0", "82.2", "82.9"],
    ]
    assert got.figures.keys() == {"non_locality_convit", "non_locality_convit_distilled"}


def test_models(tmp_path: Path) -> None:
    model = "convit_small_plus_patch16_224"
    (tmp_path / "speed.json").write_text(json.dumps({model: {"convit": 900.0, "twin": 1200.4}}))
    results = [
        made(variant, 0, top1, labels={"model": model}, folder=tmp_path / "runs" / variant)
        for variant, top1 in (("twin", 70.0), ("convit", 80.0))
    ]
    (table,) = report("models", results, models=(model,)).tables
    assert rows(table) == [
        ["small_plus_patch16_224, plain attention", "1.25M", "0.04G", "1,200", "70.0", "100.0", "79.0"],
        ["small_plus_patch16_224, ConViT", "1.25M", "0.04G", "900", "80.0", "100.0", "82.2"],
    ]


def test_several_models_have_a_table_and_pictures_each() -> None:
    results = [
        made(variant, 0, 50.0, labels={"model": model}, history=HISTORY)
        for model in ("convit_m", "convit_n")
        for variant in ("convit", "twin")
    ]
    got = report("sample-efficiency", results, models=("convit_m", "convit_n"))
    assert [table.splitlines()[0] for table in got.tables] == ["**convit_m**", "**convit_n**"]
    assert got.figures.keys() == {"accuracy-m", "curves-m", "accuracy-n", "curves-n"}
