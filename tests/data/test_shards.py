"""WebDataset shards: every layout, exact bits with any number of processes, and one line for every bad shard."""

import gzip
import io
import json
import os
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from convit.data import (
    Augmentation,
    DataSource,
    EpochSampler,
    ImageSet,
    Preprocess,
    SampleDataset,
    drop,
    open_source,
    scan,
    training_transform,
)
from convit.data.shard_files import expand
from convit.errors import InputError
from tests.data.shards import png, samples, shard


def labels(images: ImageSet) -> dict[str, str]:
    return dict(zip(images.names, (images.class_names[t] for t in images.targets), strict=True))


def reds(images: ImageSet) -> list[int]:
    return [images.read(i).getpixel((0, 0))[0] for i in range(len(images))]


def fails(data: Path | str, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        open_source(str(data))
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def three(root: Path) -> Path:
    """Two shards to learn from and one to validate on, of 3, 2 and 2 images."""
    shard(root / "train-000.tar", samples(0, 3))
    shard(root / "train-001.tar", samples(3, 2))
    shard(root / "val-000.tar", samples(5, 2))
    return root


def test_parts_by_the_names_of_the_shards(tmp_path: Path) -> None:
    source = open_source(str(three(tmp_path / "set")))
    assert source.parts.keys() == {"train", "val"}
    assert (source.name, source.root) == ("set", str((tmp_path / "set").resolve()))
    assert labels(source.train) == {
        "train-000.tar/0000.png": "0",
        "train-000.tar/0001.png": "1",
        "train-000.tar/0002.png": "0",
        "train-001.tar/0003.png": "1",
        "train-001.tar/0004.png": "0",
    }
    assert (reds(source.train), reds(source.val)) == ([0, 1, 2, 3, 4], [5, 6])
    assert source.train.where(3) == f"{tmp_path}/set/train-001.tar:0003.png"
    assert source.train.size(0) == (6, 4)
    assert reds(source.train.subset([4, 1])) == [4, 1]
    assert reds(pickle.loads(pickle.dumps(source.train))) == [0, 1, 2, 3, 4]


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
    assert reds(source.train) == expected
    assert open_source(source.root).train.names == source.train.names
    assert set(source.train.names) <= set(open_source(str(tmp_path)).train.names)


def test_parts_by_folders_and_one_whole(tmp_path: Path) -> None:
    shard(tmp_path / "a/train/0.tar", samples(0, 2))
    shard(tmp_path / "a/test/0.tar", samples(2, 2))
    source = open_source(str(tmp_path / "a"))
    assert source.parts.keys() == {"train", "test"}
    assert source.test.names == ("test/0.tar/0002.png", "test/0.tar/0003.png")
    shard(tmp_path / "b/photos-0.tar", samples(0, 2))
    shard(tmp_path / "b/photos-1.tar", samples(0, 2))  # keys may repeat from shard to shard
    assert open_source(str(tmp_path / "b")).whole.names[::2] == ("photos-0.tar/0000.png", "photos-1.tar/0000.png")
    shard(tmp_path / "b/val.tar", samples(0, 2))
    fails(tmp_path / "b", "photos-0.tar: its name tells no part")
    fails(shard(tmp_path / "train-val.tar", samples(0, 2)), "tells two parts")


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
    assert labels(source.whole) == {"set.tar/a/1.jpg": "cat", "set.tar/a/2.PNG": "dog", "set.tar/a/3.webp": "ape"}
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
    assert source.train.targets.tolist() == [1, 0, 1]
    assert source.val.targets.tolist() == [1]
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
    images = open_source(str(tmp_path)).train
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
    images = open_source(str(path)).whole
    bad = scan(images, workers=2)
    assert [image.name for image in bad] == ["set.tar/0001.png", "set.tar/0002.png", "set.tar/0003.png"]
    assert [image.reason.split(" (")[0] for image in bad] == ["not an image", "truncated PNG", "an empty file"]
    with pytest.raises(InputError, match="no image that decodes in class '1'"):
        drop(images, bad)
    assert drop(images, bad[1:2]).names == ("set.tar/0000.png", "set.tar/0001.png", "set.tar/0003.png")


def test_a_shard_that_shrinks_is_named(tmp_path: Path) -> None:
    path = shard(tmp_path / "set.tar", samples(0, 4))
    images = open_source(str(path)).whole
    os.truncate(path, 700)
    assert images.read(0).size == (6, 4)
    with pytest.raises(InputError, match=r"set\.tar:0003\.png: the shard is shorter"):
        images.read(3)
    path.unlink()
    with pytest.raises(InputError, match=r"set\.tar:0000\.png: cannot be read \(No such file"):
        images.read(0)


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({}, "no image in 1 shards"),
        ({"1.png": png(0)}, "set.tar:1.png: no label"),
        ({"1.png": png(0), "1.pyd": pickle.dumps(0)}, "set.tar:1.png: no label"),
        ({"1.cls": "0"}, "'1.cls' without an image"),
        ({"1.png": png(0), "1.jpg": png(0), "1.cls": "0"}, "are two images"),
        ({"1.png": png(0), "1.cls": "cat"}, "set.tar:1.cls: the label is 'cat'; expected a whole number"),
        ({"1.png": png(0), "1.cls": "-1"}, "the label is '-1'"),
        ({"1.png": png(0), "1.cls": "9" * 5000}, "set.tar:1.cls: the label is '999"),
        ({"1.png": png(0), "1.txt": ""}, "set.tar:1.txt: the label is ''"),
        ({"1.png": png(0), "1.txt": "two\nlines"}, r"the label is 'two\nlines'; expected the name of a class"),
        ({"1.png": png(0), "1.txt": b"\xff"}, "set.tar:1.txt: no UTF-8"),
        ({"1.png": png(0), "1.txt": "x" * 2**21}, "set.tar:1.txt: 2097152 bytes; expected a label"),
        ({"1.png": png(0), "1.json": "{"}, "set.tar:1.json: not JSON"),
        ({"1.png": png(0), "1.json": "[" * 100000}, "set.tar:1.json: not JSON"),
        ({"1.png": png(0), "1.json": '{"label": true}'}, "set.tar:1.json: the label is"),
        ({"1.png": png(0), "1.json": '{"label": [1]}'}, "set.tar:1.json: the label is"),
        ({"a\nb.png": png(0), "a\nb.cls": "0"}, r"'a\nb.png' is no UTF-8 in one line"),
        ({"1.png": png(0), "1.cls": "0"}, "only one class, '0'"),
    ],
)
def test_bad_members(members: dict[str, bytes | str], said: str, tmp_path: Path) -> None:
    fails(shard(tmp_path / "set.tar", members), said)


