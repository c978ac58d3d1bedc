"""One picture inspected: the predictions, also with attention switched off, and what every head attends to."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from convit.analysis.attention_layers import attention_layers, unwrap
from convit.analysis.capture import LayerCapture, capture, evaluating
from convit.analysis.masking import masked, without_position_embedding
from convit.analysis.page import notebook_html
from convit.analysis.relevance import relevance
from convit.classifier import Classifier
from convit.data import Preprocess, evaluation_transform
from convit.data.images import Picture, as_rgb
from convit.errors import InputError
from convit.prediction import Prediction

Off = Literal["nothing", "content", "position", "position embeddings"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskedPrediction:
    """The model's prediction with a part of it switched off (tables 5 and 6 of the paper)."""

    off: Off
    """What is off: all gates at 1 (no content) or 0 (no position), or the absolute position embeddings."""
    layers: int
    """Number of GPSA layers in which it is off, counted from the first; 0 for ``"nothing"`` and for the embeddings."""
    best: Prediction
    """The most probable class then."""
    before: Prediction
    """The class that the whole model finds most probable, and how probable it is now."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Inspection:
    """A picture, its predictions and its attention maps. A notebook displays it as :func:`convit.analysis.page`."""

    name: str
    """What the picture is called."""
    label: str | None = None
    """Its true class, if that is known."""
    picture: Image.Image
    """The picture as the model saw it: resized and cropped, RGB."""
    predictions: tuple[Prediction, ...]
    """The most probable classes, best first."""
    layers: tuple[LayerCapture, ...]
    """Maps, gates and hidden states of the chosen layers, of a batch of one, on the CPU."""
    patch_size: int
    """Pixels of the picture along a patch's side."""
    relevance: Tensor | None
    """The relevance of each patch for the predicted class, ``(H, W)``. None if only some layers or heads were chosen,
    if the model's head reads neither one token nor the mean over patches, or if it was made in inference mode."""
    masking: tuple[MaskedPrediction, ...]
    """The predictions with parts switched off, ``"nothing"`` first; empty without ``masking``."""

    def _repr_html_(self) -> str:
        return notebook_html(self)


def inspect(
    model: Classifier | nn.Module,
    image: Picture,
    *,
    name: str | None = None,
    label: str | None = None,
    top_k: int = 5,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    masking: bool = True,
) -> Inspection:
    """Runs one picture through the model and keeps the attention maps of every head.

    The maps are those of the forward pass that gave the prediction (:func:`convit.analysis.capture`); each row of the
    masking table is a separate pass.

    Args:
        model: a classifier; or a model of convit or timm: then its ``pretrained_cfg`` gives the preprocessing, and the
            class names if it has any (``label_names``), else classes are numbers.
        image: a picture, its path, or its pixels.
        name: what to call it [the file's name].
        label: its true class, to be shown with the prediction.
        top_k: how many classes to keep.
        layers: numbers of the layers to keep maps of, from 0 [all].
        heads: numbers of the heads, from 0 [all].
        masking: also run it with content, position and position embeddings off.

    Raises:
        InputError: a file that is no image; no such layer or head; ``top_k`` below 1; a model of another kind, without
            a head, or for pictures without colours.

    Example:
        >>> from convit import ConViT
        >>> model = ConViT(img_size=16, patch_size=4, num_classes=5, embed_dim=18, depth=3, num_heads=9,
        ...                local_up_to_layer=2)
        >>> seen = inspect(model, Image.new("RGB", (20, 30)), top_k=2)
        >>> len(seen.predictions), [tuple(layer.mixed.shape) for layer in seen.layers]
        (2, [(1, 9, 16, 16), (1, 9, 16, 16), (1, 9, 17, 17)])
        >>> [(row.off, row.layers) for row in seen.masking[:3]]
        [('nothing', 0), ('content', 1), ('content', 2)]
    """
    if top_k < 1:
        raise InputError(f"top_k: got {top_k}, expected at least 1")
    for what, numbers in (("layers", layers), ("heads", heads)):
        if numbers is not None and not (isinstance(numbers, Sequence) and numbers):
            raise InputError(f"{what}: got {numbers!r}, expected a list of numbers, such as [0, 1], or None for all")
    network, preprocess, class_names = _parts_of(model)
    channels = next((module.in_channels for module in network.modules() if isinstance(module, nn.Conv2d)), 3)
    if channels != 3:
        raise InputError(f"model: got one for pictures of {channels} channels, expected 3: red, green, blue")
    picture = as_rgb(image, preprocess.full_scale)
    parameter = next(network.parameters())
    pixels = evaluation_transform(preprocess)(picture)[None].to(parameter.device, parameter.dtype)
    whole = layers is None and heads is None
    graph = whole and not parameter.is_inference()
    shot = capture(network, pixels, layers=layers, heads=heads, keep_graph=graph)
    if shot.logits.ndim != 2:
        raise InputError(f"model: got an output of shape {tuple(shot.logits.shape)}, expected (batch, classes)")
    found = relevance(shot)[0].cpu() if graph and shot.pooling in ("token", "avg") else None
    temperature = model.temperature if isinstance(model, Classifier) else 1.0
    probabilities = (shot.logits.detach()[0].float() / temperature).softmax(-1).cpu()
    best = probabilities.topk(min(top_k, len(class_names)))
    return Inspection(
        name=name or (Path(image).name if isinstance(image, str | Path) else "picture"),
        label=label,
        picture=_as_seen(pixels[0], preprocess),
        predictions=tuple(
            Prediction(class_names[i], p) for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ),
        layers=tuple(_to_keep(layer) for layer in shot.layers),
        patch_size=preprocess.image_size[0] // shot.layers[0].grid.height,
        relevance=found,
        masking=tuple(_masking(network, pixels, class_names, temperature)) if masking else (),
    )


