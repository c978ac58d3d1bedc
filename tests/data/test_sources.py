"""Folders in every layout, digits, and names; runs on every kind of source."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convit.cli import run
from convit.data import ArrayImages, open_source
from convit.errors import InputError
from convit.train import Stopped, train
from tests.data.shards import shard
from tests.train.small import exact, options, photos
from tests.train.test_resume import StopAt


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in (".jpg", ".png"):
            Image.new("RGB", (6, 4)).save(path)
        else:
            path.touch()
    return root


def labels(images: object) -> dict[str, str]:
    return dict(zip(images.names, (images.class_names[t] for t in images.targets), strict=True))


def fails(path: Path | str, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        open_source(str(path))
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_class_folders_are_one_whole(tmp_path: Path) -> None:
    make(tmp_path, "dog/2.JPG", "cat/b 1.png", "cat/deep/er/ü.jpg", "cat/._b.jpg", "cat/Thumbs.db", ".git/x/1.jpg")
    make(tmp_path, "cover.jpg", "dog/notes.txt", "__MACOSX/cat/1.jpg")
    source = open_source(str(tmp_path))
    assert source.parts.keys() == {"whole"}
    assert source.class_names == ("cat", "dog")
    assert labels(source.whole) == {"cat/b 1.png": "cat", "cat/deep/er/ü.jpg": "cat", "dog/2.JPG": "dog"}
    assert source.ignored == ("dog/notes.txt",)
    assert source.whole.size(0) == (6, 4)
    assert source.whole.read(0).size == (6, 4)
    assert (source.name, source.root, source.flip) == (tmp_path.name, str(tmp_path.resolve()), True)
    assert pickle.loads(pickle.dumps(source.whole)).names == source.whole.names


@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_parts_are_matched_by_name(val: str, tmp_path: Path) -> None:
    make(tmp_path, "train/ant/1.jpg", "train/bee/1.jpg", "train/cow/1.jpg", f"{val}/cow/1.jpg", f"{val}/bee/2.jpg")
    make(tmp_path, "test/cow/9.jpg", "readme.txt", "extra/1.jpg", f"{val}/ant/notes.txt")
    source = open_source(str(tmp_path))
    assert source.parts.keys() == {"train", "val", "test"}
    assert source.class_names == ("ant", "bee", "cow")
    # by position among the folders of val these would be 0 and 1
    assert labels(source.val) == {f"{val}/bee/2.jpg": "bee", f"{val}/cow/1.jpg": "cow"}
    assert source.val.targets.tolist() == [1, 2]
    assert source.test.targets.tolist() == [2]


def test_class_that_train_lacks(tmp_path: Path) -> None:
    make(tmp_path, "train/ant/1.jpg", "train/bee/1.jpg", "val/bee/1.jpg", "val/zebra/1.jpg")
    fails(tmp_path, "zebra", "val/zebra/1.jpg", "'ant', 'bee'")


def test_classes_called_train_and_test(tmp_path: Path) -> None:
    assert open_source(str(make(tmp_path / "a", "train/1.jpg", "test/1.jpg"))).class_names == ("test", "train")
    vehicles = make(tmp_path / "b", "train/steam/1.jpg", "bus/1.jpg")
    assert open_source(str(vehicles)).class_names == ("bus", "train")
    lone = make(tmp_path / "c", "train/cat/1.jpg", "train/dog/1.jpg", "docs/x.txt")
    assert open_source(str(lone)).parts.keys() == {"train"}
    only_test = make(tmp_path / "d", "test/cat/1.jpg", "test/dog/1.jpg")
    assert open_source(str(only_test)).parts.keys() == {"test"}


def test_bad_folders(tmp_path: Path) -> None:
    fails(tmp_path / "missing", "missing", "no such folder")
    fails(make(tmp_path / "file", "x.jpg") / "x.jpg", "x.jpg: a file")
    (tmp_path / "empty").mkdir()
    fails(tmp_path / "empty", "empty", "one sub-folder of images for each class")
    fails(make(tmp_path / "loose", "1.jpg", "2.jpg"), "2 images, but not in class folders")
    fails(make(tmp_path / "one", "cat/1.jpg"), "only one class, 'cat'", "at least 2")
    assert open_source(str(tmp_path / "one"), min_classes=1).class_names == ("cat",)
    fails(make(tmp_path / "hollow", "cat/1.jpg", "dog/1.heic", "eel/x.heic"), "no image in class 'dog', 'eel'", ".heic")
    fails(make(tmp_path / "none", "cat/1.txt", "dog/1.txt"), "no image in 2 folders")
    fails(make(tmp_path / "unlabelled", "train/a/1.jpg", "train/b/1.jpg", "test/1.jpg"), "test", "not in class folders")
    fails(make(tmp_path / "twice", "train/a/1.jpg", "val/a/1.jpg", "valid/a/1.jpg"), "'val'", "'valid'")
    fails("", "no such folder")


def test_nearest_name(tmp_path: Path) -> None:
    fails("cifr10", "did you mean 'cifar10'?", "digits")
    (tmp_path / "photos").mkdir()
    fails(tmp_path / "photo", f"did you mean '{tmp_path / 'photos'}'?")


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    make(tmp_path / "store", "1.jpg")
    make(tmp_path / "data", "dog/1.jpg", "cat/2.jpg")
    (tmp_path / "data/cat/linked").symlink_to(tmp_path / "store")
    (tmp_path / "data/cat/loop").symlink_to(tmp_path / "data/cat")
    (tmp_path / "store/back").symlink_to(tmp_path / "data/cat")
    (tmp_path / "data/dog/gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    names = open_source(str(tmp_path / "data")).whole.names
    assert names == ("cat/2.jpg", "cat/linked/1.jpg", "dog/1.jpg", "dog/gone.jpg")


def test_digits() -> None:
    source = open_source("digits")
    assert source.parts.keys() == {"train", "test"}
    assert source.flip is False
    assert len(source.train) + len(source.test) == 1797
    assert not set(source.train.names) & set(source.test.names)
    assert source.test.counts().tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]
    assert source.test.names[:3] == ("digits/0006", "digits/0015", "digits/0021")  # drawn once and for all
    pixels = np.concatenate([source.train.pixels, source.test.pixels])
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert source.train.read(0).mode == "RGB"
    assert source.train.size(0) == (8, 8)


def test_image_set_subsets_and_classes() -> None:
    pixels = np.arange(4 * 2 * 3, dtype=np.uint8).reshape(4, 2, 3)
    images = ArrayImages(pixels, ["a", "b", "c", "d"], [2, 0, 1, 2], ["ant", "bee", "cow"])
    part = images.subset([3, 1])
    assert (part.names, part.targets.tolist(), part.size(0)) == (("d", "b"), [2, 0], (3, 2))
    assert np.asarray(part.read(0))[0, 0].tolist() == [18, 18, 18]
    assert part.counts().tolist() == [1, 0, 1]
    assert part.with_classes(["cow", "ant"]).targets.tolist() == [0, 1]
    with pytest.raises(InputError, match=r"unknown class 'bee' \(as in c\); expected one of 'cow', 'ant'"):
        images.with_classes(["cow", "ant"])
    with pytest.raises(InputError, match=r"no part 'val'; expected one of 'train', 'test'"):
        open_source("digits").part("val")


Labelled = list[tuple[Path, str]]


def as_list(files: Labelled, folder: Path) -> str:
    rows = [f"{file},{label}\n" for file, label in files]
    (folder / "list.csv").write_text("path,label\n" + "".join(rows))
    return str(folder / "list.csv")


def as_shards(files: Labelled, folder: Path) -> str:
    """Two shards, the second from the middle of a class on."""
    for number, some in enumerate((files[:7], files[7:])):
        pairs = [((f"{i:02d}.png", file.read_bytes()), (f"{i:02d}.txt", label)) for i, (file, label) in enumerate(some)]
        shard(folder / f"photos-{number}.tar", dict(member for pair in pairs for member in pair))
    return str(folder / "photos-{0..1}.tar")


def as_saved(files: Labelled, folder: Path) -> str:
    datasets = pytest.importorskip("datasets", reason="needs the library 'datasets', of the extra [hub]")
    names = sorted({label for _, label in files})
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    cells = {"image": [str(file) for file, _ in files], "label": [label for _, label in files]}
    datasets.Dataset.from_dict(cells, features=features).save_to_disk(str(folder / "saved"))
    return str(folder / "saved")


@pytest.fixture(scope="module")
def animals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photos(tmp_path_factory.mktemp("data") / "animals", {"ape": 6, "bee": 5, "cow": 7})


@pytest.fixture(scope="module")
def run_on_a_folder(animals: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(options(animals, out))
    return out


@pytest.mark.parametrize("rewritten", [as_list, as_shards, as_saved])
def test_the_same_images_make_the_same_model_from_every_kind(
    rewritten: Callable[[Labelled, Path], str], animals: Path, run_on_a_folder: Path, tmp_path: Path
) -> None:
    """Bit for bit the model of the folder, with loader processes, stopped in the middle and resumed."""
    (tmp_path / "in").mkdir()
    data = rewritten([(path, path.parent.name) for path in sorted(animals.rglob("*.png"))], tmp_path / "in")
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        train(options(data, out, workers=2), StopAt("epoch 2/2", 2))
    train(options(data, out, workers=2, resume=True))
    assert exact(out) == exact(run_on_a_folder)
    assert run("evaluate", [str(out), data]) == 0  # of an undivided source, what the run validated on
    assert (out / f"evaluation-{open_source(data).name}-val").is_dir()
    assert run("evaluate", [str(out), str(animals)]) == 0
    assert (out / "evaluation-animals-all").is_dir()


def test_files_of_other_kinds(tmp_path: Path) -> None:
    make(tmp_path, "photos.zip", "photos.csv")
    fails(tmp_path / "photos.zip", "photos.zip: a file; expected a folder of images, a .csv, .tsv or .parquet list")
    fails(tmp_path / "photo.csv", f"did you mean '{tmp_path / 'photos.csv'}'?", "'hf:owner/name'")
    fails("shards-{0..1}.zip", "no such folder or data set")
