"""A model that somebody hands over: ``config.json`` and ``model.safetensors``."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from PIL import Image

import convit
from convit import create_model
from tests.helpers import refused, tiny_model
from tests.models.checkpoint_files import not_loaded, saved
from tests.outside.handed_over import ARGS, MODEL, changed, little_memory

HUGE = 10**300
BAD_ARGS: dict[str, list[Any]] = {
    "img_size": [0, -8, 7, [8], [8, 8, 8], [8, 0], True, 8.0, 10**9, HUGE, "8", {}, []],
    "patch_size": [0, -4, True, 4.0, "4", 10**9, HUGE, None],
    "in_chans": [0, True, 2.5, HUGE, 10**9],
    "global_pool": ["", "max", 3, None, []],
    "embed_dim": [0, -36, True, 36.0, 10**9, HUGE, "144"],
    "depth": [0, True, 10**5, HUGE, 2.0, "six"],
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
    "device": ["meta", "cuda:99", "nowhere"],
    "dtype": ["float16"],
    "norm_layer": ["LayerNorm", "os.system", None],
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
    "mean": [[float("nan")] * 3, [HUGE] * 3, [1e300] * 3, [0, 0], [0, "x", 0], "abc", None, [True] * 3],
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


def test_a_model_that_diverged_does_not_answer(folder: Path, tmp_path: Path) -> None:
    path = folder / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    safetensors.torch.save_file(weights | {"norm.bias": torch.full_like(weights["norm.bias"], torch.nan)}, path)
    refused(lambda: convit.load(folder).predict(Image.new("RGB", (9, 7))), "not finite")


def test_weights_beside_the_config_of_another_model(folder: Path, tmp_path: Path) -> None:
    """Of two models of one design, with other classes: each alone answers, mixed the class names would be wrong."""
    other = convit.load(folder)
    other.class_names = ("dog", "eel", "fox")
    other.save(tmp_path / "other")
    assert convit.load(tmp_path / "other").class_names == ("dog", "eel", "fox")
    for name in ("config.json", "model.safetensors"):
        mixed = shutil.copytree(folder, tmp_path / f"mixed-{name}")
        shutil.copy(tmp_path / "other" / name, mixed)
        refused(lambda mixed=mixed: convit.load(mixed), f"{mixed / 'config.json'}: not as it was written with")


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config["pretrained_cfg"]["label_names"].reverse(),
        lambda config: config["pretrained_cfg"]["mean"].reverse(),
        lambda config: config["pretrained_cfg"].update(crop_pct=0.5),
        lambda config: config.update(num_classes=4),
        lambda config: config.update(full_scale=65535),
        lambda config: config["model_args"].update(gate_init=2.0),
    ],
)
def test_a_config_that_was_changed_by_hand(change: Callable[[dict[str, Any]], object], folder: Path) -> None:
    """With the same weights it would give other answers, or contradicts itself."""
    changed(folder, change)
    refused(lambda: convit.load(folder), "config.json: not as it was written with model.safetensors")


def test_weights_of_other_programs_beside_a_config(folder: Path) -> None:
    """They do not say what they belong to, and are taken."""
    path = folder / "model.safetensors"
    safetensors.torch.save_file(safetensors.torch.load_file(path), path)
    changed(folder, lambda config: config["pretrained_cfg"]["label_names"].reverse())
    assert convit.load(folder).class_names == ("cow", "bee", "ape")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_that_was_lengthened(name: str, folder: Path) -> None:
    os.truncate(folder / name, 3 << 30)
    with little_memory():
        refused(lambda: convit.load(folder), f"{name}: ", "more than ", " bytes")


@pytest.mark.parametrize("device", [1.5, float("nan"), torch.zeros(2), None, ["cpu"]])
def test_a_device_that_is_none(device: Any, folder: Path) -> None:
    refused(lambda: convit.load(folder, device=device), "device: got ")