def _parts_of(model: Classifier | nn.Module) -> tuple[nn.Module, Preprocess, tuple[str, ...]]:
    """The network, how a picture becomes its input, and its class names."""
    if isinstance(model, Classifier):
        return model.model, model.preprocess, model.class_names
    network = unwrap(model)
    attention_layers(network)  # says what is expected, if it has none
    data = resolve_model_data_config(network)
    size = getattr(getattr(network, "patch_embed", None), "img_size", None) or data["input_size"][1:]
    preprocess = Preprocess(
        image_size=(int(size[0]), int(size[1])),
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        interpolation=data["interpolation"],
        crop_pct=data["crop_pct"],
    )
    names = (getattr(network, "pretrained_cfg", None) or {}).get("label_names")
    count = int(getattr(network, "num_classes", 0))
    if count < 1:
        raise InputError(f"model: got {type(network).__name__} without a head, expected one that tells classes apart")
    if names and len(names) != count:
        raise InputError(f"model: got {len(names)} label_names, expected {count}, one for each output")
    return network, preprocess, tuple(names or (f"class {i}" for i in range(count)))


def _as_seen(pixels: Tensor, preprocess: Preprocess) -> Image.Image:
    """What went into the model, ``(3, height, width)``, as a picture again."""
    mean, std = (pixels.new_tensor(values)[:, None, None] for values in (preprocess.mean, preprocess.std))
    levels = (pixels * std + mean).float().clamp(0, 1).mul(255).round().byte()
    return Image.fromarray(levels.permute(1, 2, 0).cpu().numpy())


def _to_keep(layer: LayerCapture) -> LayerCapture:
    """The layer on the CPU, without the graph."""
    tensors: dict[str, Any] = {name: value for name, value in vars(layer).items() if isinstance(value, Tensor)}
    return replace(layer, **{name: tensor.detach().cpu() for name, tensor in tensors.items()})


def _masking(
    network: nn.Module, pixels: Tensor, class_names: Sequence[str], temperature: float
) -> Iterator[MaskedPrediction]:
    """The answers with nothing off, then content, then position in the first 1, 2, ... GPSA layers, then embeddings."""
    gated = [layer.index for layer in attention_layers(network) if layer.kind == "gpsa"]
    cases: list[tuple[Off, int, AbstractContextManager[None]]] = [("nothing", 0, nullcontext())]
    for n in range(1, len(gated) + 1):
        cases.append(("content", n, masked(network, content=gated[:n])))
    for n in range(1, len(gated) + 1):
        cases.append(("position", n, masked(network, position=gated[:n])))
    if any("pos_embed" in module._parameters for module in network.modules()):
        cases.append(("position embeddings", 0, without_position_embedding(network)))
    before: int | None = None
    for off, layers, switched_off in cases:
        with switched_off, evaluating(network), torch.no_grad():
            probabilities = (network(pixels)[0].float() / temperature).softmax(-1).tolist()
        best = max(range(len(probabilities)), key=probabilities.__getitem__)
        before = best if before is None else before
        yield MaskedPrediction(
            off=off,
            layers=layers,
            best=Prediction(class_names[best], probabilities[best]),
            before=Prediction(class_names[before], probabilities[before]),
        )
