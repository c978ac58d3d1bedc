"""Runs of several folds: who predicts what, exact resume, the average as one classifier, what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import convit
from convit.data.sampling import folds_of
from convit.errors import InputError
from convit.training.folds import Folds, read_out_of_fold, train_folds
from convit.training.options import Asked
from convit.training.stopping import Stopped
from tests.training.small import StopAt, options, photos, resume

COUNTS = {"ape": 5, "bee": 6, "cow": 4}


def asked(data: Path, out: Path, **more: object) -> Asked:
    return options(data, out, folds=2, epochs=1, **more)


@pytest.fixture(scope="module")
def animals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photos(tmp_path_factory.mktemp("folds") / "animals", COUNTS)


@pytest.fixture(scope="module")
def trained(animals: Path) -> Folds:
    return train_folds(asked(animals, animals.parent / "run"))


def weights(folder: Path) -> list[bytes]:
    return [(folder / f"fold-{number}" / "model.safetensors").read_bytes() for number in (1, 2)]


def test_every_image_is_predicted_once_by_the_run_that_did_not_learn_from_it(trained: Folds, animals: Path) -> None:
    predictions = read_out_of_fold(trained.folder / "out-of-fold.csv")
    there = {path.relative_to(animals).as_posix() for path in animals.rglob("*.png")}
    assert sorted(predictions.names) == sorted(there)
    for name, fold, target in zip(predictions.names, predictions.folds, predictions.targets, strict=True):
        split = json.loads((trained.folder / f"fold-{fold}" / "split.json").read_text())
        assert name in split["val"]
        assert name not in split["train"]
        assert name.startswith(predictions.class_names[target])
    own = convit.load(trained.folder / "fold-2")
    some = next(i for i, fold in enumerate(predictions.folds) if fold == 2)
    expected = own.probabilities(animals / predictions.names[some])[0]
    assert predictions.probabilities[some] == pytest.approx(expected.numpy(), abs=1e-5)


def test_figures_are_those_of_the_predictions(trained: Folds) -> None:
    predictions = read_out_of_fold(trained.folder / "out-of-fold.csv")
    right = predictions.probabilities.argmax(axis=1) == predictions.targets
    written = json.loads((trained.folder / "folds.json").read_text())
    assert written["out_of_fold"]["top1"] == pytest.approx(100 * right.mean())
    each = [100 * right[predictions.folds == number].mean() for number in (1, 2)]
    assert written["top1_of_each"] == pytest.approx(each)
    assert written["mean"] == pytest.approx(np.mean(each))
    assert written["interval"][0] <= written["mean"] <= written["interval"][1]


def test_the_folder_is_one_classifier_that_averages(trained: Folds, animals: Path) -> None:
    picture = animals / "ape" / "0.png"
    both = [convit.load(trained.folder / f"fold-{number}").probabilities(picture) for number in (1, 2)]
    whole = convit.load(trained.folder)
    assert whole.probabilities(picture).numpy() == pytest.approx(((both[0] + both[1]) / 2).numpy(), abs=1e-6)
    with pytest.raises(InputError, match="average of 2 runs"):
        whole.save(trained.folder / "saved")


def test_stopped_in_the_second_fold_it_is_resumed_to_the_same_bits(
    trained: Folds, animals: Path, tmp_path: Path
) -> None:

    def in_fold_2(event: object) -> None:
        if (tmp_path / "run" / "fold-2").exists():
            stop(event)  # type: ignore[arg-type]

    stop = StopAt("epoch 1/1", 1)
    with pytest.raises(Stopped) as stopped:
        train_folds(asked(animals, tmp_path / "run"), in_fold_2)
    assert stopped.value.folder == tmp_path / "run"
    assert (tmp_path / "run" / "fold-1" / "evaluation.json").exists()
    assert not (tmp_path / "run" / "folds.json").exists()
    with pytest.raises(InputError, match="not all trained"):
        convit.load(tmp_path / "run")
    train_folds(resume(tmp_path / "run"))
    assert weights(tmp_path / "run") == weights(trained.folder)
    assert (tmp_path / "run" / "out-of-fold.csv").read_bytes() == (trained.folder / "out-of-fold.csv").read_bytes()


def test_what_a_resumed_folder_refuses(trained: Folds, animals: Path, tmp_path: Path) -> None:
    run, moved = shutil.copytree(trained.folder, tmp_path / "run"), shutil.copytree(animals, tmp_path / "animals")
    for name in ("folds.json", "fold-2"):
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(InputError, match="lr: got"):
        train_folds(resume(run, lr=0.5))
    written = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(written.replace("seed: 0", "seed: 1"))
    with pytest.raises(InputError, match="seed"):
        train_folds(resume(run))
    (run / "config.yaml").write_text(written)
    (moved / "ape" / "0.png").rename(moved / "ape" / "new.png")
    with pytest.raises(InputError, match=r"other images than when fold-1 began: 'ape/(0|new)\.png'"):
        train_folds(resume(run, data=moved))


def test_too_few_images_leave_nothing_behind(animals: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="folds: got 5, expected 2 to 4: class 'cow'"):
        train_folds(options(animals, tmp_path / "run", folds=5))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"fold": 1}, "fold: got 1"),
        ({"folds": 3, "fold": 4}, "fold: got 4"),
        ({"folds": 3, "val_fraction": 0.2}, "folds and val-fraction"),
        ({"folds": 1}, "folds"),
    ],
)
def test_options_that_do_not_fit(animals: Path, more: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        options(animals, **more)


def test_folds_of_a_class_are_of_equal_size_and_do_not_depend_on_other_classes() -> None:
    targets = np.repeat([0, 1, 2], [7, 10, 3])
    folds = folds_of(targets, 3, seed=1)
    for label in (0, 1, 2):
        counts = np.bincount(folds[targets == label], minlength=3)
        assert counts.max() - counts.min() <= 1
    assert np.bincount(folds).tolist() == [7, 7, 6]
    assert not np.array_equal(folds, folds_of(targets, 3, seed=2))
