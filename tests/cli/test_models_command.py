"""``convit models``: what there is to choose from."""

import json

import pytest

import convit
from tests.cli.command import Shell


def test_table(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    got = shell("models")
    assert (got.status, got.err) == (0, "")
    assert [line.split()[0] for line in got.out.splitlines()[1:] if line.startswith("convit_")] == convit.list_models()
    (row,) = [line.split() for line in got.out.splitlines() if line.startswith("convit_small_patch16_224")]
    assert row == ["convit_small_patch16_224", "224", "px", "432", "9", "10/12", "27.8M", row[-2], "81.3"]
    assert 5 < float(row[-2].removesuffix("G")) < 6


def test_models_as_json(shell: Shell) -> None:
    document = json.loads(shell("models", "--json").out)
    assert [entry["name"] for entry in document] == convit.list_models()
    base = next(entry for entry in document if entry["name"] == "convit_base_patch16_224")
    assert base["parameters"] == pytest.approx(86.5e6, rel=0.002)
    assert base["paper_top1"] == 82.4


def test_models_refuses_what_it_does_not_know(shell: Shell) -> None:
    shell.refuses("models", "--jason", says=("unknown option 'jason'; did you mean 'json'?",))
    shell.refuses("models", "tiny", says=("tiny",))
