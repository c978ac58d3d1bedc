"""A damaged file of weights is never read as another model; one without a checksum is read as ever."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch

from convit.errors import InputError
from convit.models.seal import is_whole, read_sealed, sealed

TENSORS = {"sha256": torch.arange(3.0), "b": torch.ones(2, 5, dtype=torch.int64), "a": torch.zeros(0)}


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(sealed(TENSORS))
    for loaded in (read_sealed(path), safetensors.torch.load_file(path)):
        assert loaded.keys() == TENSORS.keys()
        assert all(torch.equal(loaded[name], TENSORS[name]) for name in TENSORS)
    with safetensors.safe_open(path, framework="pt") as file:
        assert file.metadata().keys() == {"format", "sha256"}
        assert file.metadata()["format"] == "pt", "the loaders of other libraries ask for it"
        assert all(torch.equal(file.get_tensor(name), TENSORS[name]) for name in TENSORS)
    content = path.read_bytes()
    assert int.from_bytes(content[:8], "little") % 8 == 0


def test_every_bit(tmp_path: Path) -> None:
    """Refused, or the same tensors: a flip in the metadata leaves them alone."""
    path, content = tmp_path / "model.safetensors", sealed(TENSORS)
    silent = 0
    for position in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            loaded = read_sealed(path)
        except (InputError, safetensors.SafetensorError):
            continue
        silent += 1
        assert loaded.keys() == TENSORS.keys()
        assert all(torch.equal(loaded[name], TENSORS[name]) for name in TENSORS)
    assert silent < 8 * len('"format":"pt","sha256":""') + 8 * 64  # of the metadata alone


def test_without_a_checksum(tmp_path: Path) -> None:
    for metadata in (None, {"format": "pt"}, {"sha256": "something else"}):
        path = tmp_path / "model.safetensors"
        safetensors.torch.save_file(TENSORS, path, metadata=metadata)
        assert is_whole(path.read_bytes())
        assert read_sealed(path).keys() == TENSORS.keys()


def test_the_same_bytes_in_every_process() -> None:
    code = "import sys; from tests.models.test_seal import *; sys.stdout.buffer.write(sealed(TENSORS))"
    for seed in ("1", "2"):
        got = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=True, env=os.environ | {"PYTHONHASHSEED": seed}
        )
        assert got.stdout == sealed(TENSORS)


@pytest.mark.parametrize("of_a_folder", [True, False])
def test_load_weights_refuses_it(of_a_folder: bool, tmp_path: Path) -> None:
    from convit import create_model
    from convit.models import load_weights

    model = create_model("convit_micro_patch4_32")
    content = bytearray(sealed(model.state_dict()))
    content[-3] ^= 1
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors: damaged, it is not what was written \(checksum\)"):
        load_weights(model, tmp_path if of_a_folder else tmp_path / "model.safetensors")
