"""Shards that are damaged or meant to harm: one line each, nothing unpickled, nothing outside read or written."""

import gzip
import io
import os
import pickle
import tarfile
from pathlib import Path

import pytest

from convit.data import open_source
from convit.errors import InputError
from tests.data.made import fails, reds, scan
from tests.data.shards import png, samples, shard


def test_a_shard_that_shrinks_is_named(tmp_path: Path) -> None:
    path = shard(tmp_path / "set.tar", samples(0, 4))
    images = open_source(str(path)).splits["all"]
    os.truncate(path, 700)
    assert images.read(0).size == (6, 4)
    with pytest.raises(InputError, match=r"set\.tar:0003\.png: the shard is shorter"):
        images.read(3)
    path.unlink()
    with pytest.raises(InputError, match=r"set\.tar:0000\.png: cannot be read \(No such file"):
        images.read(0)


def test_a_shard_that_ends_where_a_sample_ends_is_named(tmp_path: Path) -> None:
    """Nothing else tells that the images behind are missing."""
    whole = open_source(str(shard(tmp_path / "set.tar", samples(0, 4))))
    assert (len(whole.splits["all"]), whole.notes) == (4, ())
    os.truncate(tmp_path / "set.tar", 2 * 4 * 512)  # of each sample two headers and two blocks
    cut = open_source(str(tmp_path / "set.tar"))
    assert len(cut.splits["all"]) == 2
    assert cut.notes == ("set.tar has no end mark of a .tar file: if it was cut off there, images are missing",)


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
    assert len(source.splits["all"]) == 2
    fails(shard(tmp_path / "b.tar", samples(0, 2) | {"0000.cls": attack}), "b.tar:0000.cls")
    assert [bad.name for bad in scan(open_source(str(shard(tmp_path / "c.tar", samples(0, 2) | {"0000.png": attack})))
                                     .splits["all"])] == ["c.tar/0000.png"]  # fmt: skip
    assert not proof.exists()


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_are_never_paths(format: int, tmp_path: Path) -> None:
    target = tmp_path / "outside"
    members = {f"{target}.png": png(1), f"{target}.txt": "a", "../../up.png": png(2), "../../up.txt": "b"}
    members |= {f"{'long/' * 25}1.png": png(3), f"{'long/' * 25}1.txt": "c"}
    images = open_source(str(shard(tmp_path / "in/set.tar", members, format))).splits["all"]
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
    assert len(open_source(str(path)).splits["all"]) == 4


@pytest.mark.parametrize("name", ["set.tar", "set.tar.gz", "set.tgz", "set.tar.zst"])
def test_compressed_shards_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "in" / name
    content = shard(tmp_path / "plain.tar", samples(0, 2)).read_bytes()
    path.parent.mkdir()
    path.write_bytes(gzip.compress(content))
    for data in (path, path.parent, path.parent / f"*{name[3:]}"):
        fails(data, name, "not compressed" if name == "set.tar" else "compressed; expected a plain .tar file")
