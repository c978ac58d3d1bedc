"""The help of every command, as a terminal shows it: at once, without noise, and in columns that hold."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import convit_launcher
from tests.cli.command import Shell

COMMANDS = tuple(convit_launcher.COMMANDS)

NOISE = {
    "a default that says nothing": r"default: *(None|False)?\)",
    "None as a choice": r"\bNone\b",
    "a type in braces": r"[{}]",
    "a list in double brackets": r"\[\w+ \[",
}

WITHOUT_TORCH = """
import sys, convit_launcher
sys.argv = ["convit", *sys.argv[1:]]
try:
    status = convit_launcher.main()
except SystemExit as stop:
    status = stop.code
loaded = {"torch", "timm", "torchvision", "matplotlib", "sklearn"} & set(sys.modules)
sys.exit(f"loaded {loaded}" if loaded else status)
"""


def shown(command: str, columns: int, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> str:
    """The help, as text without boxes: where output is no UTF-8, as here, they are blanks."""
    monkeypatch.setenv("COLUMNS", str(columns))
    got = shell(command, "--help")
    assert (got.status, got.err) == (0, "")
    return got.out


def in_one_line(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("arguments", "status"), [(["--help"], 0), (["--no-such-option"], 2)])
def test_neither_help_nor_a_mistake_loads_pytorch(command: str, arguments: list[str], status: int) -> None:
    code = [sys.executable, "-c", WITHOUT_TORCH, command, *arguments]
    done = subprocess.run(code, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_noise(command: str, columns: int, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    text = in_one_line(shown(command, columns, shell, monkeypatch))
    for what, pattern in NOISE.items():
        found = re.search(pattern, text)
        assert found is None, f"{what}: {text[max(0, found.start() - 60) : found.end() + 20]}"


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("command", COMMANDS)
def test_fits_the_terminal(command: str, columns: int, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(command, columns, shell, monkeypatch).splitlines()
    assert max(map(len, lines)) <= columns


def test_how_options_read(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown("train", 120, shell, monkeypatch)
    for invocation in (
        "--epochs INT ",
        "--image-size INT [INT] ",
        "--recipe small|finetune|paper ",
        "--flip True|False ",
        "--out PATH ",
        "--compile ",
    ):
        assert f"\n  {invocation}" in text
    assert "--against twin|timm|deit ..." in shown("bench", 120, shell, monkeypatch)


def test_every_option_says_its_default_in_brackets(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown("train", 120, shell, monkeypatch)
    words = in_one_line(text)
    for said in (
        "where the data has no validation part [0.1] --fraction",
        "Name of the model, from 'convit models' [by the size of the images] --image-size",
        "Replace the run in --out [off]",
        "with a new head [none]",
    ):
        assert said in words
    assert words.count("[") == len(re.findall(r"\n  --[a-z]", text)) + len(["[-h]", "[OPTIONS]", "[brackets]", "[INT]"])


def test_options_stay_grouped(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    words = in_one_line(re.sub("-{9,}", "", shown("train", 80, shell, monkeypatch)))
    for title, said in {
        "data": "What to learn from.",
        "model": "What to train.",
        "training": "How to train: AdamW, a linear warm-up, then a cosine.",
        "augmentation": "How images are varied in training.",
        "distillation": "A trained model to learn from besides the labels.",
        "run": "Where it goes and where it runs.",
        "trial": "Looks ahead: each prints what it finds and ends, and leaves the run folder alone.",
    }.items():
        assert f"{title} options {said}" in words


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "--rceipe", "small"], "unknown option or argument '--rceipe'; did you mean '--recipe'?"),
        (["train", "x", "--batch_size", "many"], "--batch-size: got many, expected a whole number"),
        (["train", "x", "--image-size", "224", "big"], "--image-size: got big, expected a whole number"),
        (["train", "x", "--recipe", "big"], "--recipe: got big, expected one of 'small', 'finetune', 'paper'"),
        (["train", "x", "--epochs"], "--epochs: got no value, expected one"),
        (["train", "x", "--epochs", "0"], "epochs: got 0, expected at least 1"),
        (["train"], "missing argument DATA: A folder"),
        (["evaluate", "--part", "val"], "missing argument RUN: A run folder"),
        (["evaluate", "-x"], "run: got none, expected one"),
        (["experiment", "localty", "x"], "name: got localty, expected one of 'sample-efficiency', 'ablation'"),
    ],
)
def test_mistakes(arguments: list[str], says: str, shell: Shell) -> None:
    line = shell.refuses(*arguments, says=(says,))
    assert line.startswith(f"convit {arguments[0]}: {says}")
    assert line.endswith(f"; see 'convit {arguments[0]} --help'")
    assert "None" not in line


LOADING = """
import sys, time
print("loading", file=sys.stderr, flush=True)
try:
    time.sleep(60)
except BaseException as error:  # as libraries do whose insides are imported while the interrupt comes
    raise ImportError("half of it") from error
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_while_libraries_load(command: str, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(LOADING)
    source = str(Path(convit_launcher.__file__).parent)
    arguments = {"models": [], "train": ["a"], "export": ["a"], "experiment": ["locality", "a"]}.get(
        command, ["a", "b"]
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "convit_launcher", command, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), source])},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "loading\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    assert process.stderr.read() == f"convit {command}: interrupted\n"
    process.stderr.close()
