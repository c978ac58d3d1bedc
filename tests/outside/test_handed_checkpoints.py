"""Checkpoints that somebody hands over: what ``torch.save`` of other programs wrote."""

import argparse
import collections
import datetime
import io
import pathlib
import sys
import types
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from convit import load_weights
from tests.helpers import tiny_model
from tests.models.checkpoint_files import not_loaded, saved, taken
from tests.outside.handed_over import little_memory


def odd(tensor: Tensor) -> dict[str, Any]:
    """A tensor as no ordinary one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "sparse": tensor.to_sparse(),
            "csr": tensor.to_sparse_csr(),
            "quantised": torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
            "meta": tensor.to("meta"),
            "nested": torch.nested.nested_tensor([tensor, tensor]),
            "of terabytes": tensor[:1, :1].expand(10**9, 36),
            "of overlapping rows": torch.as_strided(tensor, (10**6, 36), (0, 1)),
            "a list": [tensor],
            "an array": tensor.numpy(),
        }


@pytest.mark.parametrize("kind", odd(torch.zeros(5, 36)))
def test_tensors_that_are_not_ordinary(kind: str, tmp_path: Path) -> None:
    weights: dict[str, Any] = dict(tiny_model().state_dict())
    path = saved(weights | {"head.weight": odd(weights["head.weight"])[kind]}, tmp_path / "a.pth")
    with little_memory():
        not_loaded(tiny_model(), path, "a.pth: ")
        not_loaded(tiny_model(), path, "a.pth: ", partial=True)


def beside() -> dict[str, Any]:
    """What training programs put beside the weights, and what no weight is."""
    return {
        "numpy": [np.float64(0.5), np.int64(3), np.bool_(True), np.arange(3), np.array(["a", "b"])],
        "path": [pathlib.PurePosixPath("runs/3"), pathlib.Path("runs/4"), pathlib.PureWindowsPath("C:\\runs")],
        "counts": collections.defaultdict(list, a=[1]) | {"b": 2},
        "meters": {"loss": collections.deque([1.0, 2.0], maxlen=20)},
        "counter": collections.Counter("abb"),
        "args": argparse.Namespace(lr=np.float32(0.1), out=pathlib.PurePosixPath("a"), sub=argparse.Namespace(a=1)),
        "simple": types.SimpleNamespace(a=1),
        "when": [datetime.datetime(2024, 1, 2), datetime.timedelta(3), datetime.date(2024, 1, 2)],
        "builtin": [{1, 2}, frozenset("ab"), range(3), slice(1, 2), 1 + 2j, b"bytes"],
        "version": torch.torch_version.TorchVersion("2.10"),
        "dtype": torch.float16,
    }


@pytest.mark.parametrize("name", beside())
@pytest.mark.parametrize("zipped", [True, False])
def test_harmless_values_beside_the_weights(name: str, zipped: bool, tmp_path: Path) -> None:
    weights = tiny_model().state_dict()
    content = {"model": weights, "epoch": 3, name: beside()[name]}
    taken(saved(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped), weights)


class AttributeDict(dict[str, Any]):
    """Stands for Lightning's, which is not installed; so its name is not importable."""


