"""Options that are wrong are refused in the same words from the command line, from YAML and from Python, at once."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import convit
from tests.cli.command import Shell

LIMIT = 2.0
"""Seconds; nothing heavy is loaded for it."""

OPTIONS: list[tuple[str, str, dict[str, Any], str]] = [
    ("--epochss 3", "epochss: 3", {"epochss": 3}, "unknown option 'epochss'; did you mean 'epochs'?"),
    ("--batch_siez 8", "batch_siez: 8", {"batch_siez": 8}, "unknown option 'batch-siez'; did you mean 'batch-size'?"),
    ("--zebra", "zebra: 1", {"zebra": 1}, "unknown option 'zebra'"),
    ("--epochs three", "epochs: three", {"epochs": "three"}, "epochs: got three, expected a whole number"),
    ("--epochs 0", "epochs: 0", {"epochs": 0}, "epochs: got 0, expected a whole number of at least 1"),
    ("--epochs 2.5", "epochs: 2.5", {"epochs": 2.5}, "epochs: got 2.5, expected a whole number of at least 1"),
    ("--batch-size 7", "batch_size: 7", {"batch_size": 7}, "batch-size: got 7, expected a whole number of at least 2 "),
    ("--lr nan", "lr: .nan", {"lr": float("nan")}, "lr: got nan, expected a number above 0"),
    ("--lr -1", "lr: -1", {"lr": -1}, "lr: got -1, expected a number above 0"),
    ("--gate-init -30", "gate_init: -30", {"gate_init": -30}, "gate-init: got -30, expected a number from -20 to 20"),
    ("--seed -1", "seed: -1", {"seed": -1}, "seed: got -1, expected a whole number"),
    ("--image-size 8 8 8", "image_size: [8, 8, 8]", {"image_size": (8, 8, 8)}, "image-size: got 8 8 8, expected"),
    ("--image-size 8 x", "image_size: [8, x]", {"image_size": [8, "x"]}, "image-size: got 8 x, expected 1 to 2 values"),
    ("--precision fp8", "precision: fp8", {"precision": "fp8"}, "precision: got fp8, expected fp32, bf16 or fp16"),
    ("--recipe smal", "recipe: smal", {"recipe": "smal"}, "recipe: got smal, expected small, finetune or paper;"),
    ("--out=", 'out: ""', {"out": ""}, "out: got nothing, expected a path"),
    (
        "--fraction 0.5 --per-class 3",
        "{fraction: 0.5, per_class: 3}",
        {"fraction": 0.5, "per_class": 3},
        "fraction and per-class: got both, expected one of them",
    ),
    (
        "--pretrained --weights x.pth",
        "{pretrained: true, weights: x.pth}",
        {"pretrained": True, "weights": "x.pth"},
        "pretrained and weights: got both, expected one of them",
    ),
]


@pytest.mark.parametrize(("words", "line_of_yaml", "options", "line"), OPTIONS, ids=[row[0] for row in OPTIONS])
def test_same_words(
    words: str, line_of_yaml: str, options: dict[str, Any], line: str, tmp_path: Path, shell: Shell
) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(line_of_yaml)
    said = shell.refuses("train", "digits", *words.split(), says=(line,))
    assert said.startswith(f"convit train: {line}")
    assert shell.refuses("train", "digits", "--config", config, says=()) == said
    for given in (options, {"config": config}):
        with pytest.raises(ValueError, match=r"expected|unknown") as caught:
            convit.train("digits", **given)
        assert f"convit train: {caught.value}" == said
    assert list(tmp_path.iterdir()) == [config]


YAML: dict[str, tuple[str | bytes, str]] = {
    "a key twice": ("epochs: 3\nlr: 0.1\nepochs: 4\n", "line 3: 'epochs' twice; expected each option once"),
    "a date": ("out: 2024-01-31", "out: got 2024-01-31, expected a path (YAML reads this as a date: put it in quotes)"),
    "true for a word": ("recipe: yes", "recipe: got True, expected small, finetune or paper"),
    "a number in quotes": ("epochs: '3'", "epochs: got '3', expected a whole number of at least 1"),
    "a list for a number": ("epochs: [3]", "epochs: got [3], expected a whole number of at least 1"),
    "a mapping": ("epochs: {a: 3}", "epochs: got {'a': 3}, expected a whole number of at least 1"),
    "groups": ("model:\n  heads:\n    - 3\n", "values inside values; expected a YAML file of options"),
    "a number as a key": ("1: 2", "unknown option '1'"),
    "a list": ("- epochs", "a list; expected a YAML file of options"),
    "nothing": ("", "nothing in it; expected a YAML file of options"),
    "no YAML": ("epochs: [3\nlr: 1", "not YAML ("),
    "a null byte": ("out: \x00\n", "not YAML"),
    "bytes": (b"epochs: \xff\xfe", "no UTF-8; expected a YAML file of options"),
    "a python object": ("out: !!python/object/apply:os.system [touch pwned]", "the tag 'tag:yaml.org,2002:python/"),
    "another tag": ("out: !!binary aGk=", "the tag 'tag:yaml.org,2002:binary'; expected a YAML file of options"),
    "an anchor bomb": (
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{c}: &{c} [{', '.join(['*' + p] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)),
        "line 1: an anchor; expected a YAML file of options",
    ),
    "10,000 levels": ("epochs: " + "[" * 10_000, "values inside values; expected a YAML file of options"),
    "10,000 levels of mappings": ("a: " + "{a: " * 10_000, "values inside values; expected a YAML file of options"),
    "too much of it": ("# " + "x" * (2 << 20), "more than 1048576 bytes; expected a YAML file of options"),
}


@pytest.mark.parametrize("kind", YAML)
def test_yaml_from_anybody(kind: str, tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    text, says = YAML[kind]
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "mine.yaml"
    config.write_bytes(text if isinstance(text, bytes) else text.encode())
    began = time.monotonic()
    said = shell.refuses("train", "digits", "--config", config, says=(says,))
    with pytest.raises(ValueError, match=r"expected|unknown") as caught:
        convit.train("digits", config=config)
    assert time.monotonic() - began < 2 * LIMIT
    assert f"convit train: {caught.value}" == said
    assert list(tmp_path.iterdir()) == [config]


def test_no_such_file(tmp_path: Path, shell: Shell) -> None:
    for config in (tmp_path / "none.yaml", tmp_path):
        said = shell.refuses("train", "digits", "--config", config, says=(config, "cannot be read", "expected"))
        with pytest.raises(convit.InputError) as caught:
            convit.train("digits", config=config)
        assert f"convit train: {caught.value}" == said


def test_no_data(shell: Shell) -> None:
    said = shell.refuses("train", says=("data: got none, expected a folder of images",))
    with pytest.raises(convit.InputError) as caught:
        convit.train()
    for data in (["photos"], 3, b"photos"):
        with pytest.raises(convit.InputError, match=r"data: got a (list|int|bytes), expected the path"):
            convit.train(data)  # type: ignore[arg-type]
    assert f"convit train: {caught.value}" == said


@pytest.mark.parametrize(
    "arguments", ["digits --epochs three", "digits --config bomb.yaml", "digits --pretrained --weights x", ""]
)
def test_at_once(arguments: str, tmp_path: Path) -> None:
    """In a process of its own, of which the seconds count that it has computed: a busy machine is no fault."""
    (tmp_path / "bomb.yaml").write_text(str(YAML["10,000 levels"][0]))
    command = [sys.executable, "-m", "convit_launcher", "train", *arguments.split()]
    before = os.times()
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    after = os.times()
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert after.children_user + after.children_system - before.children_user - before.children_system < LIMIT


def test_yaml_and_words_together(tmp_path: Path, shell: Shell) -> None:
    """Those typed go before those of the file, also where they are what is taken by default."""
    from convit.cli.options.train import TrainCommand
    from convit.cli.words import read
    from convit.training.options import Asked, asked_from

    config = tmp_path / "mine.yaml"
    config.write_text("data: digits\nlr: 1e-3\nskip-bad: true\nimage_size: [8, 16]\nepochs: 3\nflip: null\n")
    typed = read(TrainCommand, ["--config", str(config), "--no-skip-bad", "--epochs", "4", "--no-flip"])
    expected = Asked(data="digits", lr=1e-3, image_size=(8, 16), epochs=4, flip=False)
    assert TrainCommand.of_words(typed).only(Asked) == expected
    assert asked_from(config, {"skip_bad": False, "epochs": 4, "flip": False}) == expected
