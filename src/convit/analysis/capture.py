"""What a model computed in one real forward pass: attention maps, gates, positional weights, hidden states.

The chosen layers use the naive form during that pass, so the maps are those that gave the logits; the other layers
keep their fast form.

Shapes: B batch, h heads, P prefix tokens, N = H W patches, T = P + N tokens, C width.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from convit.analysis import metrics
from convit.analysis.attention_layers import attention_layers, uncompiled, unwrap
from convit.analysis.layer import AttentionLayer, Pass, replaced
from convit.errors import InputError


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerCapture(Pass):
    """One layer of one forward pass. Maps are in the type they were computed in; rows are queries, columns keys."""

    index: int
    """The layer's number in the model, from 0."""
    kind: str
    """``"gpsa"`` gated positional, ``"psa"`` ungated positional, ``"sa"`` plain self-attention."""
    heads: tuple[int, ...]
    """The numbers of the heads that are here; h is their count."""
    gates: Tensor | None
    """The weight of positional attention, ``sigmoid(gating_param)``, ``(h,)``: of GPSA only."""
    pos_weight: Tensor | None
    """``v_pos``, ``(h, 3)``; none in plain attention."""

    @property
    def centres(self) -> Tensor | None:
        """The attention centre of each head; see :func:`convit.analysis.centres`."""
        return None if self.pos_weight is None else metrics.centres(self.pos_weight)

    @property
    def spans(self) -> Tensor | None:
        """The width of each head's positional attention; see :func:`convit.analysis.spans`."""
        return None if self.pos_weight is None else metrics.spans(self.pos_weight)

    @property
    def patch_attention(self) -> Tensor:
        """Patches to patches, ``(B, h, N, N)``. Rows sum to less than 1 where prefix tokens take part."""
        return self.mixed[..., self.num_prefix_tokens :, self.num_prefix_tokens :]

    @property
    def prefix_attention(self) -> Tensor:
        """Prefix tokens to patches, as pictures: ``(B, h, P, H, W)``."""
        return self.mixed[..., : self.num_prefix_tokens, self.num_prefix_tokens :].unflatten(-1, self.grid)


@dataclass(frozen=True, eq=False, slots=True)
class Capture:
    """One forward pass, in evaluation mode."""

    logits: Tensor
    """What the model returned, ``(B, classes)``."""
    layers: tuple[LayerCapture, ...]
    """The chosen layers, in the model's order."""
    pooling: str
    """What the head reads: the model's ``global_pool``, such as ``"token"`` or ``"avg"``."""


def capture(
    model: nn.Module,
    images: Tensor,
    *,
    layers: Iterable[int] | None = None,
    heads: Sequence[int] | None = None,
    keep_graph: bool = False,
) -> Capture:
    """Runs the model once, in evaluation mode, and returns its output with the attention maps of that pass.

    For our models, timm's ConViT (sped up or not) and any model with timm's plain ``Attention`` (ViT, DeiT). A model
    inside DistributedDataParallel or torch.compile is unwrapped and runs uncompiled. Afterwards the model is as before:
    mode, attributes, hooks, buffers.

    Args:
        model: the model.
        images: ``(B, channels, height, width)``, of any size that the model takes.
        layers: numbers of the attention layers to capture, from 0; all if left out. Each takes memory for two maps
            ``(B, h, T, T)``; the others none.
        heads: numbers of the heads to keep, in this order; all if left out.
        keep_graph: keep the autograd graph, to differentiate by the maps (:func:`convit.analysis.relevance`).

    Raises:
        InputError: no attention of a known kind, a layer or head that is not there, a model whose parameters are
            sharded, ``heads`` together with ``keep_graph`` (a part of a map is not in the graph).

    Example:
        >>> from convit import ConViT
        >>> model = ConViT(img_size=16, patch_size=4, num_classes=5, embed_dim=18, depth=2, num_heads=9,
        ...                local_up_to_layer=1)
        >>> shot = capture(model, torch.randn(2, 3, 16, 24), heads=[4])
        >>> [(layer.kind, layer.grid, tuple(layer.mixed.shape)) for layer in shot.layers]
        [('gpsa', Grid(height=4, width=6), (2, 1, 24, 24)), ('sa', Grid(height=4, width=6), (2, 1, 25, 25))]
        >>> shot.layers[0].gates
        tensor([0.7311])
    """
    if keep_graph and heads is not None:
        raise InputError("heads: got some with keep_graph=True, expected all: a part of a map is not in the graph")
    found: list[LayerCapture] = []
    logits = _run(model, images, layers, heads, keep_graph, found.append)
    return Capture(logits, tuple(found), str(getattr(unwrap(model), "global_pool", "")))


