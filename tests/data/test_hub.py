"""Data sets of the Hub and saved ones, built here; the Hub itself is stood in for."""

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.errors import OfflineModeIsEnabled
from PIL import Image as Picture
from torch.utils.data import DataLoader

from convit.data import EpochSampler, ImageSet, Preprocess, SampleDataset, drop, evaluation_transform, open_source
from convit.errors import InputError
from tests.data.made import fails, reds, scan
from tests.data.shards import png

datasets = pytest.importorskip("datasets", reason="needs the library 'datasets', of the extra [hub]")
datasets.disable_progress_bars()

NAMES = ["dog", "ape", "cat"]
COMMIT, OTHER = "0123456789abcdef0123456789abcdef01234567", "f" * 40


def rows(reds: range, labels: Any = None, **columns: Any) -> Any:
    """A split: pictures whose red tells which they are, and a class each."""
    labels = [red % 3 for red in reds] if labels is None else labels
    features = {"img": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)}
    features |= {name: kind for name, (kind, _) in columns.items()}
    pictures = [{"bytes": png(red), "path": None} for red in reds]
    cells = {"img": pictures, "label": labels} | {name: values for name, (_, values) in columns.items()}
    return datasets.Dataset.from_dict(cells, features=datasets.Features(features))


def saved(path: Path, data: Any) -> str:
    (datasets.DatasetDict(data) if isinstance(data, dict) else data).save_to_disk(str(path))
    return str(path)


def labels(images: ImageSet) -> list[str]:
    return [images.class_names[target] for target in images.targets]


@pytest.fixture
def on_hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], list[dict[str, Any]]]:
    """Puts something in the Hub's place, a data set or an error, and records how it was asked."""

    def put(answer: Any) -> list[dict[str, Any]]:
        asked: list[dict[str, Any]] = []

        def load_dataset(path: str, name: str | None = None, **more: Any) -> Any:
            asked.append({"path": path, "name": name} | more)
            if isinstance(answer, BaseException):
                raise answer
            return datasets.DatasetDict(answer) if isinstance(answer, dict) else answer

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return asked

    return put


def test_a_data_set_of_the_hub(on_hub: Callable[[Any], Any], tmp_path: Path) -> None:
    asked = on_hub({"train": rows(range(6)), "validation": rows(range(6, 9), [1, 1, 2]), "extra": rows(range(3))})
    source = open_source("hf:owner/beans", data_root=tmp_path)
    assert asked == [{"path": "owner/beans", "name": None, "revision": None, "cache_dir": str(tmp_path)}]
    assert source.splits.keys() == {"train", "val"}
    assert (source.name, source.root) == ("beans", "hf:owner/beans")
    assert source.class_names == ("dog", "ape", "cat")  # in the order of ClassLabel
    assert labels(source.splits["val"]) == ["ape", "ape", "cat"]
    assert (reds(source.splits["train"]), reds(source.splits["val"])) == ([0, 1, 2, 3, 4, 5], [6, 7, 8])
    assert source.splits["val"].names == tuple(f"owner/beans/validation/{row:06d}" for row in range(3))
    assert source.splits["val"].where(2) == "hf:owner/beans validation[2]"
    assert source.splits["val"].size(0) == (6, 4)
    assert source.notes == (
        "hf:owner/beans: the split 'extra' is left aside: it is called neither train, validation nor test",
    )
    some = source.splits["train"].subset([5, 1]).with_classes(["cat", "dog", "ape"])
    assert (reds(some), labels(some), some.where(0)) == ([5, 1], ["cat", "ape"], "hf:owner/beans train[5]")
    assert reds(pickle.loads(pickle.dumps(some))) == [5, 1]


def test_the_plain_name_goes_before_others_for_the_same_split(on_hub: Callable[[Any], Any]) -> None:
    on_hub({"dev": rows(range(3)), "training": rows(range(6)), "validation": rows(range(6, 9))})
    source = open_source("hf:owner/beans")
    assert source.splits.keys() == {"train", "val"}
    assert reds(source.splits["val"]) == [6, 7, 8]
    assert source.notes == ("hf:owner/beans: the split 'dev' is left aside: 'validation' is the one for val",)


