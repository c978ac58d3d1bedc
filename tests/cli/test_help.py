"""The help of every command, as a terminal shows it: at once, without noise, and in columns that hold."""

import os
import re
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import convit_launcher
from convit.options import Option, options_of
from tests.cli.command import WITHOUT, Shell

COMMANDS = tuple(convit_launcher.COMMANDS)


def options(command: str) -> tuple[Option, ...]:
    module = import_module(f"convit.cli.options.{command}")
    return options_of(getattr(module, f"{command.capitalize()}Command"))


def shown(shell: Shell, monkeypatch: pytest.MonkeyPatch, columns: int, *arguments: str) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    got = shell(*arguments)
    assert (got.status, got.err) == (0, "")
    return got.out


def offered(text: str) -> set[str]:
    """The options that a page has a line for."""
    return set(re.findall(r"^  --([a-z0-9-]+)", text, flags=re.MULTILINE))


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("arguments", "status"), [(["--help"], 0), (["--help-all"], 0), (["--no-such-option"], 2)])
def test_neither_help_nor_a_mistake_loads_heavy_libraries(command: str, arguments: list[str], status: int) -> None:
    heavy = "torch timm torchvision matplotlib sklearn yaml rich numpy"
    code = [sys.executable, "-c", WITHOUT, heavy, command, *arguments]
    done = subprocess.run(code, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_all_options_are_there(command: str, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(shell, monkeypatch, 80, command, "--help-all")
    assert offered(text) == {option.word for option in options(command) if not option.arg.positional}
    for option in options(command):
        assert " ".join(option.text.removesuffix(".").split()) in " ".join(text.split())
        if option.arg.positional:
            assert option.arg.metavar in text.splitlines()[0]


def test_train_shows_first_what_people_use_first(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(shell, monkeypatch, 80, "train", "--help")
    first = offered(text)
    assert {"out", "model", "epochs", "batch-size", "lr", "pretrained", "resume", "help-all"} <= first
    assert 10 <= len(first) <= 20
    assert len(text.splitlines()) < 50
    whole = shown(shell, monkeypatch, 80, "train", "--help-all")
    for option in options("train"):
        if not option.arg.positional:
            assert option.group in whole.splitlines()


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "train"])
def test_the_others_have_few_and_show_all(command: str, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(shell, monkeypatch, 80, command, "-h") == shown(shell, monkeypatch, 80, command, "--help-all")


@pytest.mark.parametrize("columns", [60, 80, 200])
@pytest.mark.parametrize("command", COMMANDS)
def test_fits_the_terminal(command: str, columns: int, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(shell, monkeypatch, columns, command, "--help-all")
    assert max(map(len, text.splitlines())) <= columns
    assert not re.search(r"\n\n\n|\bNone\b|\[\]|\bMISSING\b", text)


def test_how_options_read(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(shell, monkeypatch, 110, "train", "--help-all")
    for line in (
        "  --epochs N            Times that",
        "  --image-size N [N]    Side of",
        "  --recipe small|finetune|paper\n",
        "  --flip, --no-flip     Mirror",
        "  --compile             Compile",
        "order, the augmentation [0]\n",
    ):
        assert line in text
    assert "  --against twin|timm|deit ...\n" in shown(shell, monkeypatch, 110, "bench", "--help")


LOADING = """
import sys, time
print("loading", file=sys.stderr, flush=True)
try:
    time.sleep(60)
except BaseException as error:  # as libraries do whose insides are imported while the interrupt comes
    raise ImportError("half of it") from error
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "models"])  # which needs no torch
def test_ctrl_c_while_libraries_load(command: str, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(LOADING)
    for name in ("config.json", "config.yaml", "model.safetensors", "a.png"):
        (tmp_path / name).touch()
    source = str(Path(convit_launcher.__file__).parent)
    run, picture = str(tmp_path), str(tmp_path / "a.png")
    arguments = {
        "train": ["digits"],
        "evaluate": [run, "digits"],
        "predict": [run, picture],
        "inspect": [run, picture],
        "experiment": ["locality", "digits"],
        "export": [run],
        "check": ["digits", "--folds", "2"],
        "forecast": [run],
        "bench": [],
    }[command]
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