def test_unpickling_never_happens(tmp_path: Path) -> None:
    """A pickle that would write a file when it is loaded lies there as pickle, label and image."""
    proof = tmp_path / "proof"

    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(proof),)

    attack = pickle.dumps(Attack())
    extra = {f"0000.{suffix}": attack for suffix in ("pyd", "pth", "pkl", "pickle", "npy", "pt")}
    source = open_source(str(shard(tmp_path / "a.tar", samples(0, 2) | extra)))
    assert len(source.whole) == 2
    fails(shard(tmp_path / "b.tar", samples(0, 2) | {"0000.cls": attack}), "b.tar:0000.cls")
    assert [bad.name for bad in scan(open_source(str(shard(tmp_path / "c.tar", samples(0, 2) | {"0000.png": attack})))
                                     .whole)] == ["c.tar/0000.png"]  # fmt: skip
    assert not proof.exists()


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_are_never_paths(format: int, tmp_path: Path) -> None:
    target = tmp_path / "outside"
    members = {f"{target}.png": png(1), f"{target}.txt": "a", "../../up.png": png(2), "../../up.txt": "b"}
    members |= {f"{'long/' * 25}1.png": png(3), f"{'long/' * 25}1.txt": "c"}
    images = open_source(str(shard(tmp_path / "in/set.tar", members, format))).whole
    assert reds(images) == [1, 2, 3]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["in", "set.tar"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(kind: bytes, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png(1))
    path = shard(tmp_path / "set.tar", samples(0, 2))
    with tarfile.open(path, "a") as tar:
        header = tarfile.TarInfo("0009.png")
        header.type, header.linkname = kind, str(tmp_path / "secret.png")
        tar.addfile(header)
    fails(path, "member '0009.png' is", "expected regular files")


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    path = shard(tmp_path / "set.tar", samples(0, 2))
    with tarfile.open(path, "a") as tar:
        tar.addfile(tarfile.TarInfo("./0001.png"))
    fails(path, "two members '0001.png'")


def test_sparse_members_are_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("1.png")
    header.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "0,5",
                          "GNU.sparse.size": "1000000000000", "GNU.sparse.name": "1.png"}  # fmt: skip
    header.size = 5
    with tarfile.open(tmp_path / "set.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(header, io.BytesIO(b"12345"))
    fails(tmp_path / "set.tar", "'1.png'", "expected")


@pytest.mark.parametrize(
    ("size", "said"),
    [(10**12, "claims 1000000000000 bytes"), (-(2**20), "claims -1048576 bytes"), (4096, "claims 4096 bytes")],
)
def test_sizes_that_are_not_true(size: int, said: str, tmp_path: Path) -> None:
    header = tarfile.TarInfo("1.png")
    header.size = size
    path = tmp_path / "set.tar"
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    fails(path, "set.tar: '1.png'", said)


@pytest.mark.parametrize("size", [10**13, -512])
@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_headers_before_a_member_with_sizes_that_are_not_true(kind: bytes, size: int, tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, size
    path = tmp_path / "set.tar"
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + shard(tmp_path / "good.tar", samples(0, 2)).read_bytes())
    fails(path, "set.tar")


def test_ten_thousand_nested_headers(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 0
    path = tmp_path / "set.tar"
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) * 10_000)
    fails(path, "set.tar: not readable as .tar (maximum recursion depth exceeded")


