"""Files that somebody hands over: models, weights, options and exported files of strangers.

Each is read as data or refused in one line that names it; nothing in it runs, and nothing large is made of it.
"""

import argparse
import collections
import contextlib
import datetime
import hashlib
import io
import json
import os
import pathlib
import resource
import shutil
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

import convit
from convit import Classifier, create_model, load_weights
from convit.data import Preprocess
from convit.errors import InputError
from convit.files import fingerprint
from convit.options_file import read_yaml
from convit.training import train
from convit.training.run_folder import RunFolder
from convit_onnx import OnnxClassifier
from tests.cli.command import Shell, photos
from tests.helpers import tiny_model
from tests.models.checkpoint_files import not_loaded, refused, same_weights, saved
from tests.outside.onnx_files import FLOAT, onnx, onnx_file
from tests.training.small import options, resume

MODEL, ARGS = "convit_micro_patch4_32", {"img_size": [8, 8], "patch_size": 4, "depth": 2, "local_up_to_layer": 1}
MEGABYTES = 1024  # ru_maxrss on Linux is in units of 1024 bytes


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(capsys, monkeypatch)


@contextlib.contextmanager
def little_memory(megabytes: int = 500) -> Iterator[None]:
    """Fails if the process has grown by more than so much within it."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // MEGABYTES
    assert grown < megabytes, f"took {grown} MB"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small classifier of three classes."""
    classifier = Classifier(
        create_model(MODEL, num_classes=3, **ARGS),
        Preprocess(image_size=(8, 8)),
        ("ape", "bee", "cow"),
        model_name=MODEL,
        model_args=ARGS,
    )
    classifier.save(tmp_path / "model")
    return tmp_path / "model"


