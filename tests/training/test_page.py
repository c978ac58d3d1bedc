"""``report.html``: whole, and harmless whatever classes and files are called."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from convit.errors import InputError
from convit.training.charts import Line, chart, ticks
from convit.training.page import REPORT, Report, page
from convit.training.plots import spared
from tests.helpers import Elements
from tests.training.made_report import class_folders, made_plan, made_report

pytestmark = pytest.mark.pictures

HOSTILE = ("<script>alert(1)<", '"onload="x', "a & b", "{{style}}", "猫", "\u202egnp.exe")
SOME = [[3, 1], [2, 4]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("data") / "animals", ("ape", "bee"))


def test_names_are_shown_as_they_are_and_do_nothing(tmp_path: Path) -> None:
    plan = made_plan(class_folders(tmp_path / "<b>animals", HOSTILE))
    document = page(made_report(plan, [[2 - (i == j) for j in range(6)] for i in range(6)]))
    found = Elements(document)
    assert "script" not in found.tags
    assert not [name for name, _ in found.attributes if name.startswith("on") or name == "style"]
    for name in HOSTILE[:-1]:
        assert name in found.text
    assert "\u202e" not in document  # it would turn the text around it
    assert found.tags.count("style") == 1


def test_it_needs_no_other_file(data: Path) -> None:
    document = page(made_report(made_plan(data), SOME))
    found = Elements(document)
    (policy,) = [value for _, value in found.attributes if value and value.startswith("default-src")]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert all(value and value.startswith("data:image/") for name, value in found.attributes if name == "src")
    links = [value for name, value in found.attributes if name == "href"]
    assert links == ["mistakes.csv"]
    assert not re.search(r"url\(|@import|http:|https:", document)
    assert str(data) not in document  # it may be sent on
    assert found.tags.count("img") == 3


def test_its_words_are_those_of_the_outcome(data: Path) -> None:
    report = made_report(made_plan(data), SOME)
    text = Elements(page(report)).text
    for finding in report.outcome.findings():
        assert finding.text in text
        assert finding.advice in text
    assert "convit predict runs/made PHOTO.jpg" in text


def test_many_classes_are_listed_by_pairs(tmp_path: Path) -> None:
    names = tuple(f"class {i:02}" for i in range(20))
    confusion = [[0] * 20 for _ in names]
    for i in range(20):
        confusion[i][i], confusion[i][(i + 1) % 20] = 5, i
    text = Elements(page(made_report(made_plan(class_folders(tmp_path / "many", names)), confusion))).text
    assert "class 00 ↔ class 19" in text
    assert "class 19" in text.split("least often")[1]


@pytest.mark.parametrize("losses", [(1.0,), (1.0, 0.5), tuple(1 + 1 / (i + 1) for i in range(1500))])
def test_any_number_of_epochs(losses: tuple[float, ...], data: Path) -> None:
    document = page(made_report(made_plan(data), SOME, losses=losses))
    assert "nan" not in document.lower().split("<main>")[1]
    assert len(document) < 400_000


def test_models_without_gates_and_without_mistakes(data: Path) -> None:
    text = Elements(page(made_report(made_plan(data), [[3, 0], [0, 4]], layers=0))).text
    assert "What its heads look by" not in text
    assert "Its mistakes" not in text


def gone(report: Report) -> Report:
    """A report whose images cannot be read any more."""

    class Gone:
        def read(self, index: int) -> None:
            raise InputError(f"image {index}: gone")

    return replace(report, images=Gone())  # type: ignore[arg-type]


def test_a_page_that_cannot_be_made_is_said(data: Path) -> None:
    said: list[str] = []
    with spared(REPORT, said.append):
        page(gone(made_report(made_plan(data), SOME)))
    assert "gone" in said[0]


def test_a_full_disk_is_not_passed_over() -> None:
    with pytest.raises(OSError, match="full"), spared(REPORT, print):
        raise OSError(28, "full")


# -- charts ------------------------------------------------------------------------------------------------------------


def test_points_are_where_they_belong() -> None:
    drawn = chart([Line(kind="blue", x=[1, 2, 3], y=[0.0, 50.0, 100.0])], about="a", limits=(0.0, 100.0))
    (path,) = re.findall(r'class="curve blue" d="M([^"]*)"', drawn)
    points = [tuple(map(float, point.split())) for point in path.split("L")]
    (x0, y0), (x1, y1), (x2, y2) = points[:3]
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert 0 < x0 < x2 < 360
    assert 0 < y2 < y0 < 220


def test_long_lines_keep_their_ends() -> None:
    drawn = chart([Line(kind="blue", x=range(1000), y=[0.0] * 999 + [1.0])], about="a", limits=(0.0, 1.0))
    (path,) = re.findall(r'class="curve blue" d="M([^"]*)"', drawn)
    points = path.split("L")
    assert len(points) <= 402
    assert points[0].split()[1] != points[-1].split()[1]


@pytest.mark.parametrize(("low", "high"), [(0.0, 1e-9), (0.0, 1e300), (-3.0, 5.0), (0.999, 1.001)])
def test_ticks_are_few_and_within(low: float, high: float) -> None:
    found = ticks(low, high, 5)
    assert 1 <= len(found) <= 5
    assert low <= found[0] <= found[-1] <= high


@pytest.mark.parametrize("high", [2, 3, 7, 10, 99, 1000])
def test_epochs_are_whole_numbers(high: int) -> None:
    found = ticks(1, high, 6, whole=True)
    assert all(value == int(value) for value in found)
    assert 1 <= len(found) <= 6
