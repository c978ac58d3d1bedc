"""A classifier as one file that runs without this package: ONNX, or PyTorch's own exported program.

Shapes: B batch, P prefix tokens, N = rows * columns patches, C width.
"""

import copy
import importlib.metadata
import importlib.util
import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import PatchEmbed
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from convit import ops
from convit.choices import OPSET
from convit.classifier import Classifier
from convit.errors import InputError, one_line
from convit.layers import GatedPositionalSelfAttention, PositionalSelfAttention
from convit.models import ConViT
from convit.models.convit import position_embedding
from convit.models.pruned_layers import PrunedGPSA
from convit.ops.factorized import axis_attention

TOLERANCE = 1e-4
"""The largest difference from PyTorch in fp32, as a part of the largest logit, that a file may have."""
BATCHES = (1, 2, 7)
"""The batch sizes that each file is checked at."""
OLDEST_OPSET = 18
INPUT, OUTPUT = "images", "logits"
NO_TELEMETRY = ("ORT_DISABLE_TELEMETRY", "1")
"""Without it onnxruntime 1.31 gives the machine a number, in ~/.cache/Microsoft; a user's own value stays."""
FORMAT = "1"
"""Of the metadata; ``convit_onnx`` reads it."""

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """A file that was written, and how far its answers are from PyTorch's."""

    path: Path
    bytes: int
    image_sizes: tuple[tuple[int, int], ...]
    """The (height, width) that it was checked at, with batches of :data:`BATCHES` random images each."""
    difference: float
    """Largest difference of a logit before the weights were rounded, as a part of the largest logit."""
    int8_difference: float | None = None
    """The same of the file with 8-bit weights."""


def export_onnx(
    classifier: Classifier, path: str | Path, *, dynamic_size: bool = False, int8: bool = False, opset: int = OPSET
) -> Exported:
    """Writes one ONNX file: weights, preprocessing and class names in it, for any batch size.

    Its input ``images`` is ``(batch, 3, height, width)``, normalised as the metadata entry ``preprocessing`` says; its
    output ``logits`` is ``(batch, classes)``, whose softmax are the probabilities of ``class_names``. The file is run
    in onnxruntime and compared with PyTorch before it takes its name.

    Args:
        classifier: what to export.
        path: where to, ending in ``.onnx``; an older file is replaced.
        dynamic_size: any height and width that the patch divides, two patches at least, in place of the
            preprocessing's. Position embeddings are resized in the graph, by the same bicubic filter.
        int8: the weights of all linear layers as 8-bit integers, one scale for each output; onnxruntime rounds their
            input too, as it comes. A quarter of the size.
        opset: version of the ONNX operators, 18 or later.

    Raises:
        InputError: the extra ``convit[export]`` is not installed; the file would not be the same function as the
            model (nothing is left then); a wrong ``opset`` or ending.
    """
    path = _checked_path(path, ".onnx")
    if opset < OLDEST_OPSET:
        raise InputError(f"opset: got {opset}, expected {OLDEST_OPSET} or later, such as {OPSET}")
    _need("onnx", "onnxscript", "onnxruntime")
    import onnx

    model, sizes = _checked_model(classifier, dynamic_size), _sizes(classifier, dynamic_size)
    program = trace(model, _input_size(classifier), dynamic_size=dynamic_size)
    with _quiet():
        try:
            made = torch.onnx.export(
                program,
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=opset,
                verbose=False,
            )
        except Exception as error:  # of many kinds, all of them the exporter's
            raise InputError(f"opset: PyTorch cannot export this model with {opset} ({one_line(error)})") from error
    assert made is not None
    proto = made.model_proto
    _clean(proto, dynamic_size)
    facts = _metadata(classifier, dynamic_size)
    with _replacing(path) as temporary:
        onnx.helper.set_model_props(proto, facts | {"weights": "float32"})
        # Not by the exporter's own save(), which would put the weights of a large model into a second file.
        temporary.write_bytes(proto.SerializeToString())
        try:
            runner = onnx_runner(temporary)
        except Exception as error:  # onnxruntime has exceptions of its own, without a common class
            raise InputError(f"opset: got {opset}, which onnxruntime cannot run ({one_line(error)})") from error
        difference = _verified(model, runner, sizes, path)
        rounded = None
        if int8:
            _quantise(proto, temporary)
            smaller = onnx.load(temporary)
            onnx.helper.set_model_props(smaller, facts | {"weights": "int8"})
            temporary.write_bytes(smaller.SerializeToString())
            rounded = _verified(model, onnx_runner(temporary), sizes, path, tolerance=None)
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
    path = _checked_path(path, ".pt2")
    model, sizes = _checked_model(classifier, dynamic_size), _sizes(classifier, dynamic_size)
    program = trace(model, _input_size(classifier), dynamic_size=dynamic_size)
    for node in program.graph.nodes:  # names of files and folders on this machine
        node.meta.pop("stack_trace", None)
    facts = json.dumps(_metadata(classifier, dynamic_size) | {"weights": "float32"}, ensure_ascii=False, indent=1)
    with _replacing(path) as temporary:
        with _quiet():
            torch.export.save(program, temporary, extra_files={"metadata.json": facts})
            extra: dict[str, Any] = {"metadata.json": ""}
            loaded = torch.export.load(temporary, extra_files=extra).module()
        assert json.loads(extra["metadata.json"]) == json.loads(facts)
        difference = _verified(model, loaded, sizes, path)
        size = temporary.stat().st_size
    return Exported(path=path, bytes=size, image_sizes=sizes, difference=difference)


