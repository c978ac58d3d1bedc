"""Options that would do nothing, or something else than they say, or that break the machine."""

from pathlib import Path
from typing import Any

import pytest

import convit
from tests.cli.command import Shell, photos


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return photos(tmp_path / "animals", {"ape": 6, "bee": 6})


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--crop none --crop-scale 0.5", "crop-scale: got 0.5 with --crop none"),
        ("--crop shift --crop-scale 0.5", "crop-scale: got 0.5 with --crop shift"),
        ("--lr 0.1 --min-lr 0.5", "min-lr: got more than the peak learning rate of 0.1"),
        ("--lr 0.1 --warmup-lr 0.5", "warmup-lr: got more than the peak learning rate of 0.1"),
    ],
)
def test_options_that_contradict_each_other(words: str, says: str, data: Path, shell: Shell) -> None:
    shell.refuses("train", data, "--dry-run", "--workers", "0", *words.split(), says=(says,))


@pytest.mark.parametrize("words", ["--crop none", "--lr 1e-6", "--recipe paper --lr 1e-8"])
def test_what_is_decided_can_be_asked_again(words: str, data: Path, tmp_path: Path, shell: Shell) -> None:
    """A crop that takes no part, and a peak below the usual end: the run's own config.yaml repeats it."""
    small = ("--model", "convit_nano_patch4_32", "--epochs", "5", "--batch-size", "4", "--workers", "0")
    convit_yaml = tmp_path / "run" / "config.yaml"
    shell("train", data, "--out", tmp_path / "run", *small, *words.split())
    assert shell("train", "--config", convit_yaml, "--out", tmp_path / "again", "--dry-run").status == 0


def test_as_many_processes_and_threads_as_no_machine_has(shell: Shell) -> None:
    """Thousands of processes hang, a hundred thousand threads crash PyTorch."""
    shell.refuses("evaluate", "run", "digits", "--workers", "99999", says=("workers: got 99999", "from 0 to 1024"))
    shell.refuses("bench", "--threads", "99999", says=("threads: got 99999", "from 1 to 1024"))


def test_a_file_in_place_of_a_run(data: Path, trained: Path, tmp_path: Path, shell: Shell) -> None:
    """It is there: the message says what it is for, or which folder is meant."""
    for name in ("a.onnx", "a.pt2"):
        (tmp_path / name).write_bytes(b"x")
    picture = next(data.rglob("*.png"))
    shell.refuses("predict", picture, trained, says=(f"{picture}: a file, no folder; expected a run folder",))
    shell.refuses("predict", trained / "model.safetensors", picture, says=(f"did you mean {trained}?",))
    shell.refuses("predict", tmp_path / "a.pt2", picture, says=("torch.export.load reads it",))
    shell.refuses(
        "evaluate", tmp_path / "a.onnx", data, says=("a file, no folder; an .onnx file is for 'convit predict'",)
    )
    shell.refuses("inspect", tmp_path / "a.onnx", says=("a file, no folder; an .onnx file is for 'convit predict'",))
    shell.refuses("export", trained / "model.safetensors", says=("model.safetensors: a file, no folder", "run"))
    shell.refuses("predict", trained / "checkpoints", picture, says=(f"did you mean {trained}?",))
    shell.refuses("train", "--resume", trained / "config.yaml", says=("config.yaml: a file, no folder; expected",))


@pytest.mark.parametrize("option", ["--pretrained", "--weights"])
def test_other_weights_for_a_run_that_goes_on(option: str, trained: Path, shell: Shell) -> None:
    words = (option, trained) if option == "--weights" else (option,)
    shell.refuses("train", "--resume", trained, *words, says=(f"{option[2:]}: got it with --resume",))


def test_a_teacher_that_nobody_knows(data: Path, tmp_path: Path, shell: Shell) -> None:
    """Before the runs that need none."""
    words = ("distillation", data, "--teacher", "resnet81", "--out", tmp_path / "out")
    shell.refuses("experiment", *words, says=("teacher: got 'resnet81'", "did you mean"))
    assert not (tmp_path / "out").exists()


BAD: dict[str, list[Any]] = {
    "dim": [0, -36, 36.0, "36", None, True, [36], float("nan")],
    "num_heads": [0, -9, 9.0, "9", None, True, 7],
    "attn_drop": [-0.1, 1.5, "0", None, True, float("nan")],
    "proj_drop": [-0.1, [], float("inf")],
    "qkv_bias": ["yes", 1, None, float("nan")],
    "conv_init": ["yes", 1, None],
    "locality_strength": [0, -1, "1", None, True, float("nan"), float("inf")],
    "gate_init": ["1", None, True, float("nan")],
    "weight_std": ["fan_out", 0.0, -1.0],
}


@pytest.mark.parametrize("name", BAD)
def test_arguments_of_the_layer(name: str) -> None:
    for value in BAD[name]:
        with pytest.raises(ValueError, match=rf"^{name}: got .*, expected "):
            convit.GPSA(**({"dim": 36, "num_heads": 9} | {name: value}))