@pytest.mark.parametrize("module", ["lightning.fabric.utilities.data", "pytorch_lightning.utilities.parsing"])
def test_lightning_checkpoints(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tiny_model().state_dict()
    content = {"state_dict": {f"model.{k}": v for k, v in weights.items()}, "pytorch-lightning_version": "2.5"}
    monkeypatch.setattr(AttributeDict, "__module__", module)
    for part in [module.rsplit(".", n)[0] for n in range(module.count("."), -1, -1)]:
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    monkeypatch.setattr(sys.modules[module], "AttributeDict", AttributeDict, raising=False)
    path = saved(content | {"hyper_parameters": AttributeDict(lr=1, out=np.float64(2))}, tmp_path / "a.ckpt")
    for name in [name for name in sys.modules if name.startswith(module.split(".")[0])]:
        monkeypatch.delitem(sys.modules, name)
    taken(path, weights)


NESTED: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "data parallel": lambda w: {f"module.{k}": v for k, v in w.items()},
    "compiled": lambda w: {"model": {f"_orig_mod.{k}": v for k, v in w.items()}},
    "compiled in parallel": lambda w: {"state_dict": {f"module._orig_mod.{k}": v for k, v in w.items()}},
    "lightning": lambda w: {"state_dict": {f"model.{k}": v for k, v in w.items()}},
    "lightning, compiled": lambda w: {"state_dict": {f"model._orig_mod.{k}": v for k, v in w.items()}},
    "the tutorials'": lambda w: {"epoch": 3, "model_state_dict": w, "loss": torch.tensor(3.0)},
    "averaged": lambda w: {"n_averaged": torch.tensor(3), **{f"module.{k}": v for k, v in w.items()}},
    "an ordered dict": lambda w: collections.OrderedDict(w),
    "parameters": lambda w: {k: torch.nn.Parameter(v) for k, v in w.items()},
}


@pytest.mark.parametrize("how", NESTED)
def test_weights_under_other_peoples_names(how: str, tmp_path: Path) -> None:
    weights = tiny_model().state_dict()
    taken(saved(NESTED[how](weights), tmp_path / "a.pth"), weights)


@pytest.mark.parametrize("name", ["model_ema", "state_dict_ema", "ema", "ema_state_dict", "model_ema_state_dict"])
@pytest.mark.parametrize("entry", ["model", "state_dict"])
def test_averaged_weights_are_preferred(entry: str, name: str, tmp_path: Path) -> None:
    plain, average = tiny_model().state_dict(), tiny_model().state_dict()
    wrapped = {
        "step": torch.tensor(3),
        "initted": torch.tensor(True),
        **{f"ema_model.{k}": average[k] for k in average},
    }
    for held in (average, {"state_dict": average, "decay": 0.99}, {"module": average, "decay": 0.99}, wrapped):
        path = saved({entry: plain, name: held}, tmp_path / "a.pth")
        taken(path, average)
        taken(path, average, ema=True)
        taken(path, plain, ema=False)
    for none in ({}, {"decay": 0.99}):
        taken(saved({entry: plain, name: none}, tmp_path / "a.pth"), plain)


def test_a_module_beside_the_model_is_named(tmp_path: Path) -> None:
    """Lightning's metrics and losses have tensors too: they are not ours, and not left out without a word."""
    weights = {f"model.{k}": v for k, v in tiny_model().state_dict().items()} | {"loss.weight": torch.ones(5)}
    path = saved({"state_dict": weights}, tmp_path / "a.pth")
    not_loaded(tiny_model(), path, "1 unexpected (loss.weight)")
    assert load_weights(tiny_model(), path, partial=True).unexpected == ("loss.weight",)


def test_a_pickle_of_gigabytes_in_a_few_bytes(tmp_path: Path) -> None:
    """A bytearray of a number is as long as the number says."""
    content = b"\x80\x02c__builtin__\nbytearray\n" + b"\x8a\x06" + (10**14).to_bytes(6, "little") + b"\x85R."
    path = tmp_path / "a.pth"
    buffer = io.BytesIO()
    torch.save({"x": 1}, buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, content if name.endswith("data.pkl") else old.read(name))
    with little_memory():
        not_loaded(tiny_model(), path, "a.pth: ")


@pytest.mark.parametrize(("value", "dtype"), [(float("nan"), torch.float32), (1e300, torch.float64)])
def test_weights_that_are_not_finite_are_refused(value: float, dtype: torch.dtype, tmp_path: Path) -> None:
    """Also those that would not be in the model's type."""
    weights = tiny_model().state_dict()
    weights["norm.bias"] = weights["norm.bias"].to(dtype)
    weights["norm.bias"][0] = value
    not_loaded(tiny_model(), saved(weights, tmp_path / "a.pth"), "a.pth: norm.bias has numbers that are not finite")


def test_a_changed_bit_in_a_checkpoint(tmp_path: Path) -> None:
    """PyTorch does not compare the checksums of its own files."""
    path = saved(tiny_model().state_dict(), tmp_path / "a.pth")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    not_loaded(tiny_model(), path, "a.pth: damaged")