# -- the model as a graph ----------------------------------------------------------------------------------------------


def trace(model: ConViT, image_size: tuple[int, int], *, dynamic_size: bool = False) -> ExportedProgram:
    """The graph from images ``(B, 3, H, W)``, named ``images``, to logits, for any B of at least 1.

    Args:
        model: in evaluation mode, in fp32, on the CPU.
        image_size: H and W.
        dynamic_size: any H and W that the patch divides, from two patches on, instead.
    """
    graph = _AnySize(model) if dynamic_size else _OneSize(model, image_size)
    patch = model.patch_size
    shape: dict[int, Any] = {0: Dim("batch", min=1)}
    height, width = image_size
    if dynamic_size:
        shape |= {2: patch * Dim("rows", min=2), 3: patch * Dim("columns", min=2)}
        # Neither square nor the model's own size: an accident of the example would become a rule of the graph.
        height, width = height + patch, width + 2 * patch
    with torch.no_grad(), _quiet():
        return torch.export.export(
            graph.eval(), (torch.zeros(2, model.in_chans, height, width),), dynamic_shapes={"images": shape}
        )


class _OneSize(nn.Module):
    """The model at one image size, its position embedding resized beforehand."""

    def __init__(self, model: ConViT, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        self.grid = (image_size[0] // model.patch_size, image_size[1] // model.patch_size)
        if model.pos_embed is not None:
            with torch.no_grad():
                resized = position_embedding(model.pos_embed, self.grid, model.grid_size)
            self.model.pos_embed = nn.Parameter(resized.clone())

    def forward(self, images: Tensor) -> Tensor:
        x = self.model.patch_embed(images).flatten(2).transpose(1, 2)
        if self.model.pos_embed is not None:
            x = x + self.model.pos_embed
        return _through_blocks(self.model, x, self.grid)


class _AnySize(nn.Module):
    """The model with height and width left open: no step of it may ask a size a question."""

    def __init__(self, model: ConViT) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        for block in self.model.blocks:
            if isinstance(block.attn, GatedPositionalSelfAttention):
                block.attn = _OpenGPSA(block.attn)
            elif isinstance(block.attn, PositionalSelfAttention):
                block.attn = _OpenPSA(block.attn)

    def forward(self, images: Tensor) -> Tensor:
        model = self.model
        grid = (images.shape[2] // model.patch_size, images.shape[3] // model.patch_size)
        if isinstance(model.patch_embed, PatchEmbed):
            x = _embed_patches(images, model.patch_embed, grid)
        else:
            x = model.patch_embed(images).flatten(2).transpose(1, 2)
        if model.pos_embed is not None:
            x = x + resized_embedding(model.pos_embed, grid, model.grid_size)
        return _through_blocks(model, x, grid)


def _through_blocks(model: ConViT, x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Embedded patches ``(B, N, C)`` to logits."""
    prefix = 0
    for layer, block in enumerate(model.blocks):
        x, prefix = model.join(layer, x, prefix)
        x = block(x, grid, prefix)
    return model.forward_head(model.norm(x))


def _embed_patches(images: Tensor, stem: PatchEmbed, grid: tuple[int, int]) -> Tensor:
    """The patch embedding as a matrix product: ONNX's convolution would drop the rest of a size that is no multiple of
    the patch without a word, this reshape fails."""
    weight = stem.proj.weight  # (C, in_chans, p, p)
    p = weight.shape[-1]
    patches = images.reshape(images.shape[0], images.shape[1], grid[0], p, grid[1], p)
    x = F.linear(patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2), weight.flatten(1), stem.proj.bias)
    return stem.norm(x)


class _OpenGPSA(nn.Module):
    """GPSA without the short cut for square grids, which a graph would take for a rule."""

    def __init__(self, layer: GatedPositionalSelfAttention) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, grid: tuple[int, int], prefix: int) -> Tensor:
        q, k, v = self.layer.project(x)
        content = F.scaled_dot_product_attention(q, k, v)
        weight = self.layer.pos_proj.weight.t()
        along_x = axis_attention(weight[0], weight[2], grid[1])
        along_y = axis_attention(weight[1], weight[2], grid[0])
        patches = v[:, :, prefix:]
        positional = torch.matmul(along_x[:, None], patches.unflatten(2, grid))
        positional = torch.matmul(along_y, positional.flatten(3)).reshape(patches.shape)
        gate = torch.sigmoid(self.layer.gating_param)[:, None, None]
        out = torch.cat((content[:, :, :prefix], torch.lerp(content[:, :, prefix:], positional, gate)), dim=2)
        return self.layer.proj(out.transpose(1, 2).flatten(2))


class _OpenPSA(nn.Module):
    """PSA by its equation; the fast form counts the patches in Python."""

    def __init__(self, layer: PositionalSelfAttention) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, grid: tuple[int, int], prefix: int) -> Tensor:
        q, k, v = self.layer.project(x)
        out = ops.positional_attention(q, k, v, self.layer.pos_proj.weight, grid, prefix, backend="naive")
        return self.layer.proj(out.transpose(1, 2).flatten(2))


def resized_embedding(embedding: Tensor, grid: tuple[int, int], trained_grid: tuple[int, int]) -> Tensor:
    """What :func:`convit.models.convit.position_embedding` gives, as two matrix products that ONNX can state.

    The bicubic filter is linear and the same in every row and every column: ``out = R_rows E R_columns^T``.

    Args:
        embedding: ``(1, N', C)``.
        grid: rows and columns to resize to.
        trained_grid: rows and columns that it has.

    Returns:
        ``(1, N, C)``.
    """
    rows, columns = (resize_matrix(old, new) for old, new in zip(trained_grid, grid, strict=True))
    x = torch.matmul(rows, embedding.reshape(trained_grid[0], -1))  # (rows, columns' C)
    x = x.reshape(grid[0], trained_grid[1], embedding.shape[-1])
    return torch.matmul(columns, x).flatten(0, 1)[None]


def resize_matrix(old: int, new: int) -> Tensor:
    """How PyTorch's antialiased bicubic filter makes ``new`` samples of ``old``: ``(new, old)``, rows sum to one.

    With ``s = old / new``, ``R_ij = k((j + 1/2 - s (i + 1/2)) / max(s, 1))``, normalised; ``k`` is Keys' cubic
    kernel, a = -1/2.

    >>> resize_matrix(3, 3)
    tensor([[1., 0., 0.],
            [0., 1., 0.],
            [0., 0., 1.]])
    """
    scale = old * torch.ones(()) / new
    centre = (torch.arange(new, dtype=torch.float32) + 0.5) * scale
    t = ((torch.arange(old, dtype=torch.float32) + 0.5 - centre[:, None]) / scale.clamp(min=1.0)).abs()
    near = (1.5 * t - 2.5) * t * t + 1
    far = ((-0.5 * t + 2.5) * t - 4) * t + 2
    kernel = torch.where(t < 1, near, torch.where(t < 2, far, torch.zeros(())))
    return kernel / kernel.sum(dim=1, keepdim=True)


# -- the file ----------------------------------------------------------------------------------------------------------


def onnx_runner(path: Path, *, threads: int = 0) -> Run:
    """The ONNX file as a function from images to logits, in onnxruntime on the CPU; 0 threads: one for each core."""
    _need("onnxruntime")
    os.environ.setdefault(*NO_TELEMETRY)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    options.intra_op_num_threads = threads
    # Between two calls its threads wait without turning in circles, which would slow down whatever runs then.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])


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


def _verified(
    model: ConViT, run: Run, sizes: Sequence[tuple[int, int]], path: Path, tolerance: float | None = TOLERANCE
) -> float:
    """The largest difference of a logit between ``run`` and the model, as a part of the largest logit."""
    generator = torch.Generator().manual_seed(0)
    worst = scale = 0.0
    for height, width in sizes:
        for batch in BATCHES:
            images = torch.randn(batch, model.in_chans, height, width, generator=generator)
            with torch.no_grad():
                expected, found = model(images), run(images)
            assert found.shape == expected.shape
            difference = (found - expected).abs().max().item()
            worst = difference if difference != difference else max(worst, difference)  # a NaN stays one
            scale = max(scale, expected.abs().max().item())
            if worst != worst:
                break
    relative = worst / scale if scale else worst
    if not relative <= (float("inf") if tolerance is None else tolerance):
        raise InputError(
            f"{path}: not written: its largest difference from PyTorch would be {relative:.1e} of the largest logit, "
            f"expected at most {tolerance or float('inf'):.0e}"
        )
    return relative


def _metadata(classifier: Classifier, dynamic_size: bool) -> dict[str, str]:
    """What a user of the file has to know; every value but the names of model and version is JSON."""
    return {
        "convit_format": FORMAT,
        "convit_version": importlib.metadata.version("convit"),
        "model_name": classifier.model_name,
        "model_args": json.dumps(classifier.model_args),
        "class_names": json.dumps(classifier.class_names, ensure_ascii=False),
        "preprocessing": json.dumps(classifier.preprocess.to_dict()),
        "patch_size": json.dumps(classifier.model.patch_size),
        "dynamic_size": json.dumps(dynamic_size),
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


def _checked_model(classifier: Classifier, dynamic_size: bool) -> ConViT:
    """A copy of the model, as the file is going to have it."""
    model = classifier.model
    if dynamic_size and any(isinstance(module, PrunedGPSA) for module in model.modules()):
        raise InputError(
            "dynamic_size: got it with pruned gates, expected one image size, or convit.restore(model) first"
        )
    if model.global_pool == "":
        raise InputError("model: got global_pool '', every token for itself; expected 'token' or 'avg' for an export")
    if model.in_chans != 3:
        raise InputError(f"model: got {model.in_chans} input channels, expected 3: red, green, blue")
    return copy.deepcopy(model).cpu().float().eval()


def _input_size(classifier: Classifier) -> tuple[int, int]:
    return classifier.preprocess.image_size


def _sizes(classifier: Classifier, dynamic_size: bool) -> tuple[tuple[int, int], ...]:
    """The image sizes to compare at: the classifier's own, then one to the side of it and one smaller."""
    height, width = _input_size(classifier)
    if not dynamic_size:
        return ((height, width),)
    p = classifier.model.patch_size
    own = (max(height, 2 * p), max(width, 2 * p))
    smaller = (max(2 * p, height // p // 2 * p), max(3 * p, width // p // 2 * p))
    return tuple(dict.fromkeys((own, (own[0] + p, own[1] + 3 * p), smaller)))


def _checked_path(path: str | Path, suffix: str) -> Path:
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
