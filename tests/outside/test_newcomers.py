"""What newcomers and testers ran into: each was a traceback, a silence or a word that led nowhere."""

from pathlib import Path

import pytest
from PIL import Image

from convit.errors import InputError
from convit.export_web import export_web
from convit.training.folds import train_folds
from tests.cli.command import Shell, photos
from tests.training.small import options, resume


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folds on ``data`` beside them; read only."""
    root = tmp_path_factory.mktemp("folds")
    photos(root / "data", {"ape": 5, "bee": 6})
    train_folds(options(root / "data", root / "run", folds=2, epochs=1))
    return root


def test_one_page_for_several_runs_is_refused(folds: Path, shell: Shell) -> None:
    for form in ("web", "space"):
        shell.refuses("export", folds / "run", "--format", form, says=(f"for --format {form}, such as", "fold-1"))
    import convit

    with pytest.raises(InputError, match="average of 2 runs"):
        export_web(convit.load(folds / "run"), folds / "page.html")


def test_a_forecast_of_several_runs_names_one_of_them(folds: Path, shell: Shell) -> None:
    shell.refuses("forecast", folds / "run", says=("to forecast from, such as", "fold-1"))


def test_folds_are_not_combined_on_other_images(folds: Path, tmp_path: Path) -> None:
    """All folds are trained, the process is killed before it combines them, and an image is replaced."""
    fresh = tmp_path / "fresh"
    photos(fresh / "data", {"ape": 5, "bee": 6})
    train_folds(options(fresh / "data", fresh / "run", folds=2, epochs=1))
    for name in ("folds.json", "out-of-fold.csv"):
        (fresh / "run" / name).unlink()
    Image.new("RGB", (8, 8)).save(fresh / "data/ape/2.png")
    with pytest.raises(InputError, match=r"'ape/2\.png' is another image"):
        train_folds(resume(fresh / "run"))
    assert not (fresh / "run/out-of-fold.csv").exists()


def test_thresholds_of_a_mean_are_refused_with_its_reason(folds: Path, shell: Shell) -> None:
    says = ("a mean of several runs or views has none of its own", "expected one run")
    shell.refuses("predict", folds / "run", folds / "data/ape", "--reject", 0.1, says=says)


def test_check_says_what_training_refuses(tmp_path: Path, shell: Shell) -> None:
    data = photos(tmp_path / "data", {"ape": 4, "bee": 4})
    (data / "cow").mkdir()
    got = shell("check", data, "--out", tmp_path / "out")
    assert "no image in class 'cow'" in got.err
    one = photos(tmp_path / "one", {"ape": 4})
    assert "one class alone: training needs two" in shell("check", one, "--out", tmp_path / "out-1").err


def test_what_was_found_is_said_though_no_list_is_left(tmp_path: Path, shell: Shell) -> None:
    data = photos(tmp_path / "data", {"ape": 3, "bee": 3})
    for path in data.rglob("*.png"):
        path.write_bytes(b"no picture")
    got = shell("check", data, "--out", tmp_path / "out", "--write", tmp_path / "clean.csv")
    assert got.status == 2
    assert "0 classes to learn from are left" in got.err
    assert "unreadable" in got.out
    assert (tmp_path / "out/check.json").is_file()
    assert not (tmp_path / "clean.csv").exists()


def test_folds_of_classes_with_one_image(tmp_path: Path, shell: Shell) -> None:
    data = photos(tmp_path / "data", {"ape": 1, "bee": 4})
    says = ("folds: got 2", "at least 2 images of each class", "'ape'")
    shell.refuses("train", data, "--folds", 2, "--out", tmp_path / "run", says=says)


@pytest.mark.parametrize("license", ["mit\nfoo: bar", "", "MIT License"])
def test_a_licence_is_a_name(license: str, folds: Path, tmp_path: Path, shell: Shell) -> None:
    words = ("export", folds / "run/fold-1", "--format", "space", "--out", tmp_path / "space")
    shell.refuses(*words, "--license", license, says=("license: got", "such as mit"))
