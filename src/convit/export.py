"""A classifier as one file that runs without this package: ONNX, or PyTorch's own exported program.

Shapes: B batch, P prefix tokens, N = rows * columns patches, C width.
"""

import copy
import importlib.metadata
import importlib.util
import json
import logging
import math
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from convit.choices import OPSET
from convit.classifier import Classifier, check_input
from convit.errors import InputError, one_line
from convit.export_verification import Run, checked_sizes, verified
from convit.models import ConViT
from convit_onnx import CHECKSUM, FORMAT, NO_CHECKSUM, NO_TELEMETRY, with_checksum

OLDEST_OPSET = 18
INPUT, OUTPUT = "images", "logits"


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """A file that was written, and how far its answers are from PyTorch's."""

    path: Path
    bytes: int
    image_sizes: tuple[tuple[int, int], ...]
    """The (height, width) that it was checked at, with batches of random images each
    (:data:`convit.export_verification.BATCHES`)."""
    difference: float
    """Largest difference of a logit before the weights were rounded, as a part of the largest logit."""
    int8_difference: float | None = None
    """The same of the file with 8-bit weights."""


def export_onnx(
    classifier: Classifier, path: str | Path, *, dynamic_size: bool = False, int8: bool = False, opset: int = OPSET
) -> Exported:
    """Writes one ONNX file: weights, preprocessing and class names in it, for any batch size (of ``int8``: for 1).

    Its input ``images`` is ``(batch, 3, height, width)``, normalised as the metadata entry ``preprocessing`` says; its
    output ``logits`` is ``(batch, classes)``, divided by the classifier's temperature: their softmax gives the
    calibrated probabilities of ``class_names``. The file is run in onnxruntime and compared with PyTorch before it is
    renamed to ``path``.

    Args:
        classifier: what to export.
        path: where to, ending in ``.onnx``; an older file is replaced.
        dynamic_size: any height and width that the patch divides, two patches at least, in place of the
            preprocessing's. Position embeddings are resized in the graph, by the same bicubic filter.
        int8: the weights of all linear layers as 8-bit integers, one scale for each output; onnxruntime quantises their
            input too, at run time. A quarter of the size, and faster on CPUs. Such a file takes one image at a time:
            that input has one scale, so that the answer to an image would depend on its neighbours in a batch.
        opset: version of the ONNX operators, 18 or later.

    Raises:
        InputError: the extra ``convit[export]`` is not installed; the file would not be the same function as the
            model (nothing is left then); a wrong ``opset`` or ending.
    """
    path = checked_path(path, ".onnx")
    if opset < OLDEST_OPSET:
        raise InputError(f"opset: got {opset}, expected {OLDEST_OPSET} or later, such as {OPSET}")
    _need("onnx", "onnxscript", "onnxruntime")
    import onnx

    model, sizes = copied_model(classifier), checked_sizes(classifier, dynamic_size)
    temperature = classifier.temperature
    program = trace(model, classifier.preprocess.image_size, dynamic_size=dynamic_size, temperature=temperature)
    with _quiet():
        try:
            made = torch.onnx.export(
                program, dynamo=True, input_names=[INPUT], output_names=[OUTPUT], opset_version=opset, verbose=False
            )
        except Exception as error:  # of many kinds, all of them the exporter's
            raise InputError(f"opset: PyTorch cannot export this model with {opset} ({one_line(error)})") from error
    assert made is not None
    proto = made.model_proto
    _clean(proto, dynamic_size)
    facts = _metadata(classifier, dynamic_size)
    with _replacing(path) as temporary:
        onnx.helper.set_model_props(proto, facts | {"weights": "float32", CHECKSUM: NO_CHECKSUM})
        # Not by the exporter's own save(), which would put the weights of a large model into a second file.
        temporary.write_bytes(with_checksum(proto.SerializeToString()))
        try:
            runner = onnx_runner(temporary)
        except Exception as error:  # onnxruntime has exceptions of its own, without a common class
            raise InputError(f"opset: got {opset}, which onnxruntime cannot run ({one_line(error)})") from error
        difference = verified(model, runner, sizes, path, temperature)
        rounded = None
        if int8:
            _quantise(proto, temporary)
            smaller = onnx.load(temporary)
            onnx.helper.set_model_props(smaller, facts | {"weights": "int8", CHECKSUM: NO_CHECKSUM})
            for value in (*smaller.graph.input, *smaller.graph.output):
                value.type.tensor_type.shape.dim[0].dim_value = 1  # any other batch is refused
            temporary.write_bytes(with_checksum(smaller.SerializeToString()))
            rounded = verified(model, onnx_runner(temporary), sizes, path, temperature, tolerance=math.inf)
        size = temporary.stat().st_size
    return Exported(path=path, bytes=size, image_sizes=sizes, difference=difference, int8_difference=rounded)


def export_torch(classifier: Classifier, path: str | Path, *, dynamic_size: bool = False) -> Exported:
    """Writes one file for ``torch.export.load``: it needs PyTorch, but neither this package nor timm.

    What :func:`export_onnx` has as metadata is its ``metadata.json``::

        extra = {"metadata.json": ""}
        model = torch.export.load("model.pt2", extra_files=extra).module()

    Args:
        classifier: what to export.
        path: where to, ending in ``.pt2``; an older file is replaced.
        dynamic_size: any height and width that the patch divides, two patches at least.

    Raises:
        InputError: the file would not be the same function as the model, or a wrong ending.
    """
    path = checked_path(path, ".pt2")
    model, sizes = copied_model(classifier), checked_sizes(classifier, dynamic_size)
    temperature = classifier.temperature
    program = trace(model, classifier.preprocess.image_size, dynamic_size=dynamic_size, temperature=temperature)
    for node in program.graph.nodes:  # names of files and folders on this machine
        node.meta.pop("stack_trace", None)
    facts = json.dumps(_metadata(classifier, dynamic_size) | {"weights": "float32"}, ensure_ascii=False, indent=1)
    with _replacing(path) as temporary:
        with _quiet():
            torch.export.save(program, temporary, extra_files={"metadata.json": facts})
            extra: dict[str, Any] = {"metadata.json": ""}
            loaded = torch.export.load(temporary, extra_files=extra).module()
        assert json.loads(extra["metadata.json"]) == json.loads(facts)
        difference = verified(model, loaded, sizes, path, temperature)
        size = temporary.stat().st_size
    return Exported(path=path, bytes=size, image_sizes=sizes, difference=difference)