def changed(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes what the config.json of a model says."""
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


# -- config.json -------------------------------------------------------------------------------------------------------

HUGE = 10**300
BAD_ARGS: dict[str, list[Any]] = {
    "img_size": [0, -8, 7, [8], [8, 8, 8], [8, 0], True, 8.0, 10**9, HUGE, "8", {}, []],
    "patch_size": [0, -4, True, 4.0, "4", 10**9, HUGE, None],
    "in_chans": [0, True, 2.5, HUGE, 10**9],
    "global_pool": ["", "max", 3, None, []],
    "embed_dim": [0, -36, True, 36.0, 10**9, HUGE, "144"],
    "depth": [0, True, 10**5, HUGE, 2.0],
    "num_heads": [0, 7, 37, True, HUGE, -9],
    "mlp_ratio": [0, -1.0, float("inf"), float("nan"), 1e300, HUGE, True, "4"],
    "qkv_bias": [1, 0.0, "yes", None],
    "drop_rate": [-0.1, 1.5, float("nan"), True, "0", HUGE],
    "pos_drop_rate": [float("nan")],
    "proj_drop_rate": [float("nan"), 2],
    "attn_drop_rate": [float("inf"), -1],
    "drop_path_rate": [float("nan"), 2, -1, HUGE],
    "hybrid_backbone": [3, [], "no_such_model", "os.system"],
    "batch_norm": [1, "no"],
    "local_up_to_layer": [3, -1, True, HUGE],
    "locality_strength": [0, -1, float("nan"), float("inf"), HUGE, True],
    "use_pos_embed": [0, "x"],
    "gated": [1],
    "conv_init": [1],
    "gate_init": [float("nan"), float("inf"), HUGE, True, "x"],
    "weight_std": [0, -1, float("nan"), float("inf"), HUGE, True, "x", []],
    "device": ["meta", "cuda:99"],
    "dtype": ["float16"],
    "norm_layer": ["LayerNorm", None],
    "num_classes": [3],
}


@pytest.mark.parametrize("name", BAD_ARGS)
def test_a_model_argument_out_of_its_range(name: str, folder: Path) -> None:
    """It is refused before anything is built of it, by the name of the file and of the argument."""
    for value in BAD_ARGS[name]:
        changed(folder, lambda config, value=value: config["model_args"].update(ARGS | {name: value}))
        with little_memory():
            message = refused(lambda: convit.load(folder), f"{folder / 'config.json'}: ")
        assert name in message or "image size" in message


@pytest.mark.parametrize("name", [n for n in BAD_ARGS if n not in ("device", "dtype", "norm_layer", "num_classes")])
def test_the_same_ranges_hold_for_keywords(name: str) -> None:
    for value in BAD_ARGS[name]:
        if value is not None and value != "":  # None is left out by timm; '' is for features alone
            with pytest.raises(ValueError, match=r"^(image size|" + name + ")") as caught:
                create_model(MODEL, num_classes=3, **(ARGS | {name: value}))
            assert "\n" not in str(caught.value)


BAD_PREPROCESSING: dict[str, list[Any]] = {
    "input_size": [[3, 17, 17], [3, 10**9, 10**9], [3, 0, 8], [3, HUGE, 8], [3, 8.0, 8], [3, True, 8], [8, 8], 3, []],
    "mean": [[float("nan")] * 3, [HUGE] * 3, [1e300] * 3, [0, 0], "abc", None, [True] * 3],
    "std": [[1e-320] * 3, [0, 1, 1], [float("inf")] * 3, [-1.0] * 3, [1e300] * 3, [1e-30] * 3],
    "crop_pct": [1e-9, 0, -1, 2, float("nan"), True, "1", HUGE],
    "interpolation": ["cubic", 3, None, []],
}


@pytest.mark.parametrize("name", BAD_PREPROCESSING)
def test_preprocessing_out_of_its_range(name: str, folder: Path) -> None:
    for value in BAD_PREPROCESSING[name]:
        changed(folder, lambda config, value=value: config["pretrained_cfg"].update({name: value}))
        with little_memory():
            refused(lambda: convit.load(folder), "config.json: ")


@pytest.mark.parametrize(
    "names", [[], ["ape", "ape", "cow"], ["ape", 2, "cow"], [None] * 3, [["a"], "b", "c"], "abc", {"a": 1}, None, 3]
)
def test_class_names_that_are_none(names: Any, folder: Path) -> None:
    changed(folder, lambda config: config["pretrained_cfg"].update(label_names=names))
    refused(lambda: convit.load(folder), "config.json: ")


@pytest.mark.parametrize(
    "text",
    [
        lambda good: good.replace('"depth": 2', '"depth": 2, "depth": 3'),
        lambda good: good.replace('"depth": 2', f'"depth": {"9" * 5000}'),
        lambda good: good.replace('"depth": 2', '"depth": NaN'),
        lambda good: good.replace('"depth": 2', '"mlp_ratio": 1e999'),
        lambda good: good.replace('"depth": 2', '"depth": ' + "[" * 100_000),
        lambda good: good.replace('"depth": 2', '"depth": ' + '{"a":' * 100_000),
        lambda good: good[:-30],
        lambda good: good + "{}",
        lambda good: "\x00" + good,
        lambda good: f"[{good}]",
    ],
)
def test_json_that_nobody_writes(text: Callable[[str], str], folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(text(path.read_text()))
    refused(lambda: convit.load(folder), "config.json: ")


def test_a_model_takes_no_more_memory_than_its_file(folder: Path) -> None:
    """A config.json of a giant beside weights of kilobytes: the weights are compared before it is allocated."""
    giant = {"embed_dim": 9216, "depth": 64, "num_heads": 9, "local_up_to_layer": 0}
    changed(folder, lambda config: config["model_args"].update(ARGS | giant))
    with little_memory():
        refused(lambda: convit.load(folder), "model.safetensors: not the weights of")


def test_facts_of_the_training(folder: Path) -> None:
    for facts in (
        {"data": "x", "val_top1": 10**400},
        {"data": "x", "seed": True},
        {"data": "x", "epochs": "3"},
        {"data": "x", "": 3},
    ):
        changed(folder, lambda config, facts=facts: config.update(training=facts))
        refused(lambda: convit.load(folder), "config.json: ")


# -- .safetensors ------------------------------------------------------------------------------------------------------


def header(entries: dict[str, Any] | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A .safetensors file by hand."""
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(shape: list[Any], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


SAFETENSORS = {
    "a type of the future": header({"cls_token": entry([4], 0, 4, "F4096")}, bytes(4)),
    "a type that torch has not": header({"cls_token": entry([4], 0, 2, "F4")}, bytes(2)),
    "overlapping": header({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12)),
    "with a hole": header({"a": entry([2], 0, 8), "b": entry([2], 16, 24)}, bytes(24)),
    "out of the file": header({"a": entry([200], 0, 800)}, bytes(8)),
    "backwards": header({"a": entry([2], 8, 0)}, bytes(8)),
    "negative": header({"a": entry([-2], 0, 8)}, bytes(8)),
    "an overflowing shape": header({"a": entry([2**40, 2**40], 0, 8)}, bytes(8)),
    "of no size": header({"cls_token": entry([0], 0, 0)}),
    "of no size and a huge shape": header({"cls_token": entry([2**60, 0], 0, 0)}),
    "no tensors": header({}),
    "a header of 100 MB": header(b"{}", length=100 * 10**6),
    "a header that is said to be of 2^63": header(b"{}", length=2**63),
    "a header that is no object": header(b"[1, 2]"),
    "a header with NaN": header(b'{"a": NaN}'),
    "deep": header(b'{"a":' * 100_000),
    "twice the same": header(b'{"a":%s,"a":%s}' % ((json.dumps(entry([2], 0, 8)).encode(),) * 2), bytes(8)),
    "nothing": b"",
}


@pytest.mark.parametrize("what", SAFETENSORS)
def test_safetensors_that_are_none(what: str, folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(SAFETENSORS[what])
    with little_memory():
        refused(lambda: convit.load(folder), "model.safetensors: ")
        not_loaded(tiny_model(), path, "model.safetensors: ")
        not_loaded(tiny_model(), path, "model.safetensors: ", partial=True)


KINDS = [torch.int32, torch.int8, torch.bool, torch.complex64, torch.uint8]


@pytest.mark.parametrize("dtype", KINDS)
def test_numbers_of_another_kind_are_not_weights(dtype: torch.dtype, folder: Path, tmp_path: Path) -> None:
    """Cast into place, whole numbers would be other weights and complex ones half of themselves."""
    model = tiny_model()
    weights = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
    for path in (saved(weights, tmp_path / "a.pth"), tmp_path / "a.safetensors"):
        if path.suffix == ".safetensors":
            safetensors.torch.save_file(weights, path)
        not_loaded(model, path, path.name, str(dtype).removeprefix("torch."))
        not_loaded(model, path, path.name, partial=True)
    content = safetensors.torch.load_file(folder / "model.safetensors")
    safetensors.torch.save_file(content | {"norm.bias": content["norm.bias"].to(dtype)}, folder / "model.safetensors")
    refused(lambda: convit.load(folder), "model.safetensors: ", "norm.bias")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_numbers_of_another_precision_are(dtype: torch.dtype, tmp_path: Path) -> None:
    model = tiny_model()
    weights = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
    load_weights(model, saved(weights, tmp_path / "a.pth"))
    assert same_weights(model.state_dict(), {name: tensor.float() for name, tensor in weights.items()})


# -- .pth --------------------------------------------------------------------------------------------------------------


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
    path = saved(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    model = tiny_model()
    load_weights(model, path)
    assert same_weights(model.state_dict(), weights)


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
    model = tiny_model()
    load_weights(model, path)
    assert same_weights(model.state_dict(), weights)


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
    model = tiny_model()
    load_weights(model, saved(NESTED[how](weights), tmp_path / "a.pth"))
    assert same_weights(model.state_dict(), weights)


@pytest.mark.parametrize("name", ["model_ema", "state_dict_ema", "ema", "ema_state_dict", "model_ema_state_dict"])
def test_averaged_weights_are_preferred(name: str, tmp_path: Path) -> None:
    plain, average = tiny_model().state_dict(), tiny_model().state_dict()
    wrapped = {
        "step": torch.tensor(3),
        "initted": torch.tensor(True),
        **{f"ema_model.{k}": average[k] for k in average},
    }
    for held in (average, {"state_dict": average, "decay": 0.99}, wrapped):
        path = saved({"model": plain, name: held}, tmp_path / "a.pth")
        for ema, wanted in ((True, average), (False, plain)):
            model = tiny_model()
            load_weights(model, path, ema=ema)
            assert same_weights(model.state_dict(), wanted), (name, ema)
    load_weights(model, saved({"model": plain, name: {"decay": 0.99}}, tmp_path / "a.pth"))
    assert same_weights(model.state_dict(), plain)


def test_a_module_beside_the_model_is_named(tmp_path: Path) -> None:
    """Lightning's metrics and losses have tensors too: they are not ours, and not left out without a word."""
    weights = {f"model.{k}": v for k, v in tiny_model().state_dict().items()} | {"loss.weight": torch.ones(5)}
    path = saved({"state_dict": weights}, tmp_path / "a.pth")
    not_loaded(tiny_model(), path, "1 unexpected (loss.weight)")
    assert load_weights(tiny_model(), path, partial=True).unexpected == ("loss.weight",)


class Loaded:
    """Says so if it is ever made from a file."""

    made: ClassVar[list[object]] = []

    def __init__(self, *args: object) -> None:
        self.args = args

    def __reduce__(self) -> Any:
        return Loaded.made.append, (3,)


@pytest.mark.parametrize("what", ["a class", "a lambda's owner", "partial", "a bound method"])
def test_the_rest_is_refused_by_name(what: str, tmp_path: Path) -> None:
    import functools

    values = {
        "a class": (torch.nn.ReLU(), "torch.nn.modules.activation.ReLU"),
        "a lambda's owner": (Loaded(), "getattr"),
        "partial": (functools.partial(print, 3), "functools.partial"),
        "a bound method": (io.StringIO("a"), "StringIO"),
    }
    value, name = values[what]
    path = saved({"model": tiny_model().state_dict(), "x": value}, tmp_path / "a.pth")
    not_loaded(tiny_model(), path, "a.pth: ", name, "state_dict()")
    assert Loaded.made == []


def test_a_pickle_of_gigabytes_in_a_few_bytes(tmp_path: Path) -> None:
    """A bytearray of a number is as long as the number says."""
    content = b"\x80\x02c__builtin__\nbytearray\n" + b"\x8a\x06" + (10**14).to_bytes(6, "little") + b"\x85R."
    path = tmp_path / "a.pth"
    buffer = io.BytesIO()
    torch.save({"x": 1}, buffer)
    import zipfile

    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, content if name.endswith("data.pkl") else old.read(name))
    with little_memory():
        not_loaded(tiny_model(), path, "a.pth: ")


# -- YAML --------------------------------------------------------------------------------------------------------------

YAML = {
    "a bomb": "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n",
    "deep": "a: " + "[" * 100_000,
    "deep blocks": "".join(" " * n + "a:\n" for n in range(3000)),
    "a date": "epochs: 2020-01-01",
    "no date": "epochs: 2020-99-99",
    "a huge number": f"epochs: {'9' * 5000}",
    "a huge hexadecimal number": f"epochs: 0x{'f' * 50_000}",
    "a huge binary number": f"seed: 0b{'1' * 50_000}",
    "a huge number in a list": f"image_size: [0x{'f' * 50_000}]",
    "a huge number as a name": f"0x{'f' * 50_000}: 3",
    "NaN": "lr: .nan",
    "infinity": "lr: .inf",
    "twice": "epochs: 3\nepochs: 4",
    "twice in other words": "batch-size: 3\nbatch_size: 4",
    "merged": "epochs: 3\n<<: {epochs: 5}",
    "a tag": "epochs: !!python/object/apply:os.system [true]",
    "a list as a name": "? [a, b]\n: 3",
    "nothing as a name": "? \n: 3",
    "bytes": "epochs: !!binary aGVsbG8=",
    "a set": "epochs: {3, 4}",
    "control characters": "epochs: \x07",
    "two documents": "epochs: 3\n---\nepochs: 4",
    "true for a number": "epochs: true",
    "a number for a word": "model: 3",
    "sixties": "epochs: 1:30",
    "half a character": 'precision: "\\udcff"',
}


@pytest.mark.parametrize("what", YAML)
def test_yaml_that_nobody_writes(what: str, tmp_path: Path, shell: Shell) -> None:
    (tmp_path / "a.yaml").write_text(YAML[what])
    line = shell.refuses("train", "digits", "--config", tmp_path / "a.yaml", "--dry-run", says=("convit train: ",))
    assert len(line) < 600


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_yaml_in_another_encoding(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes("model: müll".encode(encoding))
    refused(lambda: read_yaml(tmp_path / "a.yaml"), "a.yaml: no UTF-8")


# -- ONNX --------------------------------------------------------------------------------------------------------------


def ask(path: Path) -> np.ndarray[Any, Any]:
    return OnnxClassifier(path).probabilities([Image.new("RGB", (9, 7), (200, 100, 50))] * 2)


def test_the_file_that_the_others_are_made_of(tmp_path: Path) -> None:
    assert ask(onnx_file(tmp_path / "a.onnx")).shape == (2, 3)


FACTS: dict[str, list[str | None]] = {
    "class_names": [
        "[]",
        "{}",
        '"abc"',
        "3",
        "null",
        '["a", "a", "b"]',
        '["a", 2, "b"]',
        '["a"]',
        "[" * 10**5,
        "",
        None,
    ],
    "preprocessing": ["[]", "3", "null", "{}", '{"image_size": [8, 8]}', "NaN", "{" * 10**5, "", None],
    "model_name": [None],
    "convit_format": ["2", "", "1\n", None, "9" * 5000],
}


@pytest.mark.parametrize("name", FACTS)
def test_metadata_of_an_exported_file(name: str, tmp_path: Path) -> None:
    for value in FACTS[name]:
        refused(lambda value=value: OnnxClassifier(onnx_file(tmp_path / "a.onnx", **{name: value})), "a.onnx: ")


@pytest.mark.parametrize(
    "change",
    [
        {"std": [1e-320] * 3},
        {"crop_pct": 1e-9},
        {"image_size": [8, 10**9]},
        {"mean": [1e999] * 3},
        {"image_size": [8, 9]},
    ],
)
def test_preprocessing_of_an_exported_file(change: dict[str, Any], tmp_path: Path) -> None:
    said = json.dumps(Preprocess(image_size=(8, 8)).to_dict() | change)
    with little_memory():
        refused(lambda: OnnxClassifier(onnx_file(tmp_path / "a.onnx", preprocessing=said)), "a.onnx: ")


def shape(place: Any, *sides: Any, kind: int = FLOAT) -> None:
    place.CopyFrom(onnx.helper.make_tensor_value_info(place.name, kind, sides))


def second_input(model: Any) -> None:
    model.graph.input.append(onnx.helper.make_tensor_value_info("more", FLOAT, ["batch", 3]))


def second_output(model: Any) -> None:
    model.graph.output.append(onnx.helper.make_tensor_value_info("flat", FLOAT, ["batch", 3]))


def external(location: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        (tensor,) = model.graph.initializer
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in {"location": location, "offset": "0", "length": "36"}.items():
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value

    return change


def constant_in_a_function(location: str) -> Callable[[Any], None]:
    """The same, in a node's attribute."""

    def change(model: Any) -> None:
        (tensor,) = model.graph.initializer
        external(location)(model)
        node = onnx.helper.make_node("Constant", [], ["weight"], value=tensor)
        del model.graph.initializer[:]
        model.graph.node.insert(0, node)

    return change


ODD_ONNX: dict[str, Callable[[Any], object]] = {
    "two inputs": second_input,
    "two outputs": second_output,
    "an input of rank 3": lambda m: shape(m.graph.input[0], "batch", 3, 8),
    "an input of rank 5": lambda m: shape(m.graph.input[0], "batch", 3, 8, 8, 1),
    "an input of bytes": lambda m: shape(m.graph.input[0], "batch", 3, 8, 8, kind=2),
    "an input of doubles": lambda m: shape(m.graph.input[0], "batch", 3, 8, 8, kind=11),
    "two images at a time": lambda m: shape(m.graph.input[0], 2, 3, 8, 8),
    "four channels": lambda m: shape(m.graph.input[0], "batch", 4, 8, 8),
    "everything is open, and of another rank": lambda m: (
        shape(m.graph.input[0], "a", "b", "c", "d"),
        shape(m.graph.output[0], "a", "b", "c"),
    ),
    "an operator that there is not": lambda m: setattr(m.graph.node[0], "op_type", "Nothing"),
    "an operator of another domain": lambda m: setattr(m.graph.node[0], "domain", "evil"),
    "no nodes": lambda m: m.graph.ClearField("node"),
    "no graph": lambda m: m.ClearField("graph"),
    "weights of another size than they say": lambda m: m.graph.initializer[0].dims.__setitem__(0, 2**40),
    "weights of a negative size": lambda m: m.graph.initializer[0].dims.__setitem__(0, -3),
    "NaN for weights": lambda m: setattr(m.graph.initializer[0], "raw_data", np.full(9, np.nan, np.float32).tobytes()),
    "infinite weights": lambda m: setattr(m.graph.initializer[0], "raw_data", np.full(9, np.inf, np.float32).tobytes()),
    "terabytes as it runs": lambda m: m.graph.node.insert(
        0, onnx.helper.make_node("Expand", ["images", "size"], ["unused"])
    ),
}


@pytest.mark.parametrize("what", ODD_ONNX)
def test_odd_exported_files(what: str, tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "a.onnx", ODD_ONNX[what])
    with little_memory():
        refused(lambda: ask(path), "a.onnx: ")


def test_everything_open_is_answered_or_refused(tmp_path: Path) -> None:
    def opened(model: Any) -> None:
        shape(model.graph.input[0], "a", "b", "c", "d")
        shape(model.graph.output[0], "a", "e")

    assert ask(onnx_file(tmp_path / "a.onnx", opened)).shape == (2, 3)
    path = onnx_file(tmp_path / "a.onnx", opened, class_names='["ape", "bee"]')
    refused(lambda: ask(path), "a.onnx: ")


@pytest.mark.parametrize("where", [external, constant_in_a_function])
@pytest.mark.parametrize(
    "location", ["beside.bin", "../secret.bin", "SECRET", "../../etc/passwd", "*/_ORT_MEM_ADDR_/*"]
)
def test_weights_in_other_files_are_not_read(where: Any, location: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.arange(9, dtype=np.float32).tobytes())
    inner = tmp_path / "inner"
    inner.mkdir()
    shutil.copy(secret, inner / "beside.bin")
    path = onnx_file(inner / "a.onnx", where(location.replace("SECRET", str(secret))))
    refused(lambda: ask(path), "a.onnx: its weights are in another file")


@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"ORTM" * 20, b"\x08", b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x0b" * 40, b"<html>"],
)
def test_no_onnx(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    refused(lambda: ask(tmp_path / "a.onnx"), "a.onnx: ")


def test_exported_files_by_the_command_line(tmp_path: Path, shell: Shell) -> None:
    picture = tmp_path / "a.png"
    Image.new("RGB", (9, 7)).save(picture)
    path = onnx_file(tmp_path / "a.onnx", external("../../etc/passwd"))
    shell.refuses("predict", path, picture, says=(path, "in another file"))
    for facts in ({"patch_size": "x"}, {"patch_size": None}, {"model_args": "[1]"}, {"model_args": '{"depth": 1e9}'}):
        path = onnx_file(tmp_path / "a.onnx", **facts)  # type: ignore[arg-type]
        shell.refuses("bench", "--onnx", path, says=(path, "export it again"))


# -- the files of a run ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch; read only."""
    place = tmp_path_factory.mktemp("handed")
    data = photos(place / "animals", {"ape": 6, "bee": 6, "cow": 7})
    return convit.train(config=None, listeners=(), **vars_of(data, place / "run")).folder


def vars_of(data: Path, out: Path) -> dict[str, Any]:
    given = {"data": str(data), "out": out, "model": MODEL, "image_size": 8, "patch_size": 4, "epochs": 1}
    return given | {"workers": 0, "batch_size": 8, "device": "cpu"}


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


TEXTS = [
    *("", "null", "3", "[]", "{}", '"a"', "[" * 100_000, '{"a":' * 100_000, '{"train": NaN}', '{"a": 1, "a": 2}'),
    *('{"train": "abc"}', '{"train": [1, 2]}', '{"train": {"a": 1}}', '{"train": null}', f'{{"train": {"9" * 5000}}}'),
]


@pytest.mark.parametrize("name", ["plan.json", "split.json", "images.json", "skipped.json"])
def test_a_file_of_a_run_in_another_form(name: str, run: Path, shell: Shell) -> None:
    for text in TEXTS:
        (run / name).write_text(text)
        if (name, text) == ("skipped.json", "[]"):
            continue
        shell.refuses("train", "--resume", run, "--device", "cpu", says=(run,))


@pytest.mark.parametrize(
    "line", ["null", "[]", "{}", '{"epoch": 1}', "[" * 100_000, '{"epoch": true}', '{"epoch": 1, "epoch": 1}', "\xff"]
)
def test_metrics_in_another_form(line: str, run: Path) -> None:
    (run / "metrics.jsonl").write_text(line)
    refused(RunFolder(run).read_history, "metrics.jsonl: not readable")


def plan_by_hand(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the plan as somebody would who knows of its checksum."""
    plan = json.loads((run / "plan.json").read_text())
    del plan["checksum"]
    change(plan)
    (run / "plan.json").write_text(json.dumps(plan | {"checksum": fingerprint(plan)}))


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: plan.update(blocks=10**400),
        lambda plan: plan.update(cache="yes"),
        lambda plan: plan.update(given=[1]),
        lambda plan: plan.update(sources={"images": 3}),
        lambda plan: plan["model_args"].update(depth=10**6),
        lambda plan: plan["model_args"].update(device="meta"),
        lambda plan: plan["options"].update(epochs=10**400),
        lambda plan: plan["facts"].update(counts={"train": [10**400] * 3}),
        lambda plan: plan["preprocess"].update(crop_pct=1e-9),
    ],
)
def test_a_plan_by_hand(change: Callable[[dict[str, Any]], object], run: Path, shell: Shell) -> None:
    plan_by_hand(run, change)
    shell.refuses("train", "--resume", run, "--device", "cpu", says=(run / "plan.json",))


def state_by_hand(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes every state of the run as somebody would who knows of their checksums."""
    for state in (run / "checkpoints").iterdir():
        meta = json.loads((state / "state.json").read_text().split("\n")[1])
        change(meta)
        body = json.dumps(meta)
        (state / "state.json").write_text(f"{hashlib.sha256(body.encode()).hexdigest()}\n{body}\n")


STATES: dict[str, Callable[[dict[str, Any]], object]] = {
    "epochs below none": lambda meta: meta["progress"].update(epoch=-1),
    "more epochs than planned": lambda meta: meta["progress"].update(epoch=9),
    "true for an epoch": lambda meta: meta["progress"].update(epoch=True),
    "huge steps": lambda meta: meta["progress"].update(step=10**400),
    "a loss that is no number": lambda meta: meta["progress"].update(loss_sum=float("nan")),
    "no history": lambda meta: meta["progress"].update(history=None),
    "another history": lambda meta: meta["progress"].update(history=[{"epoch": 1}]),
    "no gates": lambda meta: meta["progress"]["history"][0].pop("gates"),
    "gates that are no numbers": lambda meta: meta["progress"]["history"][0].update(gates=[["x"]]),
    "unknown progress": lambda meta: meta["progress"].update(teeth=3),
    "no progress": lambda meta: meta.update(progress=[]),
    "no groups": lambda meta: meta.update(param_groups=[]),
    "other groups": lambda meta: meta["param_groups"][0].update(params=[0]),
    "a rate that is no number": lambda meta: meta["param_groups"][0].update(lr="fast"),
    "an infinite rate": lambda meta: meta["param_groups"][0].update(lr=float("inf")),
    "three betas": lambda meta: meta["param_groups"][0].update(betas=[0.9, 0.9, 0.9]),
    "another decay": lambda meta: meta["param_groups"][0].update(weight_decay=1e9),
}


@pytest.mark.parametrize("what", STATES)
def test_a_state_by_hand(what: str, run: Path, shell: Shell) -> None:
    state_by_hand(run, STATES[what])
    shell.refuses("train", "--resume", run, "--device", "cpu", says=(run / "checkpoints", "expected"))


def test_a_run_that_nobody_changed_goes_on(run: Path, shell: Shell) -> None:
    plan_by_hand(run, lambda plan: None)
    state_by_hand(run, lambda meta: None)
    assert shell("train", "--resume", run, "--device", "cpu").status == 0


def test_a_model_that_diverged_does_not_answer(folder: Path, tmp_path: Path) -> None:
    path = folder / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    safetensors.torch.save_file(weights | {"norm.bias": torch.full_like(weights["norm.bias"], torch.nan)}, path)
    refused(lambda: convit.load(folder).predict(Image.new("RGB", (9, 7))), "not finite")


# -- a run folder of somebody else -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    train(options(photos(root / "data", {"ape": 6, "bee": 6}), root / "run", epochs=1))
    return root / "run"


@pytest.fixture
def a_run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.mark.skipif(os.name != "posix", reason="links and pipes")
@pytest.mark.parametrize("name", [".lock", "log.txt", "curves.png", "confusion.csv", "metrics.jsonl"])
def test_a_run_does_not_write_through_links(name: str, a_run: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (a_run / name).unlink(missing_ok=True)
    (a_run / name).symlink_to(victim)
    with pytest.raises(InputError, match=name):
        train(resume(a_run))
    assert victim.read_text() == "precious"


@pytest.mark.skipif(os.name != "posix", reason="links and pipes")
@pytest.mark.parametrize("name", [".lock", "log.txt", "evaluation.json"])
def test_a_run_does_not_wait_for_pipes(name: str, a_run: Path) -> None:
    (a_run / name).unlink(missing_ok=True)
    os.mkfifo(a_run / name)
    with pytest.raises(InputError, match=name):
        train(resume(a_run))


def test_a_split_or_classes_of_another_run_are_refused(a_run: Path) -> None:
    split = (a_run / "split.json").read_bytes()
    (a_run / "split.json").write_text("{}")
    with pytest.raises(InputError, match=r"split\.json"):
        RunFolder(a_run).known()
    (a_run / "split.json").write_bytes(split)
    config = json.loads((a_run / "config.json").read_text())
    config["pretrained_cfg"]["label_names"].reverse()
    (a_run / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"config\.json"):
        RunFolder(a_run).known()


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = create_model("convit_micro_patch4_32", num_classes=2)
    weights = model.state_dict()
    weights["head.bias"][0] = float("nan")
    torch.save(weights, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"head\.bias has numbers that are not finite"):
        load_weights(model, tmp_path / "a.pth")


def test_counts_and_devices_from_python(a_run: Path) -> None:
    classifier = convit.load(a_run)
    picture = Image.new("RGB", (8, 8))
    assert len(classifier.predict(picture, top_k=np.int64(2))) == 2
    for wrong in (0, "3", 1.5, None, True):
        with pytest.raises(InputError):
            classifier.probabilities([picture], batch_size=wrong)
    for device in (5, "", "nowhere"):
        with pytest.raises(InputError, match="device"):
            convit.load(a_run, device=device)
    with pytest.raises(InputError):
        classifier.predict(Image.fromarray(np.full((8, 8), np.nan, np.float32)))
