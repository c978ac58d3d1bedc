"""Lists of images: every way to write one, and one line with the line number for every fault."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convit.data import Source, drop, open_source
from convit.errors import InputError
from tests.data.made import fails, labels, scan
from tests.helpers import refused

ROWS = "cats/1.png,cat\ndogs/2.png,dog\ncats/3.png,cat\ndogs/4.png,dog\n"


def photos(root: Path, *names: str) -> Path:
    for i, name in enumerate(names or ("cats/1.png", "dogs/2.png", "cats/3.png", "dogs/4.png")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4), (i, 0, 0)).save(root / name)
    return root


def manifest(root: Path, text: str | bytes, name: str = "list.csv") -> Source:
    path = root / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return open_source(str(path))


EXPECTED = {"cats/1.png": "cat", "dogs/2.png": "dog", "cats/3.png": "cat", "dogs/4.png": "dog"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.csv", "path,label\n" + ROWS),
        ("list.CSV", "\ufeffPath, Label\r\n" + ROWS.replace("\n", "\r\n")),
        ("list.csv", "image;class\n" + ROWS.replace(",", ";")),
        ("list.tsv", "file\ttarget\n" + ROWS.replace(",", "\t")),
        ("list.tsv", "filename,label\n" + ROWS),
        ("list.csv", "id,label,note,file_name\n1,cat,\"a, b\",cats/1.png\n2,dog,,dogs/2.png\n\n3, cat ,\"two\nlines\","
         "./cats/3.png\n4,dog,x,dogs//4.png\n,,,\n"),
    ],
)  # fmt: skip
def test_every_way_to_write_it(name: str, text: str, tmp_path: Path) -> None:
    source = manifest(photos(tmp_path), text, name)
    assert source.splits.keys() == {"all"}
    assert source.class_names == ("cat", "dog")
    assert labels(source.splits["all"]) == EXPECTED
    assert (source.name, source.root) == ("list", str((tmp_path / name).resolve()))
    assert source.splits["all"].where(1) == str(tmp_path.resolve() / "dogs/2.png")
    assert [source.splits["all"].read(i).getpixel((0, 0))[0] for i in range(4)] == [0, 1, 2, 3]
    assert open_source(source.root).splits["all"].names == source.splits["all"].names


def test_missing_files_are_left_to_the_scan(tmp_path: Path) -> None:
    (photos(tmp_path) / "list.csv").write_text("path,label\n" + ROWS + "cats/5.png,cat\n")
    images = open_source(str(tmp_path / "list.csv"), missing=True).splits["all"]
    (bad,) = scan(images)
    assert (bad.name, bad.reason.split(";")[0]) == ("cats/5.png", "cannot be read (No such file or directory)")
    assert labels(drop(images, [bad])) == EXPECTED
    contents = images.contents()
    assert contents[4] == -1
    assert min(contents[:4]) > 0


def test_a_split_column_makes_splits_that_are_matched_by_name(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(6)]
    rows = ("train,dog", "Train,cat", "train,ant", "valid,dog", "test,cat", "test,dog")
    text = "part,label,path\n" + "".join(f"{row},{name}\n" for row, name in zip(rows, names, strict=True))
    source = manifest(photos(tmp_path, *names), text)
    assert source.splits.keys() == {"train", "val", "test"}
    assert source.class_names == ("ant", "cat", "dog")
    assert labels(source.splits["val"]) == {"3.png": "dog"}
    assert source.splits["val"].targets.tolist() == [2]  # by position among the classes of val it would be 0
    assert source.splits["test"].targets.tolist() == [1, 2]


def test_whole_numbers_are_ordered_by_value_and_absolute_paths_work(tmp_path: Path) -> None:
    photos(tmp_path, "elsewhere/a.png", "b.png", "lists/c.png")
    text = f"path,label\n{tmp_path}/elsewhere/a.png,10\n../b.png,9\nc.png,100\n"
    source = manifest(tmp_path / "lists", text)
    assert source.class_names == ("9", "10", "100")
    assert [source.splits["all"].read(i).getpixel((0, 0))[0] for i in range(3)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "an empty file"),
        ("path,label\n", "no row below the header"),
        ("path,size\ncats/1.png,3\n", "no column for label, got 'path', 'size'; expected a header line"),
        (ROWS, "no column for path and label, got 'cats/1.png', 'cat'"),
        ("path,image,label\n", "columns 'path', 'image' all mean the path; expected one"),
        ("path,label\ncats/1.png,cat\nno.png,cat\nno2.png,cat\n", "line 3: no file 'no.png', and 1 more are missing"),
        ("path,label\ncats,cat\n", "line 2: no file 'cats' (a folder)"),
        ("path,label\n\ncats/1.png,\n", "line 3: no label"),
        ("path,label\n,cat\n", "line 2: no path"),
        ("path,label\ncats/1.png,cat\n./cats/1.png,dog\n", "line 3: './cats/1.png' again, as on line 2"),
        ("path,label\ncats/1.png,cat,tabby\n", "line 2: 3 values, expected 2"),
        ('path,label\ncats/1.png,"a\nb"\n', r"line 2: label 'a\nb' is more than plain text"),
        ('path,label\n"cats/1.png",cat\n"dogs/2.png,dog\n', "line 3: unexpected end of data"),
        (b"path,label\ncats/1.png,k\xe4tzchen\n", "line 2: no UTF-8"),
        ("path,label,split\ncats/1.png,cat,fold 3\n", "line 2: split 'fold 3'; expected train, val or test"),
        ("path,label,split\ncats/1.png,cat,\n", "line 2: split ''"),
        ("path,label\ncats/1.png,cat\n", "only one class, 'cat'; expected at least 2"),
        ("path,label,split\ncats/1.png,cat,train\ndogs/2.png,dog,train\ncats/3.png,ant,val\n", "unknown class 'ant'"),
    ],
)  # fmt: skip
def test_faults_in_text(text: str | bytes, said: str, tmp_path: Path) -> None:
    refused(lambda: manifest(photos(tmp_path), text), said)


def test_bad_images_are_found_and_left_out(tmp_path: Path) -> None:
    photos(tmp_path)
    (tmp_path / "cats/3.png").write_text("text")
    images = manifest(tmp_path, "path,label\n" + ROWS).splits["all"]
    bad = scan(images)
    assert [(image.name, image.reason[:12]) for image in bad] == [("cats/3.png", "not an image")]
    assert drop(images, bad).names == ("cats/1.png", "dogs/2.png", "dogs/4.png")


def parquet(file: Path, /, **columns: Any) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow, of the extra [hub]")
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table(columns), file)
    return file


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow, of the extra [hub]")
    names = list(EXPECTED)
    path = parquet(photos(tmp_path) / "list.parquet", path=names, label=list(EXPECTED.values()))
    assert labels(open_source(str(path)).splits["all"]) == EXPECTED
    numbers = parquet(path, Image=names, Target=np.array([10, 9, 10, 9]), split=["train", "train", "val", "test"])
    assert open_source(str(numbers)).class_names == ("9", "10")
    words = pyarrow.array(["cat", "dog", "cat", "dog"]).dictionary_encode()
    assert labels(open_source(str(parquet(path, path=names, label=words))).splits["all"]) == EXPECTED


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"path": ["cats/1.png", "dogs/2.png"], "label": ["cat", None]}, "row 2: no label"),
        ({"path": ["cats/1.png"], "label": [0.5]}, "column 'label' holds double; expected text, or whole numbers"),
        ({"path": [{"bytes": b"", "path": "x"}], "label": ["a"]}, "column 'path' holds struct<"),
        ({"path": ["cats/1.png"], "size": [1]}, "no column for label, got 'path', 'size'"),
    ],
)
def test_faults_in_parquet(columns: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = parquet(photos(tmp_path) / "list.parquet", **columns)
    fails(path, said)


def test_what_is_no_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow, of the extra [hub]")
    (tmp_path / "list.parquet").write_bytes(b"path,label\n")
    with pytest.raises(InputError, match=r"list\.parquet: not readable as Parquet"):
        open_source(str(tmp_path / "list.parquet"))


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "list.parquet").touch()
    with pytest.raises(InputError, match=r"pip install 'convit\[hub\]'"):
        open_source(str(tmp_path / "list.parquet"))


@pytest.mark.parametrize(
    ("one", "other", "said"), [("Cat", "cat", 1), ("red cat", "red  cat", 1), ("A", "a", 0), ("cat", "dog", 0)]
)
def test_classes_that_differ_in_case_alone_are_named(one: str, other: str, said: int, tmp_path: Path) -> None:
    photos(tmp_path)
    table = tmp_path / "a.csv"
    table.write_text(f"path,label\ncats/1.png,{one}\ndogs/2.png,{other}\n")
    assert sum("case or blanks alone" in note for note in open_source(str(table)).notes) == said
