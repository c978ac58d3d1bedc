"""The real command line, in this process, and what it left behind."""

import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import convit_launcher
from tests.training.small import photos  # noqa: F401  the tests of commands take it from here

SMALL = (
    *("--model", "convit_micro_patch4_32", "--image-size", "8", "--patch-size", "4"),
    *("--epochs", "1", "--workers", "0"),
)

WITHOUT = """
import sys, convit_launcher
_, libraries, *words = sys.argv
sys.argv = ["convit", *words]
status = convit_launcher.main()
loaded = set(libraries.split()) & set(sys.modules)
sys.exit(f"loaded {loaded}" if loaded else status)
"""
"""Python code: a command, after the names of libraries that it may not load."""


class Result(NamedTuple):
    """What a shell would see."""

    status: int
    out: str
    err: str


class Shell:
    """Runs ``convit ...`` as ``sys.argv``."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.capsys, self.monkeypatch = capsys, monkeypatch

    def __call__(self, *arguments: object) -> Result:
        self.capsys.readouterr()
        self.monkeypatch.setattr(sys, "argv", ["convit", *map(str, arguments)])
        try:
            status = convit_launcher.main()
        except SystemExit as stop:  # of --help
            status = int(stop.code or 0)
        return Result(status, *self.capsys.readouterr())

    def refuses(self, *arguments: object, says: tuple[object, ...]) -> str:
        """The one line of a command that must fail: status 2, nothing else said, culprit and expectation in it."""
        got = self(*arguments)
        lines = got.err.splitlines()
        assert (got.status, len(lines)) == (2, 1), got
        assert "Traceback" not in got.out + got.err
        assert lines[0].startswith("convit"), lines[0]
        for word in says:
            assert str(word) in lines[0], f"{word!r} is not in {lines[0]!r}"
        return lines[0]


def tree(root: Path) -> dict[str, bytes | None]:
    """Every file below ``root`` with its content, every folder with None."""
    return {str(p.relative_to(root)): p.read_bytes() if p.is_file() else None for p in sorted(root.rglob("*"))}
