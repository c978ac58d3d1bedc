"""What a model computed in one real forward pass: attention maps, gates, positional weights, hidden states.

The chosen layers attend in their naive form during that pass, so the maps are those that gave the logits; the others
stay as fast as they are. Ours get their ``attend`` (or ``forward``) replaced on the object, timm's hand out what passes
through ``attn_drop``; both are put back whatever happens.

Shapes: B batch, h heads, P prefix tokens, N = H W patches, T = P + N tokens, C width.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from timm.models.convit import GPSA, MHSA
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

from convit.analysis import metrics
from convit.errors import InputError
from convit.grid import Grid
from convit.layers import GatedPositionalSelfAttention, PositionalSelfAttention, SelfAttention
from convit.ops import naive


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class LayerCapture:
    """One layer of one forward pass. Maps are in the type they were computed in; rows are queries, columns keys."""

    index: int
    """The layer's number in the model, from 0."""
    kind: str
    """``"gpsa"`` gated positional, ``"psa"`` ungated positional, ``"sa"`` plain self-attention."""
    heads: tuple[int, ...]
    """The numbers of the heads that are here; h is their count."""
    grid: Grid
    """The patches' grid, ``(height, width)``."""
    num_prefix_tokens: int
    """P: how many tokens without a position, the class token first, take part in this layer."""
    mixed: Tensor
    """What multiplied the values, ``(B, h, T, T)``."""
    content: Tensor | None
    """``softmax(q k^T / sqrt(d))``, ``(B, h, T, T)``: of GPSA only; plain attention has it as ``mixed``."""
    positional: Tensor | None
    """``softmax(v_pos . r)`` among patches, ``(h, N, N)``: of GPSA only; PSA has one softmax over the sum."""
    gates: Tensor | None
    """The weight of positional attention, ``sigmoid(gating_param)``, ``(h,)``: of GPSA only."""
    pos_weight: Tensor | None
    """``v_pos``, ``(h, 3)``; none in plain attention."""
    hidden: Tensor
    """What the block (the module that holds the attention) returned, ``(B, T, C)``."""

    @property
    def centres(self) -> Tensor | None:
        """Where each head looks by position; see :func:`convit.analysis.centres`."""
        return None if self.pos_weight is None else metrics.centres(self.pos_weight)

    @property
    def spans(self) -> Tensor | None:
        """How widely each head looks by position; see :func:`convit.analysis.spans`."""
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
    """Runs the model once, in evaluation mode, and returns its output with the attention that gave it.

    For our models, timm's ConViT (sped up or not) and any model with timm's plain ``Attention`` (ViT, DeiT). A model
    inside DistributedDataParallel or torch.compile is unwrapped and runs uncompiled. Afterwards the model is what it
    was: mode, attributes, hooks, buffers.

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


def capture_batches(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    layers: Iterable[int] | None = None,
    heads: Sequence[int] | None = None,
) -> Iterator[Capture]:
    """:func:`capture` for each batch, one in memory at a time if the caller keeps none.

    Args:
        model: the model.
        batches: such as a DataLoader: images, or tuples that begin with images; moved to the model's device.
        layers, heads: as in :func:`capture`.
    """
    chosen = None if layers is None else tuple(layers)
    for batch in batches:
        yield capture(model, _images(model, batch), layers=chosen, heads=heads)


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
        metric: of one layer, ``(B, ...)``, a row an image.
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


def gates(model: nn.Module) -> dict[int, Tensor]:
    """``sigmoid(gating_param)``, ``(h,)``, of every GPSA layer by its number; no forward pass is needed."""
    return {layer.index: _gate(layer.module) for layer in attention_layers(model) if layer.kind == "gpsa"}


def position_weights(model: nn.Module) -> dict[int, Tensor]:
    """``v_pos``, ``(h, 3)``, of every layer that has one by its number: what ``centres`` and ``spans`` take."""
    return {
        layer.index: layer.module.pos_proj.weight.detach().clone()
        for layer in attention_layers(model)
        if layer.kind != "sa"
    }


# -- what a model is made of -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class AttentionLayer:
    """An attention module that this package knows, and the block that holds it."""

    index: int
    kind: str
    module: Any
    block: nn.Module


# In this order: a gated layer is a positional one too.
_KINDS: dict[type[nn.Module], str] = {
    GatedPositionalSelfAttention: "gpsa",
    PositionalSelfAttention: "psa",
    SelfAttention: "sa",
    GPSA: "gpsa",
    MHSA: "sa",
    Attention: "sa",
}
# What is replaced on an object of ours while its maps are recorded.
_METHODS: dict[type[nn.Module], str] = {
    GatedPositionalSelfAttention: "attend",
    PositionalSelfAttention: "attend",
    SelfAttention: "forward",
}


def attention_layers(model: nn.Module) -> tuple[AttentionLayer, ...]:
    """Every attention layer of a known kind, in the order in which the model holds them.

    Raises:
        InputError: none, not a module, or parameters that are sharded over processes.
    """
    network = unwrap(model)
    found: list[AttentionLayer] = []
    for name, module in network.named_modules():
        for cls, kind in _KINDS.items():
            if isinstance(module, cls):
                block = network.get_submodule(name.rpartition(".")[0])
                found.append(AttentionLayer(len(found), kind, module, block))
                break
    if not found:
        raise InputError(
            f"model: got {type(network).__name__} with no attention of a known kind in it, "
            "expected a ConViT of convit or timm, or a model with timm's plain Attention such as ViT or DeiT"
        )
    return tuple(found)


def unwrap(model: Any) -> nn.Module:
    """The model inside DistributedDataParallel, DataParallel and torch.compile."""
    if not isinstance(model, nn.Module):
        raise InputError(f"model: got {type(model).__name__}, expected an nn.Module")
    while True:
        if isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
            model = model.module
        elif hasattr(model, "_orig_mod"):
            model = model._orig_mod
        else:
            break
    sharded = {"FullyShardedDataParallel", "FSDPModule"}
    if any(cls.__name__ in sharded for module in model.modules() for cls in type(module).__mro__):
        raise InputError("model: got parameters sharded by FSDP, expected a whole model; gather its weights first")
    return model


def uncompiled() -> AbstractContextManager[Any]:
    """Compiled code runs as it was written: hooks and replaced attributes would compile it anew, or go unnoticed."""
    return torch.compiler.set_stance("force_eager")


@contextmanager
def replaced(where: dict[str, Any], name: str, value: object) -> Iterator[None]:
    """Another value in a dictionary, put back as it was, or gone if it was not there."""
    missing = object()
    before = where.get(name, missing)
    where[name] = value
    try:
        yield
    finally:
        if before is missing:
            where.pop(name, None)
        else:
            where[name] = before


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

    def finish(layer: AttentionLayer, parts: dict[str, Any], hidden: Tensor) -> None:
        seen[layer.index] += 1
        consume(_layer_capture(layer, parts, hidden, heads))

    with ExitStack() as stack:
        stack.enter_context(uncompiled())
        # The caller may be in inference mode, whose tensors no graph can hold.
        stack.enter_context(torch.inference_mode(torch.is_inference_mode_enabled() and not keep_graph))
        stack.enter_context(torch.set_grad_enabled(keep_graph))
        stack.enter_context(_evaluation(network))
        for layer in chosen:
            stack.enter_context(_recording(layer, network, images, finish))
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
        count = layer.module.num_heads
        if heads is not None and (unknown := sorted(set(heads) - set(range(count)))):
            raise InputError(
                f"heads: got {unknown}, expected some of 0 to {count - 1}, the heads of layer {layer.index}"
            )
        cls = next((cls for cls in _METHODS if isinstance(layer.module, cls)), None)
        if cls is None:
            continue
        method = _METHODS[cls]
        if method in vars(layer.module) or getattr(type(layer.module), method) is not getattr(cls, method):
            raise InputError(
                f"layers: got layer {layer.index} whose {method} is not that of {cls.__name__}, expected that one"
            )
    return chosen


@contextmanager
def _evaluation(network: nn.Module) -> Iterator[None]:
    """No dropout, no running statistics, no recomputation in the backward pass; each module's own mode afterwards."""
    with ExitStack() as stack:
        for module in network.modules():
            stack.enter_context(replaced(vars(module), "training", False))
            if vars(module).get("grad_checkpointing"):
                stack.enter_context(replaced(vars(module), "grad_checkpointing", False))
        yield


