"""torchvision's data sets from hand-made files in its own layout, with no network."""

import json
import struct
import urllib.error
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convit.data import SOURCE_NAMES, ArrayImages, FileImages, open_source
from convit.data.sources.torchvision import _TABLE
from convit.errors import InputError
from tests.helpers import refused


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4)).save(path)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def idx(root: Path, folder: str, prefixes: tuple[str, str], suffixes: tuple[str, str]) -> None:
    """idx files of three train and two test images of 2 x 2 pixels; image i is filled with 10 i, but for one corner."""
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    for prefix, count in zip(prefixes, (3, 2), strict=True):
        pixels = np.arange(count, dtype=np.uint8)[:, None, None] * 10 + np.zeros((1, 2, 2), np.uint8)
        pixels[:, 0, 1] = 200
        (raw / f"{prefix}-{suffixes[0]}").write_bytes(struct.pack(">4i", 0x803, count, 2, 2) + pixels.tobytes())
        (raw / f"{prefix}-{suffixes[1]}").write_bytes(struct.pack(">2i", 0x801, count) + bytes([9, 0, 3][:count]))


def mnist(folder: str) -> Callable[[Path], None]:
    return lambda root: idx(root, folder, ("train", "t10k"), ("images-idx3-ubyte", "labels-idx1-ubyte"))


def emnist(root: Path) -> None:
    prefixes = ("emnist-balanced-train", "emnist-balanced-test")
    idx(root, "EMNIST", prefixes, ("images-idx3-ubyte", "labels-idx1-ubyte"))


def pets(root: Path) -> None:
    for split, pet in (("trainval", "great_pyrenees"), ("test", "Bengal")):
        lines = f"{pet}_1 2 1 1\nAbyssinian_7 1 1 1\n" if split == "trainval" else "great_pyrenees_2 2 1 1\n"
        lines += "Abyssinian_8 1 1 1\n" if split == "test" else ""
        text(root / f"oxford-iiit-pet/annotations/{split}.txt", lines)
    for name in ("great_pyrenees_1", "Abyssinian_7", "great_pyrenees_2", "Abyssinian_8"):
        image(root / f"oxford-iiit-pet/images/{name}.jpg")


def folders(root: Path, *names: str) -> None:
    for name in names:
        image(root / name)


def dtd(root: Path) -> None:
    for split in ("train", "val", "test"):
        text(root / f"dtd/dtd/labels/{split}1.txt", f"banded/{split}.jpg\nzigzagged/{split}.jpg\n")
        folders(root, f"dtd/dtd/images/banded/{split}.jpg", f"dtd/dtd/images/zigzagged/{split}.jpg")


def food(root: Path) -> None:
    for split in ("train", "test"):
        text(
            root / f"food-101/meta/{split}.json", json.dumps({"pizza": [f"pizza/{split}"], "apple": [f"apple/{split}"]})
        )
        folders(root, f"food-101/images/pizza/{split}.jpg", f"food-101/images/apple/{split}.jpg")


def aircraft(root: Path) -> None:
    data = root / "fgvc-aircraft-2013b/data"
    text(data / "variants.txt", "707-320\nA300B4\n")
    for split in ("train", "val", "test"):
        text(data / f"images_variant_{split}.txt", f"{split} A300B4\n")
        image(data / f"images/{split}.jpg")


def gtsrb(root: Path) -> None:
    for sign in range(43):
        image(root / f"gtsrb/GTSRB/Training/{sign:05d}/0.ppm")
    image(root / "gtsrb/GTSRB/Final_Test/Images/1.ppm")
    text(root / "gtsrb/GT-final_test.csv", "Filename;ClassId\n1.ppm;42\n")


def folders_of(prefix: str, inner: tuple[str, ...], classes: tuple[str, ...], suffix: str) -> Callable[[Path], None]:
    return lambda root: folders(root, *(f"{prefix}{part}{c}/1{suffix}" for part in inner for c in classes))


def caltech(root: Path) -> None:
    for category in ("BACKGROUND_Google", "Faces", "ant"):
        image(root / f"caltech101/101_ObjectCategories/{category}/image_0001.jpg")