def test_config_revision_and_columns_in_the_word(on_hub: Callable[[Any], Any]) -> None:
    fine = {"fine": (datasets.ClassLabel(names=["x", "y"]), [0, 1, 0])}
    asked = on_hub({"train": rows(range(3), **fine)})
    fails("hf:owner/set", "2 columns that could be the label", "img (Image), label (ClassLabel), fine (ClassLabel)",
          ":label=COLUMN")  # fmt: skip
    source = open_source("hf:owner/set@v1.0:plain:label=fine:image=img")
    assert (asked[-1]["name"], asked[-1]["revision"]) == ("plain", "v1.0")
    assert source.class_names == ("x", "y")
    assert (source.name, source.root) == ("set-plain", "hf:owner/set@v1.0:plain:image=img:label=fine")
    assert source.splits["train"].names[0] == "owner/set/plain/train/000000"
    fails("hf:owner/set:label=img", "no column 'img' of labels")
    fails("hf:owner/set:image=fine", "no column 'fine' of images")


def test_the_root_names_the_commit(on_hub: Callable[[Any], Any], tmp_path: Path) -> None:
    """``datasets`` calls the folder of its cache by the Hub's commit."""
    on_hub(datasets.load_from_disk(saved(tmp_path / "owner___set/default/0.0.0" / COMMIT, rows(range(3)))))
    source = open_source("hf:owner/set")
    assert source.root == f"hf:owner/set@{COMMIT}"
    assert source.splits["all"].where(0) == "hf:owner/set[0]"
    assert open_source(source.root).root == source.root
    assert open_source("hf:owner/set@main:plain").root == f"hf:owner/set@{COMMIT}:plain"
    fails(f"hf:owner/set@{OTHER}", f"only the commit {COMMIT}")  # what the library does without a network


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (datasets.exceptions.DatasetNotFoundError("Dataset 'x' doesn't exist"), "no such data set, or one that"),
        (ConnectionError("Couldn't reach\n'owner/set' on the Hub"), "(ConnectionError: Couldn't reach 'owner/set' on"),
        (ValueError("BuilderConfig 'x' not found. Available: ['a']"), "BuilderConfig 'x' not found. Available: ['a']"),
        (RuntimeError("Dataset scripts are no longer supported, but found set.py"), "scripts are no longer supported"),
        (datasets.exceptions.DatasetGenerationError("An error occurred"), "DatasetGenerationError"),
        (OfflineModeIsEnabled("offline"), "(HF_HUB_OFFLINE is set)"),
    ],
)  # fmt: skip
def test_errors_of_the_hub(error: Exception, said: str, on_hub: Callable[[Any], Any]) -> None:
    on_hub(error)
    fails("hf:owner/set", "hf:owner/set: not loaded from the Hugging Face Hub", said, "expected a data set")


@pytest.mark.parametrize(
    "data",
    [
        "hf:",
        "hf:set",
        "hf:owner/",
        "hf:a/b/c",
        "hf:../x",
        "hf:a/b:",
        "hf:a/b@",
        "hf:a/b:c:d",
        "hf:a/b:x=y",
        "hf:a/b:label=",
    ],
)
def test_words_of_another_form(data: str, on_hub: Callable[[Any], Any]) -> None:
    asked = on_hub(rows(range(3)))
    fails(data, data, "expected hf:owner/name, where")
    assert not asked


