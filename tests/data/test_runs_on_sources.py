"""The same pictures make the same model, whichever kind of source they are written as."""

from collections.abc import Callable
from pathlib import Path

import pytest

from convit.data.select import Evaluating, select
from convit.training import Stopped, train
from convit.training.run_folder import RunFolder
from tests.data.made import WRITTEN, Labelled, as_folder
from tests.training.small import StopAt, exact, options, photos, resume


@pytest.fixture(scope="module")
def animals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photos(tmp_path_factory.mktemp("data") / "animals", {"ape": 6, "bee": 5, "cow": 7})


@pytest.fixture(scope="module")
def run_on_a_folder(animals: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(options(animals, out))
    return out


@pytest.mark.parametrize("write", [write for write in WRITTEN if write is not as_folder])
def test_the_same_images_make_the_same_model_from_every_kind(
    write: Callable[[Labelled, Path], str], animals: Path, run_on_a_folder: Path, tmp_path: Path
) -> None:
    """Bit for bit the model of the folder, with loader processes, stopped in the middle and resumed."""
    (tmp_path / "in").mkdir()
    data = write([(path, path.parent.name) for path in sorted(animals.rglob("*.png"))], tmp_path / "in")
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        train(options(data, out, workers=2), StopAt("epoch 2/2", 2))
    train(resume(out))
    assert exact(out) == exact(run_on_a_folder)
    known = RunFolder(out).known()
    assert list(select(data, Evaluating(known=known)).splits) == ["val"]  # what the run validated on
    assert list(select(str(animals), Evaluating(known=known)).splits) == ["all"]
