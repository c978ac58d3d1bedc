"""``convit`` before a command is chosen: at once, and without torch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import convit_launcher


def answer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["convit", *arguments])
    status = convit_launcher.main()
    return status, *capsys.readouterr()


@pytest.mark.parametrize("arguments", [(), ("-h",), ("--help",), ("help",)])
def test_help(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    status, out, err = answer(capsys, monkeypatch, *arguments)
    assert (status, err) == (0, "")
    for name, text in convit_launcher.COMMANDS.items():
        assert f"  {name:10} {text}" in out


def test_version(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    status, out, err = answer(capsys, monkeypatch, "--version")
    assert (status, err) == (0, "")
    assert out.startswith("convit 0.")


@pytest.mark.parametrize(
    ("word", "hint"), [("trian", "; did you mean 'train'?"), ("evalute", "; did you mean 'evaluate'?"), ("zzz", "")]
)
def test_misspelt_command(
    word: str, hint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, out, err = answer(capsys, monkeypatch, word, "digits")
    assert (status, out) == (2, "")
    expected = ", ".join(convit_launcher.COMMANDS)
    assert err == f"convit: unknown command {word!r}, expected one of {expected}{hint}\n"


@pytest.mark.parametrize("argument", ["--help", "--version", "trian"])
def test_answers_without_the_heavy_libraries(argument: str) -> None:
    code = (
        "import sys, convit_launcher; sys.argv = ['convit', sys.argv[1]]; convit_launcher.main(); "
        "sys.exit(10 + len({'torch', 'numpy', 'timm', 'rich', 'msgspec'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, argument], capture_output=True, text=True, check=False)
    assert done.returncode == 10, done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize("words", [("--help",), ("models",), ("trian",), ("models", "x")])
@pytest.mark.parametrize("place", ["pipe", "full"])
def test_nobody_reads_what_is_said(words: tuple[str, ...], place: str) -> None:
    """An output that is closed or full is no traceback, and a mistake keeps its status."""
    if place == "pipe":
        reading, writing = os.pipe()
        os.close(reading)
    else:
        writing = os.open("/dev/full", os.O_WRONLY)
    command = [sys.executable, "-m", "convit", *words]
    mistake = words[-1] in ("trian", "x")
    try:
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
        assert done.returncode == (2 if mistake or place == "full" else 0)
        assert "Traceback" not in done.stderr
        assert len(done.stderr.splitlines()) == (done.returncode == 2)
        if mistake:
            assert subprocess.run(command, stdout=writing, stderr=writing, check=False).returncode == 2
    finally:
        os.close(writing)


@pytest.mark.parametrize("words", [["train", "digits"], ["evaluate", "RUN", "digits"], ["predict", "RUN", "a.png"]])
def test_a_library_that_is_not_installed_is_one_line(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    for name in ("config.json", "config.yaml", "model.safetensors", "a.png"):
        (tmp_path / name).touch()
    given = [str(tmp_path) if word == "RUN" else str(tmp_path / word) if word == "a.png" else word for word in words]
    path = os.pathsep.join([str(tmp_path), str(Path(convit_launcher.__file__).parent)])
    done = subprocess.run(
        [sys.executable, "-m", "convit_launcher", *given],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"convit: {words[0]}: torch is not installed; expected")
    assert "Traceback" not in done.stderr
