"""An exported classifier by hand: small, quick to make, and easily changed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convit.data import Preprocess

onnx = pytest.importorskip("onnx")
FLOAT = 1


def onnx_file(path: Path, change: Callable[[Any], object] = lambda model: None, **facts: str | None) -> Path:
    """A small exported classifier by hand: the mean of each channel, then three classes."""
    h = onnx.helper
    weight = onnx.numpy_helper.from_array(np.arange(9, dtype=np.float32).reshape(3, 3), "weight")
    nodes = [
        h.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        h.make_node("Flatten", ["pooled"], ["flat"]),
        h.make_node("MatMul", ["flat", "weight"], ["logits"]),
    ]
    inputs = [h.make_tensor_value_info("images", FLOAT, ["batch", 3, 8, 8])]
    outputs = [h.make_tensor_value_info("logits", FLOAT, ["batch", 3])]
    model = h.make_model(h.make_graph(nodes, "g", inputs, outputs, [weight]), opset_imports=[h.make_opsetid("", 18)])
    model.ir_version = 10
    written = {
        "convit_format": "1",
        "model_name": "convit_micro_patch4_32",
        "model_args": "{}",
        "class_names": '["ape", "bee", "cow"]',
        "preprocessing": json.dumps(Preprocess(image_size=(8, 8)).to_dict()),
        "patch_size": "4",
        "dynamic_size": "false",
    }
    h.set_model_props(model, {k: v for k, v in (written | facts).items() if v is not None})
    change(model)
    path.write_bytes(model.SerializeToString())
    return path
