"""Names of strangers: bytes that are no UTF-8, control characters, two Unicode forms of one name, scripts that fonts
lack, a terminal of few letters, no home."""

import csv
import io
import json
import os
import sys
import unicodedata
import warnings
from pathlib import Path

import pytest
from matplotlib import font_manager

import convit
import convit_launcher
from convit import figures
from convit.cli.options.experiment import ExperimentCommand
from convit.data import open_source
from convit.data.select import Evaluating, Known, select
from convit.errors import InputError
from convit.files import printable
from tests.cli.command import SMALL, Shell, photos
from tests.helpers import noise

pytestmark = pytest.mark.pictures

LATIN = os.fsdecode(b"caf\xe9.png")
ESCAPE = "\x1b[31mred\x07\n.png"
NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
posix = pytest.mark.skipif(sys.platform != "linux", reason="needs a disk that takes names as bytes")


def picture(path: Path, seed: int = 0) -> Path:
    """A noisy picture, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise(8, 8, seed).save(path, format="png")
    return path


def raw(text: str) -> bool:
    """Whether a text has what a terminal acts on, apart from line ends."""
    return any(c not in "\n\r" and not c.isprintable() for c in text)


# -- names of files ----------------------------------------------------------------------------------------------------


@posix
def test_a_run_on_files_with_odd_names(tmp_path: Path, shell: Shell) -> None:
    data = photos(tmp_path / os.fsdecode(b"d\xe4ta"), {"ape": 5, "bee\n\x1b[1m": 5})
    for i, name in enumerate((LATIN, ESCAPE, "-a.png", 'q"uo\\te,;.png')):
        picture(data / "ape" / name, i)
    out = tmp_path / os.fsdecode(b"r\xfcn")
    for words in (
        ("train", data, "--out", out, "--fraction", "0.5", *SMALL),
        ("train", "--resume", out),
        ("evaluate", out, data, "--split", "all"),
        ("predict", out, data, "--csv", tmp_path / "p.csv"),
        ("inspect", out, data / "ape" / LATIN, "--skip-masking", "--layers", "1"),
    ):
        got = shell(*words)
        assert got.status == 0, got.err
        assert not raw(got.out + got.err)
    split = json.loads((out / "split.json").read_bytes())
    assert {f"ape/{LATIN}", f"ape/{ESCAPE}"} & {name for names in split.values() for name in names}
    kept = convit.load(out)
    assert kept.class_names == ("ape", "bee\n\x1b[1m")


@posix
def test_a_class_that_is_no_utf8_is_refused_by_name(tmp_path: Path, shell: Shell) -> None:
    data = photos(tmp_path / "data", {"ape": 3, os.fsdecode(b"caf\xe9"): 3})
    shell.refuses("train", data, "--out", tmp_path / "run", *SMALL, says=(r"caf\xe9", "UTF-8", "rename"))


@posix
def test_tables_give_back_the_names(run: Path, tmp_path: Path, shell: Shell) -> None:
    names = {f"{name}.png" for name in ("a\\b", 'q"uo"te', "a,b;c", "two\nlines", "\r", "-a", "~", "é" + NFD)}
    data = tmp_path / "data"
    for i, name in enumerate(sorted(names)):
        picture(data / "ape" / name, i)
    assert shell("predict", run, data, "--csv", tmp_path / "p.csv").status == 0
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as stream:
        assert {Path(row["image"]).name for row in csv.DictReader(stream)} == names
    got = shell("evaluate", run, data, "--out", tmp_path / "e")
    with (tmp_path / "e/mistakes.csv").open(newline="", encoding="utf-8") as stream:
        wrong = list(csv.DictReader(stream))
    assert {row["image"].removeprefix("ape/") for row in wrong} <= names
    assert got.status == 0


def test_left_out_pictures_are_printable(run: Path, tmp_path: Path, shell: Shell) -> None:
    picture(tmp_path / "in/good.png")
    (tmp_path / "in/bad\x1b[2J.png").write_bytes(b"no picture")
    got = shell("predict", run, tmp_path / "in", "--skip-bad")
    assert got.status == 0
    assert r"bad\x1b[2J.png" in got.err
    assert not raw(got.out + got.err)


def test_a_byte_of_a_name_is_shown_as_one() -> None:
    assert printable(LATIN) == r"caf\xe9.png"
    assert printable("\ud800") == r"\ud800"


# -- two forms of a name -----------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("layout", ["splits", "classes", "table"])
def test_two_unicode_forms_of_a_class_are_one(layout: str, tmp_path: Path) -> None:
    assert NFC != NFD
    if layout == "table":
        files = [picture(tmp_path / f"{i}.png", i) for i in range(3)]
        labels = (NFC, NFD, "tea")
        rows = "".join(f"{file.name},{label}\n" for file, label in zip(files, labels, strict=True))
        (tmp_path / "list.csv").write_text(f"path,label\n{rows}")
        source = open_source(str(tmp_path / "list.csv"))
        assert source.splits["all"].counts().tolist() == [2, 1]
    elif layout == "classes":
        photos(tmp_path / "data", {NFC: 2, NFD: 3, "tea": 2})
        source = open_source(str(tmp_path / "data"))
        assert source.splits["all"].counts().tolist() == [5, 2]
        assert source.splits["all"].read(4).size == (8, 8)
    else:
        photos(tmp_path / "data/train", {NFC: 2, "tea": 2})
        photos(tmp_path / "data/val", {NFD: 3, "tea": 1})
        source = open_source(str(tmp_path / "data"))
        assert source.splits["val"].counts().tolist() == [3, 1]
    assert source.class_names == (NFC, "tea")


@posix
@pytest.mark.parametrize(("listed", "there"), [(NFC, NFD), (NFD, NFC)])
def test_a_list_finds_files_of_the_other_unicode_form(listed: str, there: str, tmp_path: Path) -> None:
    for i in range(2):
        picture(tmp_path / there / f"{there}{i}.png", i)
    rows = "".join(f"{listed}/{listed}{i}.png,{i}\n" for i in range(2))
    (tmp_path / "list.csv").write_text(f"path,label\n{rows}", encoding="utf-8")
    images = open_source(str(tmp_path / "list.csv")).splits["all"]
    assert [images.read(i).size for i in range(2)] == [(8, 8)] * 2
    (tmp_path / there / f"{there}1.png").unlink()
    with pytest.raises(InputError, match="no file"):
        open_source(str(tmp_path / "list.csv"))


@posix
def test_images_that_were_learned_are_known_in_the_other_form(tmp_path: Path) -> None:
    data = photos(tmp_path / "data", {NFD: 3, "tea": 3})
    names = [f"{NFC}/{i}.png" for i in range(3)]
    known = Known(class_names=(NFC, "tea"), root="/elsewhere", split={"train": names, "val": ["tea/0.png"]})
    assert any("learned from" in note for note in select(str(data), Evaluating(known=known)).notes)
    chosen = select(str(data), Evaluating(known=known, split="train")).splits["train"]
    assert len(chosen) == 3
    assert chosen.class_names == (NFC, "tea")


# -- terminals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("words", ["train --dry-run", "predict", "evaluate", "evaluate --json", "refused"])
def test_a_terminal_of_few_letters(
    words: str, encoding: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = photos(tmp_path / "数据", {"ape": 4, "cow": 4})
    name, *more = words.split()
    arguments = {
        "train": (data, *SMALL),
        "predict": (run, data),
        "evaluate": (run, data, "--out", tmp_path / "out"),
        "refused": ("--数",),
    }[name]
    streams = [io.TextIOWrapper(io.BytesIO(), encoding, errors="strict") for _ in range(2)]
    for stream, at in zip(streams, ("stdout", "stderr"), strict=True):
        monkeypatch.setattr(sys, at, stream)
    command = "predict" if name == "refused" else name
    monkeypatch.setattr(sys, "argv", ["convit", command, *map(str, arguments), *more])
    status = convit_launcher.main()
    for stream in streams:
        stream.flush()
    out, err = (stream.buffer.getvalue().decode(encoding) for stream in streams)  # type: ignore[attr-defined]
    assert status == (2 if name == "refused" else 0), err
    if more == ["--json"]:
        assert json.loads(out)["data"] == str(data)
    elif name != "refused":
        assert r"\u6570\u636e" in out


# -- homes -------------------------------------------------------------------------------------------------------------


PATHS = {
    "train": ("out", "weights", "teacher-weights", "resume", "config", "data-root"),
    "predict": ("csv", "json"),
    "evaluate": ("out", "json", "data-root"),
    "inspect": ("out", "json"),
    "export": ("out",),
    "bench": ("onnx", "json"),
    "experiment": ("out", "data-root", "teacher-weights"),
}


@pytest.mark.parametrize("command", PATHS)
def test_nobody_s_home_is_refused_by_name(
    command: str, tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for option in PATHS[command]:
        words = (command, *{"train": ["x"], "export": ["x"], "bench": []}.get(command, ["ablation", "x"]))
        shell.refuses(*words, f"--{option}=~nobody-here/x.json", says=(option, "~nobody-here", "home"))
    assert not list(tmp_path.iterdir())


def test_a_home_is_meant_everywhere(
    run: Path, animals: Path, tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "cwd").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "cwd")
    assert shell("predict", run, animals, "--csv=~/p.csv", "--json=~/p.json").status == 0
    assert shell("evaluate", run, animals, "--out=~/e", "--json=~/e.json").status == 0
    assert {path.name for path in (tmp_path / "home").iterdir()} == {"p.csv", "p.json", "e", "e.json"}
    assert ExperimentCommand.of_words({"name": "ablation", "data": "digits", "out": "~/x"}).out == tmp_path / "home/x"
    assert not list((tmp_path / "cwd").iterdir())


def test_no_home_is_refused_where_one_is_needed(shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def nobody(self: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("CONVIT_DATA", raising=False)
    monkeypatch.setattr(Path, "expanduser", lambda self: nobody(self) if str(self).startswith("~") else self)
    shell.refuses("train", "cifar10", "--out", tmp_path / "run", *SMALL, says=("--data-root",))


# -- pictures ----------------------------------------------------------------------------------------------------------


def drawn(text: str, path: Path) -> None:
    """A figure with the text as a title and as the name of a tick."""
    figure, (axes,) = figures.new_figure(3, 2)
    figures.label(axes, text, "x", "y")
    axes.set_xticks([0], [figures.plain(text)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.save(figure, path)


FORMULAS = ["$\\frac$", "a_$x_{$", "a$b$c"]  # of which matplotlib would make others, or errors
SCRIPTS = ["猫", "日本語", "고양이", "\U0001f408", "हिन्दी", "\U000f0000"]


@pytest.mark.parametrize("text", [*FORMULAS, *SCRIPTS, LATIN, ESCAPE])
def test_letters_are_drawn_or_escaped_never_boxes(text: str, tmp_path: Path) -> None:
    drawn(text, tmp_path / "a.png")
    for letter in figures.plain(text).replace("\n", ""):
        assert figures.font_of(letter) is not None


def test_a_font_that_has_the_letters_is_taken(tmp_path: Path) -> None:
    """matplotlib brings STIX, whose letters are not all in its usual font."""
    usual, other = (
        set(font_manager.get_font(font_manager.findfont(name)).get_charmap()) for name in ("DejaVu Sans", "STIXGeneral")
    )
    letter = next(chr(code) for code in sorted(other - usual) if chr(code).isalpha())
    assert figures.plain(letter) == letter
    assert figures.font_of(letter) != figures.font_of("a")
    drawn(letter, tmp_path / "a.png")
    drawn("\U000f0000", tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()
