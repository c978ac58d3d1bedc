"""Files of options that somebody hands over."""

from pathlib import Path

import pytest

from convit.options_file import read_yaml
from tests.cli.command import Shell
from tests.helpers import refused

YAML = {
    "deep": "a: " + "[" * 100_000,
    "deep blocks": "".join(" " * n + "a:\n" for n in range(3000)),
    "no date": "epochs: 2020-99-99",
    "a huge number": f"epochs: {'9' * 5000}",
    "a huge hexadecimal number": f"epochs: 0x{'f' * 50_000}",
    "a huge binary number": f"seed: 0b{'1' * 50_000}",
    "a huge number in a list": f"image_size: [0x{'f' * 50_000}]",
    "a huge number as a name": f"0x{'f' * 50_000}: 3",
    "NaN": "lr: .nan",
    "infinity": "lr: .inf",
    "twice in other words": "batch-size: 3\nbatch_size: 4",
    "merged": "epochs: 3\n<<: {epochs: 5}",
    "a list as a name": "? [a, b]\n: 3",
    "nothing as a name": "? \n: 3",
    "a set": "epochs: {3, 4}",
    "control characters": "epochs: \x07",
    "two documents": "epochs: 3\n---\nepochs: 4",
    "true for a number": "epochs: true",
    "a number for a word": "model: 3",
    "sixties": "epochs: 1:30",
    "half a character": 'precision: "\\udcff"',
}


@pytest.mark.parametrize("what", YAML)
def test_yaml_that_nobody_writes(what: str, tmp_path: Path, shell: Shell) -> None:
    (tmp_path / "a.yaml").write_text(YAML[what])
    line = shell.refuses("train", "digits", "--config", tmp_path / "a.yaml", "--dry-run", says=("convit train: ",))
    assert len(line) < 600


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_yaml_in_another_encoding(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes("model: müll".encode(encoding))
    refused(lambda: read_yaml(tmp_path / "a.yaml"), "a.yaml: no UTF-8")


@pytest.mark.parametrize(
    ("line", "got"),
    [
        ("epochs: 010", "epochs: got '010', expected"),  # 8 in YAML 1.1, 10 in YAML 1.2
        ("seed: 0_7", "seed: got '0_7', expected"),
        ("lr: '0.1'", "lr: got '0.1', expected"),
        ("flip: 'true'", "flip: got 'true', expected"),
        ("model: [convit_nano_patch4_32]", "model: got ['convit_nano_patch4_32'], expected"),
        ("image_size: ['32', 32]", "image-size: got ['32', 32], expected"),
        ("model: no", "reads yes, no, on and off as true or false: put it in quotes"),
        ("out: on", "reads yes, no, on and off as true or false: put it in quotes"),
    ],
)
def test_a_value_that_would_look_right(line: str, got: str, tmp_path: Path, shell: Shell) -> None:
    """The message shows what is wrong with it; and no number is read as another one."""
    (tmp_path / "a.yaml").write_text(line)
    shell.refuses("train", "digits", "--config", tmp_path / "a.yaml", "--dry-run", says=(got,))


def test_thousands_of_lines(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("".join(f"k{n}: 1\n" for n in range(100_000)))
    refused(lambda: read_yaml(tmp_path / "a.yaml"), "a.yaml: more than 1000 names")