def test_damage_in_the_middle_is_no_early_end(tmp_path: Path) -> None:
    good = shard(tmp_path / "good.tar", samples(0, 4)).read_bytes()
    path = tmp_path / "set.tar"
    path.write_bytes(good[:2048] + b"\xa5" * 512 + good[2560:])  # the header of the third member
    fails(path, "set.tar: damaged at byte 2048")
    path.write_bytes(good[:2048] + bytes(1024) + good[3072:])
    fails(path, "set.tar: damaged at byte 2048")
    path.write_bytes(good + good)
    fails(path, "set.tar: damaged at byte 8192")
    path.write_bytes(good[:2300])
    fails(path, "set.tar: damaged at byte 2048")
    path.write_bytes(good[:2570])
    fails(path, "set.tar", "'0001.png' claims")
    path.write_bytes(good[:8192])  # without the end, which some writers leave out
    assert len(open_source(str(path)).whole) == 4


@pytest.mark.parametrize("name", ["set.tar", "set.tar.gz", "set.tgz", "set.tar.zst"])
def test_compressed_shards_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "in" / name
    content = shard(tmp_path / "plain.tar", samples(0, 2)).read_bytes()
    path.parent.mkdir()
    path.write_bytes(gzip.compress(content))
    for data in (path, path.parent, path.parent / f"*{name[3:]}"):
        fails(data, name, "not compressed" if name == "set.tar" else "compressed; expected a plain .tar file")


def test_files_that_are_not_there(tmp_path: Path) -> None:
    three(tmp_path)
    fails(tmp_path / "train-{000..003}.tar", "no file", "train-002.tar")
    fails(tmp_path / "train-{0..999999999}.tar", "no file", "train-0.tar")
    fails(tmp_path / "train-{3..1}.tar", "counts down")
    fails(tmp_path / "test-*.tar", "no file", "test-*.tar")
    fails(tmp_path / "none.tar", "no such folder or data set")
    fails("pipe:curl https://example.org/{0..3}.tar", "no file pipe:curl")
    (tmp_path / "train-002.tar").mkdir()
    fails(tmp_path / "train-*.tar", "train-002.tar: no .tar file")
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
    source: DataSource = open_source(str(tmp_path))
    assert reds(source.train) == expected
    assert reds(open_source(str(tmp_path / "train-{2,0,1}.tar")).train) == expected
    assert np.array_equal(source.train.targets, [0, 1, 0] * 3)