def test_a_folder_called_alike_is_not_taken(
    on_hub: Callable[[Any], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = on_hub(rows(range(3)))
    (tmp_path / "owner/set").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    fails("hf:owner/set", "owner/set is a folder here too")
    assert not asked


def test_without_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = saved(tmp_path / "set", rows(range(3)))
    monkeypatch.setitem(sys.modules, "datasets", None)
    fails("hf:owner/set", "pip install 'convit[hub]'")
    fails(folder, "pip install 'convit[hub]'")


def test_saved_data_sets(tmp_path: Path) -> None:
    with_splits = open_source(saved(tmp_path / "splits", {"train": rows(range(3)), "test": rows(range(3, 6))}))
    assert with_splits.splits.keys() == {"train", "test"}
    assert with_splits.splits["test"].names[0] == "splits/test/000000"
    assert reds(with_splits.splits["test"]) == [3, 4, 5]
    source = open_source(saved(tmp_path / "one", rows(range(9)).select([8, 1, 3]).with_format("torch", ["label"])))
    assert (reds(source.splits["all"]), labels(source.splits["all"])) == ([8, 1, 3], ["cat", "ape", "dog"])
    assert (source.name, source.root) == ("one", str((tmp_path / "one").resolve()))
    assert source.splits["all"].where(1) == f"{source.root}[1]"
    assert open_source(saved(tmp_path / "single", {"full": rows(range(3))})).splits.keys() == {"all"}


def test_labels_of_text_and_numbers_and_a_class_without_images(tmp_path: Path) -> None:
    text, number = datasets.Value("string"), datasets.Value("int64")
    words = rows(range(3)).remove_columns("label").add_column("Class", ["b", " a ", "b"]).add_column("id", [1, 2, 3])
    assert open_source(saved(tmp_path / "text", words)).class_names == ("a", "b")
    numbers = rows(range(3), cls=(number, [10, 9, 10]), caption=(text, ["x"] * 3)).remove_columns("label")
    assert open_source(saved(tmp_path / "numbers", numbers)).class_names == ("9", "10")
    source = open_source(
        saved(tmp_path / "two", {"train": rows(range(4), [2, 0, 2, 0]), "test": rows(range(2), [2, 2])})
    )
    assert source.class_names == ("dog", "cat")
    assert source.splits["test"].targets.tolist() == [1, 1]


def test_images_in_files_and_rows_without_one(on_hub: Callable[[Any], Any], tmp_path: Path) -> None:
    Picture.new("RGB", (6, 4), (7, 0, 0)).save(tmp_path / "7.png")
    cells = {
        "img": [str(tmp_path / "7.png"), str(tmp_path / "gone.png"), None, {"bytes": b"text", "path": None}],
        "label": [0, 1, 0, 1],
    }
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    on_hub(datasets.Dataset.from_dict(cells, features=features))
    whole = open_source("hf:owner/set").splits["all"]
    assert whole.read(0).getpixel((0, 0)) == (7, 0, 0)
    bad = scan(whole)
    assert [image.name for image in bad] == [f"owner/set/00000{row}" for row in (1, 2, 3)]
    assert "gone.png' cannot be read" in bad[0].reason
    assert bad[1].reason.startswith("no image in this row")
    assert bad[2].reason.startswith("not an image")
    contents = whole.contents()
    assert contents[1:3] == [-1, -1]
    assert min(contents[0], contents[3]) >= 0
    with pytest.raises(InputError, match="no image that decodes in class 'ape'"):
        drop(whole, bad)


def test_faults(tmp_path: Path) -> None:
    fails(
        saved(tmp_path / "a", rows(range(3)).remove_columns("label")),
        "0 columns that could be the label",
        "img (Image)",
    )
    fails(saved(tmp_path / "b", rows(range(3)).remove_columns("img")), "0 columns that could be the image")
    fails(
        saved(tmp_path / "c", rows(range(3), mask=(datasets.Image(), [png(0)] * 3))),
        "2 columns that could be the image",
    )
    fails(saved(tmp_path / "d", rows(range(3), [0, -1, 1])), "d[1]: no label; expected one in each row")
    fails(saved(tmp_path / "e", rows(range(3), [0, None, 1])), "e[1]: no label")
    fails(saved(tmp_path / "f", rows(range(3), [0, 0, 0])), "only one class, 'dog'")
    fails(saved(tmp_path / "g", {"val": rows(range(3)), "validation": rows(range(3))}), "both 'val' and 'validation'")
    fails(saved(tmp_path / "h", {"a": rows(range(3)), "b": rows(range(3))}), "splits 'a', 'b'; expected train")
    fails(saved(tmp_path / "i", {"train": rows(range(2)), "val": rows(range(3))}), "unknown class 'cat'", "val[2]")
    fails(saved(tmp_path / "j", {"train": rows(range(3), [-1] * 3)}), "0 classes")
    folder = saved(tmp_path / "k", rows(range(3)))
    for file in Path(folder).glob("*.arrow"):
        file.write_bytes(b"no arrow")
    fails(folder, "expected a folder that save_to_disk wrote")
    (Path(folder) / "state.json").write_text("{")
    fails(folder, "expected a folder that save_to_disk wrote")


def test_a_split_without_labels_is_left_aside(tmp_path: Path) -> None:
    source = open_source(saved(tmp_path / "set", {"train": rows(range(3)), "test": rows(range(3), [-1] * 3)}))
    assert source.splits.keys() == {"train"}
    assert source.notes == (f"{source.root}: the split 'test' is left aside: it has no row with a label",)


def test_any_number_of_processes_and_threads_gives_the_same(tmp_path: Path) -> None:
    images = open_source(saved(tmp_path / "set", rows(range(120)))).splits["all"]
    assert scan(images) == []
    dataset = SampleDataset(images, evaluation_transform(Preprocess(image_size=(8, 8))), seed=0)
    sampler = EpochSampler(len(images), seed=0)
    expected, got = (torch.cat([x for x, _ in DataLoader(dataset, 8, sampler=sampler, num_workers=n)]) for n in (0, 2))
    assert torch.equal(got, expected)
    assert len(np.unique(expected[:, 0, 0, 0])) == 120
