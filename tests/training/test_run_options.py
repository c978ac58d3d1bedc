"""Runs off the main road: each ends, with what it should have written."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import convit
from convit.errors import InputError
from convit.layers import GatedPositionalSelfAttention
from convit.training.run import train
from convit.training.run_folder import RunFolder
from tests.training.small import metrics, options, photos

COUNTS = {"dark": 6, "light": 6}


def test_twin_has_no_gates(data: Path, tmp_path: Path) -> None:
    best = train(options(data, tmp_path / "run", local_up_to_layer=0)).classifier
    assert not any(isinstance(module, GatedPositionalSelfAttention) for module in best.model.modules())
    assert not (tmp_path / "run/gates.png").exists()
    assert (tmp_path / "run/curves.png").exists()
    assert [record["gates"] for record in metrics(tmp_path / "run")] == [[], []]
    assert convit.load(tmp_path / "run").model.local_up_to_layer == 0


@pytest.mark.parametrize(
    "more",
    [
        {"mixup": 1.0, "cutmix": 1.0, "mix_prob": 1.0},
        {"mixup": 0.0, "cutmix": 1.0, "mix_prob": 1.0},
        {"mixup": 0.0, "cutmix": 0.0},
        {"mixup": 0.0, "cutmix": 0.0, "label_smoothing": 0.0},
        {"crop": "random_resized", "rand_augment": "rand-m9-mstd0.5-inc1", "color_jitter": 0.4, "random_erasing": 1.0},
        {"clip_grad": 0.0, "warmup_epochs": 0.0, "drop_path": 0.0},
        {"lr": 1e-7},  # below min-lr
        {"flip": True, "crop": "none", "skip_bad": True},
        {"seed": 2**62},
    ],
    ids=lambda more: "-".join(more),
)
def test_augmentations_and_losses(more: dict[str, Any], data: Path, tmp_path: Path) -> None:
    train(options(data, tmp_path / "run", epochs=1, **more))
    (record,) = metrics(tmp_path / "run")
    assert 0 < record["train_loss"] < 3
    assert (tmp_path / "run/evaluation.json").exists()


def test_odd_number_of_classes_and_one_step_an_epoch(tmp_path: Path) -> None:
    counts = {f"class {i}": 2 for i in range(7)}
    train(options(photos(tmp_path / "data", counts), tmp_path / "run", cutmix=1.0, mix_prob=1.0))
    assert metrics(tmp_path / "run")[0]["val_top5"] < 100.1
    assert len(json.loads((tmp_path / "run/evaluation.json").read_text())["classes"]) == 7


def test_smallest_data_with_nothing_given(tmp_path: Path) -> None:
    """Two images to learn from, two to validate on; every size and number decided by the plan but for the epochs."""
    data = photos(tmp_path / "data", {"a": 2, "b": 2})
    train(options(data, tmp_path / "run", batch_size=None, model=None, image_size=None, patch_size=None, epochs=1))
    assert RunFolder(tmp_path / "run").read_options().batch_size == 2


def test_image_size_that_is_no_square(data: Path, tmp_path: Path) -> None:
    train(options(data, tmp_path / "run", image_size=(8, 16), epochs=1))
    best = convit.load(tmp_path / "run")
    assert best.preprocess.image_size == best.model.img_size == (8, 16)
    assert best.model.grid_size == (2, 4)
    assert len(best.predict(data / "dark/0.png")) == 2


def test_bf16(data: Path, tmp_path: Path) -> None:
    train(options(data, tmp_path / "half", precision="bf16", epochs=1))
    train(options(data, tmp_path / "full", epochs=1))
    assert {p.dtype for p in convit.load(tmp_path / "half").model.parameters()} == {torch.float32}
    half, full = (metrics(tmp_path / name)[0]["train_loss"] for name in ("half", "full"))
    assert half == pytest.approx(full, rel=0.05)
    assert half != full


def test_skipped_files_are_listed(tmp_path: Path) -> None:
    data = photos(tmp_path / "data", {"a": 4, "b": 4})
    (data / "b/0.png").write_bytes(b"")
    (data / "a/x.jpg").write_text("no image")
    with pytest.raises(InputError, match=r"2 files do not decode: a/x.jpg \(not an image.*b/0.png \(an empty file"):
        train(options(data, tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    train(options(data, tmp_path / "run", skip_bad=True, epochs=1))
    skipped = json.loads((tmp_path / "run/skipped.json").read_text())
    assert [entry["name"] for entry in skipped] == ["a/x.jpg", "b/0.png"]
    used = json.loads((tmp_path / "run/split.json").read_text())
    assert not {"a/x.jpg", "b/0.png"} & {*used["train"], *used["val"]}


def overwritable(folder: Path, data: Path) -> None:
    train(options(data, folder, overwrite=True, epochs=1))


def test_overwrite_replaces_a_run_and_nothing_else(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    overwritable(out, data)  # nothing there yet: fine
    (out / "notes.txt").write_text("a person's")
    (out / "evaluation-old-all").mkdir()
    with pytest.raises(InputError, match=r"exists \(a run: --resume .* continues it, --overwrite replaces it\)"):
        train(options(data, out))
    assert (out / "evaluation-old-all").exists()
    overwritable(out, data)
    assert not (out / "evaluation-old-all").exists()
    assert (out / "notes.txt").exists()


@pytest.mark.parametrize("text", [None, "services:\n  web: {}\n", "a: [", "\x00", "data: 5\n", "epochs: 3\n", ""])
def test_overwrite_refuses_what_is_no_run(text: str | None, data: Path, tmp_path: Path) -> None:
    """A ``config.yaml`` alone makes no run: many a folder has one."""
    out = tmp_path / "project"
    out.mkdir()
    (out / "thesis.tex").write_text("precious")
    if text is not None:
        (out / "config.yaml").write_text(text)
    with pytest.raises(InputError, match="exists and is no run, so it is not overwritten; expected another --out"):
        overwritable(out, data)
    assert (out / "thesis.tex").read_text() == "precious"
