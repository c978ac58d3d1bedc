"""What the README shows works as it is written."""

import re
import runpy
import sys
from pathlib import Path

import pytest

import convit
import convit_launcher
from tests.experiments.made import save_classifier

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["digit_images.py", "runs/digits/test-images"])
    runpy.run_path(str(ROOT / "examples" / "digit_images.py"), run_name="__main__")
    # A model that has learned nothing stands in for the run of the demo.
    save_classifier(Path("runs/digits"), [str(digit) for digit in range(10)])

    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    values: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), values)

    assert values["logits"].shape == (1, 10)
    assert values["tokens"].shape == (2, 49, 192)
    printed = capsys.readouterr().out
    assert printed.count("0.7311") == 4  # sigmoid(1), the gate of each of the four heads
    assert printed.count("Prediction(") == 2


def test_table_of_commands_is_complete() -> None:
    assert set(re.findall(r"^\| `convit (\w+)", README, flags=re.MULTILINE)) == set(convit_launcher.COMMANDS)


def test_names_exist() -> None:
    for name in re.findall(r"convit_\w+_patch\d+_\d+", README):
        assert name in convit.list_models()
    for target in re.findall(r"^    make (\w+)", README, flags=re.MULTILINE):
        assert f"\n{target}: " in (ROOT / "Makefile").read_text(encoding="utf-8")
    for path in re.findall(r"\]\(((?!https?:)[^)#]+)\)", README):
        assert (ROOT / path).exists(), path
