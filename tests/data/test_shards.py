"""WebDataset shards: every layout, exact bits with any number of processes, and one line for every bad shard."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from convit.data import (
    Augmentation,
    EpochSampler,
    Preprocess,
    SampleDataset,
    Source,
    drop,
    open_source,
    training_transform,
)
from convit.data.sources.shard_files import expand
from convit.errors import InputError
from tests.data.made import fails, labels, reds, scan
from tests.data.shards import png, samples, shard


def three(root: Path) -> Path:
    """Two shards to learn from and one to validate on, of 3, 2 and 2 images."""
    shard(root / "train-000.tar", samples(0, 3))
    shard(root / "train-001.tar", samples(3, 2))
    shard(root / "val-000.tar", samples(5, 2))
    return root


def test_splits_by_the_names_of_the_shards(tmp_path: Path) -> None:
    source = open_source(str(three(tmp_path / "set")))
    assert source.splits.keys() == {"train", "val"}
    assert (source.name, source.root) == ("set", str((tmp_path / "set").resolve()))
    assert labels(source.splits["train"]) == {
        "train-000.tar/0000.png": "0",
        "train-000.tar/0001.png": "1",
        "train-000.tar/0002.png": "0",
        "train-001.tar/0003.png": "1",
        "train-001.tar/0004.png": "0",
    }
    assert (reds(source.splits["train"]), reds(source.splits["val"])) == ([0, 1, 2, 3, 4], [5, 6])
    assert source.splits["train"].where(3) == f"{tmp_path}/set/train-001.tar:0003.png"
    assert source.splits["train"].size(0) == (6, 4)
    assert reds(source.splits["train"].subset([4, 1])) == [4, 1]
    assert reds(pickle.loads(pickle.dumps(source.splits["train"]))) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("train-{000..001}.tar", [0, 1, 2, 3, 4]),
        ("train-*.tar", [0, 1, 2, 3, 4]),
        ("{val,train}-000.tar", [0, 1, 2]),
        ("train-00[1].tar", [3, 4]),
        ("train-001.tar", [3, 4]),
    ],
)
def test_patterns(pattern: str, expected: list[int], tmp_path: Path) -> None:
    source = open_source(str(three(tmp_path) / pattern))
    assert reds(source.splits["train"]) == expected
    assert open_source(source.root).splits["train"].names == source.splits["train"].names
    assert set(source.splits["train"].names) <= set(open_source(str(tmp_path)).splits["train"].names)


def test_splits_by_folders_and_one_undivided(tmp_path: Path) -> None:
    shard(tmp_path / "a/train/0.tar", samples(0, 2))
    shard(tmp_path / "a/test/0.tar", samples(2, 2))
    source = open_source(str(tmp_path / "a"))
    assert source.splits.keys() == {"train", "test"}
    assert source.splits["test"].names == ("test/0.tar/0002.png", "test/0.tar/0003.png")
    shard(tmp_path / "b/photos-0.tar", samples(0, 2))
    shard(tmp_path / "b/photos-1.tar", samples(0, 2))  # keys may repeat from shard to shard
    assert open_source(str(tmp_path / "b")).splits["all"].names[::2] == (
        "photos-0.tar/0000.png",
        "photos-1.tar/0000.png",
    )
    shard(tmp_path / "b/val.tar", samples(0, 2))
    fails(tmp_path / "b", "photos-0.tar: its name tells no split")
    fails(shard(tmp_path / "train-val.tar", samples(0, 2)), "tells two splits")


def test_a_tar_beside_folders_of_images_is_none_of_them(tmp_path: Path) -> None:
    for name in ("cat/1.png", "dog/2.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(png(0))
    shard(tmp_path / "download.tar", samples(0, 2))
    assert open_source(str(tmp_path)).class_names == ("cat", "dog")


def test_labels_in_cls_json_and_txt(tmp_path: Path) -> None:
    members = {
        "./a/1.jpg": png(1), "./a/1.txt": "cat\n",
        "a/2.PNG": png(2), "a/2.json": json.dumps({"label": "dog", "size": [1, 2]}),
        "a/3.webp": png(3), "a/3.json": json.dumps({"width": 3}), "a/3.txt": "ape", "a/3.seg.png": png(9),
        "a/._1.jpg": "left by a Mac", "notes.md": "read", "b.2.jpg": png(4),
    }  # fmt: skip
    source = open_source(str(shard(tmp_path / "set.tar", members)))
    assert labels(source.splits["all"]) == {
        "set.tar/a/1.jpg": "cat",
        "set.tar/a/2.PNG": "dog",
        "set.tar/a/3.webp": "ape",
    }
    assert source.class_names == ("ape", "cat", "dog")
    assert source.ignored == ("set.tar/notes.md", "set.tar/b.2.jpg")
    # a number in .cls goes before all else
    members = {"1.png": png(1), "1.txt": "a caption", "1.json": '{"label": 7}', "1.cls": " 11\n"}
    two = members | {"2.png": png(2), "2.json": '{"label": 9}'}
    assert open_source(str(shard(tmp_path / "set.tar", two))).class_names == ("9", "11")


def test_numbers_are_lines_of_the_class_list(tmp_path: Path) -> None:
    shard(tmp_path / "train.tar", {f"{i}.{e}": v for i, n in enumerate((3, 0, 3)) for e, v in
                                   (("png", png(i)), ("cls", str(n)))})  # fmt: skip
    shard(tmp_path / "val.tar", {"7.png": png(7), "7.cls": "3"})
    (tmp_path / "classnames.txt").write_text("tench\nshark, white\nhen\ncock\n")
    source = open_source(str(tmp_path))
    assert source.class_names == ("tench", "cock")  # in the order of the list; nothing is learned of the others
    assert source.splits["train"].targets.tolist() == [1, 0, 1]
    assert source.splits["val"].targets.tolist() == [1]
    (tmp_path / "classnames.txt").write_text("tench\nhen\n")
    fails(tmp_path, "train.tar:0.cls: class 3; expected 0 to 1")
    (tmp_path / "classnames.txt").write_text("tench\n\nhen\n")
    fails(tmp_path, "classnames.txt, line 2: ''")
    (tmp_path / "classnames.txt").write_text("tench\nhen\ntench\ncock\n")
    fails(tmp_path, "classnames.txt, line 3: 'tench'")


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_any_number_of_processes_gives_the_same_bits(method: str, tmp_path: Path) -> None:
    shard(tmp_path / "train-0.tar", samples(0, 40))
    shard(tmp_path / "train-1.tar", samples(40, 40))
    images = open_source(str(tmp_path)).splits["train"]
    transform = training_transform(Preprocess(image_size=(8, 8)), Augmentation(flip=True))
    dataset = SampleDataset(images, transform, seed=3)
    sampler = EpochSampler(len(images), seed=3)
    images.read(0)  # whatever the parent has open must not matter

    def run(workers: int) -> tuple[torch.Tensor, torch.Tensor]:
        context = method if workers else None
        loader = DataLoader(dataset, 8, sampler=sampler, num_workers=workers, multiprocessing_context=context)
        batches = list(loader)
        return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])

    pixels, targets = run(0)
    assert len(pixels.flatten(1).unique(dim=0)) == 80  # every image is another one
    for got, expected in zip(run(2), (pixels, targets), strict=True):
        assert torch.equal(got, expected)


def test_bad_images_are_found_and_left_out(tmp_path: Path) -> None:
    path = shard(tmp_path / "set.tar", samples(0, 4) | {"0001.png": "text", "0002.png": png(2)[:-30], "0003.png": ""})
    images = open_source(str(path)).splits["all"]
    bad = scan(images)
    assert [image.name for image in bad] == ["set.tar/0001.png", "set.tar/0002.png", "set.tar/0003.png"]
    assert [image.reason.split(" (")[0] for image in bad] == ["not an image", "truncated PNG", "an empty file"]
    with pytest.raises(InputError, match="no image that decodes in class '1'"):
        drop(images, bad)
    assert drop(images, bad[1:2]).names == ("set.tar/0000.png", "set.tar/0001.png", "set.tar/0003.png")


def test_files_that_are_not_there(tmp_path: Path) -> None:
    three(tmp_path)
    fails(tmp_path / "train-{000..003}.tar", "no file", "train-002.tar")
    fails(tmp_path / "train-{0..999999999}.tar", "no file", "train-0.tar")
    fails(tmp_path / "train-{3..1}.tar", "counts down")
    fails(tmp_path / "test-*.tar", "no file", "test-*.tar")
    fails(tmp_path / "none.tar", "no such folder or data set")
    fails("pipe:curl https://example.org/{0..3}.tar", "no file pipe:curl")
    (tmp_path / "train-002.tar").mkdir()
    fails(tmp_path / "train-*.tar", "train-002.tar: a folder, no .tar file")
    shutil.rmtree(tmp_path / "train-002.tar")
    (tmp_path / "train-002.tar").touch()
    fails(tmp_path, "train-002.tar: not readable as .tar (empty file)")


def test_braces() -> None:
    assert list(expand("a.tar")) == ["a.tar"]
    assert list(expand("{9..11}")) == ["9", "10", "11"]
    assert list(expand("{x,y}{0..1}")) == ["x0", "x1", "y0", "y1"]
    assert list(expand("{0..1}{x,y}")) == ["0x", "0y", "1x", "1y"]


def test_order_is_that_of_names_and_members(tmp_path: Path) -> None:
    """Not of the file system, nor of the pattern."""
    for i in (2, 0, 1):
        shard(tmp_path / f"train-{i}.tar", samples(10 * i, 3))
    expected = [0, 1, 2, 10, 11, 12, 20, 21, 22]
    source: Source = open_source(str(tmp_path))
    assert reds(source.splits["train"]) == expected
    assert reds(open_source(str(tmp_path / "train-{2,0,1}.tar")).splits["train"]) == expected
    assert np.array_equal(source.splits["train"].targets, [0, 1, 0] * 3)