@contextmanager
def _recording(
    layer: AttentionLayer,
    network: nn.Module,
    images: Tensor,
    finish: Callable[[AttentionLayer, dict[str, Any], Tensor], None],
) -> Iterator[None]:
    """The layer in its naive form; ``finish`` gets its maps when its block is done."""
    parts: dict[str, Any] = {}

    def end_of_block(_module: nn.Module, _args: Any, output: Tensor) -> None:
        if parts:
            taken = dict(parts)
            parts.clear()  # nothing here keeps a map alive
            finish(layer, taken, output)

    if isinstance(layer.module, PositionalSelfAttention):
        naive_form = _ours_positional(layer.module, parts)
    elif isinstance(layer.module, SelfAttention):
        naive_form = _ours_plain(layer.module, parts)
    else:
        naive_form = _timms(layer.module, lambda: _grid_of(network, images, layer), parts)
    with naive_form, layer.block.register_forward_hook(end_of_block):
        yield


def _ours_positional(module: PositionalSelfAttention, parts: dict[str, Any]) -> AbstractContextManager[None]:
    def attend(q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int] | None, num_prefix_tokens: int) -> Tensor:
        full = Grid.of(q.shape[2] - num_prefix_tokens, grid)
        weight = module.position_weight()
        parts.update(grid=full, num_prefix_tokens=num_prefix_tokens)
        if isinstance(module, GatedPositionalSelfAttention):
            out, maps = naive.gated_attention(q, k, v, module.gating_param, weight, full, num_prefix_tokens)
            parts.update(maps._asdict())
        else:
            out, parts["mixed"] = naive.positional_attention(q, k, v, weight, full, num_prefix_tokens)
        return out

    return replaced(vars(module), "attend", attend)


