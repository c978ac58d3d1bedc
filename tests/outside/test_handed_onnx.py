"""Exported files that somebody hands over."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import convit
from convit.data import Preprocess
from convit.export import export_onnx
from convit_onnx import OnnxClassifier
from tests.cli.command import Shell
from tests.helpers import refused
from tests.outside.handed_over import little_memory
from tests.outside.onnx_files import FLOAT, onnx, onnx_file


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
    ("facts", "says"),
    [
        ({"convit_format": None}, "no convit metadata in it; expected a file that 'convit export'"),
        ({"convit_format": "2"}, "format '2'; expected a file that 'convit export' of this version wrote"),
        ({"class_names": '["a"]'}, "metadata that do not fit it"),
    ],
)
def test_what_is_said_of_metadata(facts: dict[str, str | None], says: str, tmp_path: Path) -> None:
    refused(lambda: OnnxClassifier(onnx_file(tmp_path / "a.onnx", **facts)), f"a.onnx: {says}")


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
    refused(lambda: ask(tmp_path / "a.onnx"), "a.onnx: not an ONNX file" if content else "a.onnx: an empty file")


def test_exported_files_by_the_command_line(tmp_path: Path, shell: Shell) -> None:
    picture = tmp_path / "a.png"
    Image.new("RGB", (9, 7)).save(picture)
    path = onnx_file(tmp_path / "a.onnx", external("../../etc/passwd"))
    shell.refuses("predict", path, picture, says=(path, "in another file"))
    for facts in ({"patch_size": "x"}, {"patch_size": None}, {"model_args": "[1]"}, {"model_args": '{"depth": 1e9}'}):
        path = onnx_file(tmp_path / "a.onnx", **facts)  # type: ignore[arg-type]
        shell.refuses("bench", "--onnx", path, says=(path, "export it again"))


def test_a_changed_bit_in_an_exported_file(folder: Path, tmp_path: Path) -> None:
    """As in model.safetensors it is detected, also in the class names; a file without a checksum is taken."""
    pytest.importorskip("onnxscript")
    path = export_onnx(convit.load(folder), tmp_path / "a.onnx").path
    content = path.read_bytes()
    assert ask(path).shape == (2, 3)
    for at in (len(content) // 2, content.index(b'"bee"') + 1):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        refused(lambda: OnnxClassifier(path), "a.onnx: ")
    model = onnx.load_model_from_string(content)
    kept = [entry for entry in model.metadata_props if entry.key != "sha256"]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    path.write_bytes(model.SerializeToString())
    assert ask(path).shape == (2, 3)


def test_an_exported_file_of_more_bytes_than_there_can_be(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "a.onnx")
    os.truncate(path, 1 << 32)
    with little_memory():
        refused(lambda: OnnxClassifier(path), "a.onnx: 4294967296 bytes")