def average(
    metric: Callable[[LayerCapture], Tensor],
    model: nn.Module,
    batches: Iterable[Any],
    *,
    layers: Iterable[int] | None = None,
    heads: Sequence[int] | None = None,
) -> dict[int, Tensor]:
    """The mean of a metric over many images, for each layer. One layer's maps of one batch are in memory at a time.

    Args:
        metric: a function of one layer's capture, which gives ``(B, ...)``, one row per image.
        model: the model.
        batches: such as a DataLoader: images, or tuples that begin with images; moved to the model's device.
        layers, heads: as in :func:`capture`.

    Returns:
        ``(...)`` for each layer's number, in fp64 on the CPU.

    Example:
        >>> from convit import ConViT
        >>> from convit.analysis import non_locality
        >>> model = ConViT(img_size=16, patch_size=4, num_classes=5, embed_dim=18, depth=2, num_heads=9,
        ...                local_up_to_layer=1)
        >>> batches = [torch.randn(2, 3, 16, 16), torch.randn(1, 3, 16, 16)]
        >>> far = average(lambda layer: non_locality(layer.mixed, layer.grid, layer.num_prefix_tokens), model, batches)
        >>> far[0].shape  # of every head
        torch.Size([9])
    """
    sums: dict[int, Tensor] = {}
    chosen = None if layers is None else tuple(layers)
    count = 0

    def add(layer: LayerCapture) -> None:
        value = metric(layer)
        if value.ndim == 0 or value.shape[0] != layer.mixed.shape[0]:
            got, batch = tuple(value.shape), layer.mixed.shape[0]
            raise InputError(f"metric: got a result of shape {got}, expected ({batch}, ...), a row an image")
        total = value.detach().cpu().double().sum(0)
        sums[layer.index] = total if layer.index not in sums else sums[layer.index] + total

    for batch in batches:
        images = _images(model, batch)
        _run(model, images, chosen, heads, False, add)
        count += images.shape[0]
    if count == 0:
        raise InputError("batches: got none, expected at least one image")
    return {index: total / count for index, total in sums.items()}


# -- the pass itself ---------------------------------------------------------------------------------------------------


def _run(
    model: nn.Module,
    images: Tensor,
    layers: Iterable[int] | None,
    heads: Sequence[int] | None,
    keep_graph: bool,
    consume: Callable[[LayerCapture], None],
) -> Tensor:
    """One pass; ``consume`` gets each chosen layer as soon as its block is done. Returns the logits."""
    network = unwrap(model)
    chosen = _choose(attention_layers(network), layers, heads)
    seen: Counter[int] = Counter()

    def finish(layer: AttentionLayer, done: Pass) -> None:
        seen[layer.index] += 1
        consume(_layer_capture(layer, done, heads))

    with ExitStack() as stack:
        stack.enter_context(uncompiled())
        # The caller may be in inference mode, whose tensors no graph can hold.
        stack.enter_context(torch.inference_mode(torch.is_inference_mode_enabled() and not keep_graph))
        stack.enter_context(torch.set_grad_enabled(keep_graph))
        stack.enter_context(evaluating(network))
        for layer in chosen:
            stack.enter_context(layer.recorded(network, images, partial(finish, layer)))
        if keep_graph and not images.requires_grad:
            images = images.clone().requires_grad_()  # a frozen model has a graph too
        logits = network(images)
    wrong = {layer.index: seen[layer.index] for layer in chosen if seen[layer.index] != 1}
    if wrong:
        raise InputError(
            f"model: got layers that ran not once but {wrong} times, expected each to run as a module, once"
        )
    return logits


def _choose(
    every: tuple[AttentionLayer, ...], layers: Iterable[int] | None, heads: Sequence[int] | None
) -> list[AttentionLayer]:
    wanted = set(range(len(every)) if layers is None else layers)
    if unknown := sorted(wanted - set(range(len(every)))):
        raise InputError(f"layers: got {unknown}, expected some of 0 to {len(every) - 1}")
    chosen = [layer for layer in every if layer.index in wanted]
    for layer in chosen:
        count = layer.num_heads
        if heads is not None and (unknown := sorted(set(heads) - set(range(count)))):
            raise InputError(
                f"heads: got {unknown}, expected some of 0 to {count - 1}, the heads of layer {layer.index}"
            )
    return chosen


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """No dropout, no running statistics, no recomputation in the backward pass; each module's own mode afterwards."""
    with ExitStack() as stack:
        for module in network.modules():
            stack.enter_context(replaced(vars(module), "training", False))
            if vars(module).get("grad_checkpointing"):
                stack.enter_context(replaced(vars(module), "grad_checkpointing", False))
        yield


def _layer_capture(layer: AttentionLayer, done: Pass, heads: Sequence[int] | None) -> LayerCapture:
    full, prefix = done.grid, done.num_prefix_tokens
    assert done.mixed.shape[-1] == full.num_patches + prefix, (full, prefix, done.mixed.shape)

    def chosen(tensor: Tensor | None, axis: int) -> Tensor | None:
        if tensor is None or heads is None:
            return tensor
        return tensor.index_select(axis, torch.tensor(heads, dtype=torch.long, device=tensor.device))

    mixed = chosen(done.mixed, 1)
    assert mixed is not None
    return LayerCapture(
        index=layer.index,
        kind=layer.kind,
        heads=tuple(range(layer.num_heads) if heads is None else heads),
        grid=full,
        num_prefix_tokens=prefix,
        mixed=mixed,
        content=chosen(done.content, 1),
        positional=chosen(done.positional, 0),
        gates=chosen(layer.gates, 0),
        pos_weight=chosen(layer.position_weight, 0),
        hidden=done.hidden,
    )


def _images(model: nn.Module, batch: Any) -> Tensor:
    images = batch[0] if isinstance(batch, (tuple, list)) else batch
    if not isinstance(images, Tensor) or images.ndim != 4:
        got = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise InputError(
            f"batches: got {got}, expected images (B, channels, height, width), or tuples that begin with them"
        )
    return images.to(next(model.parameters()).device)