def _ours_plain(module: SelfAttention, parts: dict[str, Any]) -> AbstractContextManager[None]:
    def forward(x: Tensor, grid: tuple[int, int] | None = None, num_prefix_tokens: int = 0) -> Tensor:
        q, k, v = module.qkv(x).unflatten(-1, (3, module.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        out, mixed = naive.self_attention(q, k, v)
        full = Grid.of(x.shape[1] - num_prefix_tokens, grid)
        parts.update(grid=full, num_prefix_tokens=num_prefix_tokens, mixed=mixed)
        return module.proj_drop(module.proj(out.transpose(1, 2).flatten(2)))

    return replaced(vars(module), "forward", forward)


@contextmanager
def _timms(module: Any, grid_of: Callable[[], Grid], parts: dict[str, Any]) -> Iterator[None]:
    """timm's own code runs, with the map in memory; ``attn_drop`` gets the very tensor that multiplies the values."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: Tensor) -> None:
            outputs[name] = output

        return hook

    def take(_module: nn.Module, _args: Any, mixed: Tensor) -> None:
        grid = grid_of()
        prefix = mixed.shape[-1] - grid.num_patches
        if mixed.ndim != 4 or prefix < 0:
            raise InputError(
                f"model: got a map of shape {tuple(mixed.shape)}, expected (B, h, T, T) of at least the "
                f"{grid.num_patches} patches of the picture: attention over all of it"
            )
        parts.update(grid=grid, num_prefix_tokens=prefix, mixed=mixed)
        if isinstance(module, GPSA):  # the two softmaxes of get_attention, on what its projections gave in this pass
            q, k = outputs.pop("qk").unflatten(-1, (2, module.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
            parts["content"] = ((q @ k.transpose(-2, -1)) * module.scale).softmax(dim=-1)
            parts["positional"] = outputs.pop("pos_proj")[0].permute(2, 0, 1).softmax(dim=-1)

    with ExitStack() as stack:
        if isinstance(module, GPSA):
            for name in ("qk", "pos_proj"):
                stack.enter_context(getattr(module, name).register_forward_hook(keep(name)))
            # timm keeps N x N positions for the last image size; a model that was sped up has none.
            stack.enter_context(replaced(module._buffers, "rel_indices", module.rel_indices))
        if isinstance(module, Attention):
            stack.enter_context(replaced(vars(module), "fused_attn", False))
        stack.enter_context(module.attn_drop.register_forward_hook(take))
        yield


def _grid_of(network: nn.Module, images: Tensor, layer: AttentionLayer) -> Grid:
    """The patches' grid of a timm model, which its attention does not know."""
    stem: Any = getattr(network, "patch_embed", None)
    if not hasattr(stem, "dynamic_feat_size"):
        raise InputError(
            f"model: got {type(network).__name__} without a patch_embed of timm, expected one: "
            f"layer {layer.index} does not know the grid of its patches"
        )
    return Grid(*stem.dynamic_feat_size(tuple(images.shape[-2:])))


def _layer_capture(
    layer: AttentionLayer, parts: dict[str, Any], hidden: Tensor, heads: Sequence[int] | None
) -> LayerCapture:
    full, prefix = parts["grid"], parts["num_prefix_tokens"]
    assert parts["mixed"].shape[-1] == full.num_patches + prefix, (full, prefix, parts["mixed"].shape)

    def chosen(tensor: Tensor | None, axis: int) -> Tensor | None:
        if tensor is None or heads is None:
            return tensor
        return tensor.index_select(axis, torch.tensor(heads, dtype=torch.long, device=tensor.device))

    mixed = chosen(parts["mixed"], 1)
    assert mixed is not None
    module = layer.module
    return LayerCapture(
        index=layer.index,
        kind=layer.kind,
        heads=tuple(range(module.num_heads) if heads is None else heads),
        grid=full,
        num_prefix_tokens=prefix,
        mixed=mixed,
        content=chosen(parts.get("content"), 1),
        positional=chosen(parts.get("positional"), 0),
        gates=chosen(_gate(module), 0) if layer.kind == "gpsa" else None,
        pos_weight=chosen(module.pos_proj.weight.detach().clone(), 0) if layer.kind != "sa" else None,
        hidden=hidden,
    )


def _gate(module: Any) -> Tensor:
    logits = module.gating_param.detach()
    return torch.sigmoid(logits.to(naive.compute_dtype(logits.dtype)))


def _images(model: nn.Module, batch: Any) -> Tensor:
    images = batch[0] if isinstance(batch, (tuple, list)) else batch
    if not isinstance(images, Tensor) or images.ndim != 4:
        got = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise InputError(
            f"batches: got {got}, expected images (B, channels, height, width), or tuples that begin with them"
        )
    return images.to(next(model.parameters()).device)