# -- the model as a graph ----------------------------------------------------------------------------------------------


class Calibrated(nn.Module):
    """A model whose logits are divided by its temperature: their softmax gives calibrated probabilities.

    >>> Calibrated(nn.Identity(), 2.0)(torch.tensor([4.0]))
    tensor([2.])
    """

    def __init__(self, model: nn.Module, temperature: float) -> None:
        super().__init__()
        self.model, self.temperature = model, temperature

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits / self.temperature


def trace(
    model: ConViT, image_size: tuple[int, int], *, dynamic_size: bool = False, temperature: float = 1.0
) -> ExportedProgram:
    """The graph from images ``(B, 3, H, W)`` to logits, for any B of at least 1.

    Args:
        model: in evaluation mode, in fp32, on the CPU.
        image_size: H and W.
        dynamic_size: any H and W that the patch divides, from two patches on, instead.
        temperature: what the logits are divided by.
    """
    patch = model.patch_size
    shape: dict[int, Any] = {0: Dim("batch", min=1)}
    height, width = image_size
    if dynamic_size:
        shape |= {2: patch * Dim("rows", min=2), 3: patch * Dim("columns", min=2)}
        # Neither square nor the model's own size: such a property of the example would be fixed in the graph.
        height, width = height + patch, width + 2 * patch
    with torch.no_grad(), _quiet():
        example = torch.zeros(2, model.in_chans, height, width)
        return torch.export.export(Calibrated(model, temperature), (example,), dynamic_shapes={"x": shape})


# -- the file ----------------------------------------------------------------------------------------------------------


def onnx_runner(path: Path, *, threads: int = 0) -> Run:
    """The ONNX file as a function from images to logits, in onnxruntime on the CPU; 0 threads: one for each core.

    A file that takes one image at a time gets them so.
    """
    _need("onnxruntime")
    os.environ.setdefault(*NO_TELEMETRY)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    options.intra_op_num_threads = threads
    # Between two calls its threads do not spin, which would slow down other work.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        parts = images.split(1) if session.get_inputs()[0].shape[0] == 1 else (images,)
        return torch.cat([torch.from_numpy(session.run([OUTPUT], {INPUT: part.numpy()})[0]) for part in parts])

    return run


def _quantise(proto: Any, path: Path) -> None:
    os.environ.setdefault(*NO_TELEMETRY)
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(
            proto,
            path,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            # Seven of the eight bits: with all of them, processors without VNNI overflow and give other answers.
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )


def _metadata(classifier: Classifier, dynamic_size: bool) -> dict[str, str]:
    """What a user of the file has to know; every value but the names of model and version is JSON.

    The temperature in ``calibration`` is for information: the logits are divided by it already.
    """
    return {
        "convit_format": FORMAT,
        "convit_version": importlib.metadata.version("convit"),
        "model_name": classifier.model_name,
        "model_args": json.dumps(classifier.model_args),
        "class_names": json.dumps(classifier.class_names, ensure_ascii=False),
        "preprocessing": json.dumps(classifier.preprocess.to_dict()),
        "patch_size": json.dumps(classifier.model.patch_size),
        "dynamic_size": json.dumps(dynamic_size),
        "calibration": json.dumps(None if classifier.calibration is None else classifier.calibration.to_dict()),
    }


def _clean(proto: Any, dynamic_size: bool) -> None:
    """Names for the open sizes; and without the exporter's notes, among them paths on this machine."""
    graph = proto.graph
    proto.producer_name, proto.producer_version = "convit", importlib.metadata.version("convit")
    del graph.value_info[:]
    del graph.metadata_props[:]
    for entry in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        entry.doc_string = ""
        del entry.metadata_props[:]
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    if dynamic_size:
        for i, name in ((2, "height"), (3, "width")):
            graph.input[0].type.tensor_type.shape.dim[i].dim_param = name


def copied_model(classifier: Classifier) -> ConViT:
    """A copy of the model, as the file is going to have it; refused if it was changed to what no classifier has."""
    check_input(classifier.model, classifier.preprocess)
    return copy.deepcopy(classifier.model).cpu().float().eval()


def checked_path(path: str | Path, suffix: str) -> Path:
    path = Path(path)
    if path.suffix.lower() != suffix:
        raise InputError(f"{path}: got a name that ends in {path.suffix!r}, expected {suffix!r}")
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected the name of a file")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path}: no folder {path.parent}, expected one that is there")
    return path


def _need(*libraries: str) -> None:
    missing = [name for name in libraries if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f'onnx: {", ".join(missing)} not installed, expected: pip install "convit[export]"')


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A name to write under, which becomes ``path`` at the end; after a fault nothing is left."""
    folder = path.with_name(f".{path.name}.tmp")  # a folder: the name of a .pt2 is written into it
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder / path.name
        (folder / path.name).replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' talk about themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