# name: (writes the files, split -> number of images, (split, image, its class), kind)
SETS = {
    "mnist": (mnist("MNIST"), {"train": 3, "test": 2}, ("train", 0, "9"), ArrayImages),
    "fashion_mnist": (mnist("FashionMNIST"), {"train": 3, "test": 2}, ("test", 0, "Ankle boot"), ArrayImages),
    "kmnist": (mnist("KMNIST"), {"train": 3, "test": 2}, ("train", 2, "tsu"), ArrayImages),
    "emnist": (emnist, {"train": 3, "test": 2}, ("train", 0, "9"), ArrayImages),
    "oxford_iiit_pet": (pets, {"train": 2, "test": 2}, ("train", 0, "Great Pyrenees"), FileImages),
    "dtd": (dtd, {"train": 2, "val": 2, "test": 2}, ("val", 1, "zigzagged"), FileImages),
    "food101": (food, {"train": 2, "test": 2}, ("train", 0, "pizza"), FileImages),
    "fgvc_aircraft": (aircraft, {"train": 1, "val": 1, "test": 1}, ("test", 0, "A300B4"), FileImages),
    "gtsrb": (gtsrb, {"train": 43, "test": 1}, ("test", 0, "00042"), FileImages),
    "eurosat": (
        folders_of("eurosat/2750/", ("",), ("Forest", "River"), ".jpg"),
        {"all": 2},
        ("all", 1, "River"),
        FileImages,
    ),
    "caltech101": (caltech, {"all": 2}, ("all", 1, "ant"), FileImages),
    "country211": (
        folders_of("country211/", ("train/", "valid/", "test/"), ("AD", "ZW"), ".jpg"),
        {"train": 2, "val": 2, "test": 2},
        ("val", 1, "ZW"),
        FileImages,
    ),
    "rendered_sst2": (
        folders_of("rendered-sst2/", ("train/", "valid/", "test/"), ("negative", "positive"), ".png"),
        {"train": 2, "val": 2, "test": 2},
        ("test", 1, "positive"),
        FileImages,
    ),
    "imagenette": (
        folders_of("imagenette2-320/", ("train/", "val/"), ("n01440764", "n02102040"), ".jpeg"),
        {"train": 2, "val": 2},
        ("val", 1, "English springer"),
        FileImages,
    ),
}


@pytest.mark.parametrize("name", SETS)
def test_reads_torchvision_layout(name: str, tmp_path: Path) -> None:
    write, counts, (split, index, label), kind = SETS[name]
    write(tmp_path)
    source = open_source(name, data_root=tmp_path, download=False)
    assert {split: len(images) for split, images in source.splits.items()} == counts
    images = source.splits[split]
    assert isinstance(images, kind)
    assert images.class_names[images.targets[index]] == label
    assert all(images.read(i).mode == "RGB" for i in range(len(images)))
    names = [name for images in source.splits.values() for name in images.names]
    assert len(set(names)) == len(names)
    assert source.name == source.root == name


@pytest.mark.parametrize(
    ("name", "pixels", "flip"),
    [("fashion_mnist", [[20, 200], [20, 20]], True), ("emnist", [[20, 20], [200, 20]], False)],  # turned upright
)
def test_pixels_and_flip(name: str, pixels: list[list[int]], flip: bool, tmp_path: Path) -> None:
    SETS[name][0](tmp_path)
    source = open_source(name, data_root=tmp_path, download=False)
    assert np.asarray(source.splits["train"].read(2))[:, :, 0].tolist() == pixels
    assert source.splits["train"].names[2] == f"{name}/train/000002"
    assert source.flip is flip


@pytest.mark.parametrize("name", ["svhn", "stl10"])
def test_channels_first_arrays(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """These two check md5 sums, so a stand-in with their attributes takes torchvision's place."""

    class StandIn:
        def __init__(self, root: Path, split: str, download: bool) -> None:
            self.data = np.zeros((2, 3, 5, 4), np.uint8)
            self.data[:, 1, 0, 3] = 99
            self.labels = np.array([1, 0], np.uint8)
            self.classes = ["plane", "bird"]

    monkeypatch.setattr(f"torchvision.datasets.{_TABLE[name].cls}", StandIn)
    images = open_source(name, data_root=tmp_path).splits["train"]
    assert images.targets.tolist() == [1, 0]
    assert images.size(0) == (4, 5)
    assert images.read(0).getpixel((3, 0)) == (0, 99, 0)


@pytest.mark.parametrize("name", [name for name in SOURCE_NAMES if name != "digits"])
def test_failed_download_is_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no\nnetwork")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    message = refused(lambda: open_source(name, data_root=tmp_path), str(tmp_path))
    assert message.startswith(f"{name}: the download failed (")
    with pytest.raises(InputError, match=rf"^{name}: not found, and downloads are off .*{tmp_path}"):
        open_source(name, data_root=tmp_path, download=False)


def test_default_root_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVIT_DATA", str(tmp_path))
    mnist("MNIST")(tmp_path)
    assert len(open_source("mnist", download=False).splits["train"]) == 3