def test_a_checkpoint_without_checksums(tmp_path: Path) -> None:
    """PyTorch can be told to write none."""
    torch.serialization.set_crc32_options(False)
    try:
        path = saved(tiny_model().state_dict(), tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    load_weights(tiny_model(), path)


def test_a_compressed_checkpoint(tmp_path: Path) -> None:
    """A few kilobytes could be gigabytes."""
    whole = saved(tiny_model().state_dict(), tmp_path / "whole.pth")
    for part, size in (("data/0", 1 << 30), ("data.pkl", 1 << 28)):
        with zipfile.ZipFile(whole) as old, zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as new:
            for name in old.namelist():
                with new.open(name, "w") as stream:
                    if name.endswith(part):
                        for _ in range(size >> 20):
                            stream.write(b"(" * (1 << 20))
                    else:
                        stream.write(old.read(name))
        with little_memory():
            not_loaded(tiny_model(), tmp_path / "a.pth", "a.pth: compressed")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_numbers_of_eight_bits(dtype: torch.dtype, tmp_path: Path) -> None:
    """Also in place of whole numbers, which models with batch norm count in."""
    model = tiny_model(batch_norm=True, hybrid_backbone="conv")
    weights = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
    not_loaded(model, saved(weights, tmp_path / "a.pth"), "a.pth: ", "float8")
    whole = {name: tensor for name, tensor in weights.items() if not model.state_dict()[name].is_floating_point()}
    not_loaded(model, saved(dict(model.state_dict()) | whole, tmp_path / "a.pth"), "a.pth: ", "float8")


def test_safetensors_under_another_name(tmp_path: Path) -> None:
    weights = tiny_model().state_dict()
    safetensors.torch.save_file(weights, tmp_path / "a.pth")
    taken(tmp_path / "a.pth", weights)


def test_other_files_of_pytorch_and_numpy(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "a.pt")
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),)), tmp_path / "a.pt2")
    np.savez(tmp_path / "a.npz", a=np.zeros(3))
    not_loaded(tiny_model(), tmp_path / "a.pt", "a.pt: a TorchScript program", "torch.jit.load(FILE).state_dict()")
    not_loaded(tiny_model(), tmp_path / "a.pt2", "a.pt2: an exported program", "torch.export.load(FILE).state_dict")
    not_loaded(tiny_model(), tmp_path / "a.npz", "a.npz: arrays of NumPy")


@pytest.mark.parametrize("entry", ["net", "module", "backbone", "model_weights", "params", "best_model"])
@pytest.mark.parametrize("prefix", ["", "net.", "student.backbone.", "_forward_module.", "module.encoder."])
def test_weights_under_any_name(entry: str, prefix: str, tmp_path: Path) -> None:
    """Where only one model is in a file it is the one, whatever it is called."""
    weights = tiny_model().state_dict()
    named = {f"{prefix}{k}": v for k, v in weights.items()}
    for content in (named, {entry: named, "epoch": 3, "optimizer": {"state": {}}}):
        taken(saved(content, tmp_path / "a.pth"), weights)


@pytest.mark.parametrize("wrapper", ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])
def test_wrapped_blocks(wrapper: str, tmp_path: Path) -> None:
    """Each block compiled, sharded or recomputed by itself."""
    weights = tiny_model().state_dict()
    named = {k.replace("blocks.0.", f"blocks.0.{wrapper}."): v for k, v in weights.items()}
    taken(saved(named, tmp_path / "a.pth"), weights)


def test_two_models_in_one_file(tmp_path: Path) -> None:
    """Which is meant? Neither is taken without a word."""
    weights = tiny_model().state_dict()
    not_loaded(tiny_model(), saved({"student": weights, "teacher": weights}, tmp_path / "a.pth"), "student, teacher")
    both = {f"{name}.{k}": v for name in ("student", "teacher") for k, v in weights.items()}
    not_loaded(tiny_model(), saved(both, tmp_path / "a.pth"), "not the weights of this model")
