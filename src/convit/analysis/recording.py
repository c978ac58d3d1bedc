"""One attention layer made to hand out its maps during a forward pass.

Ours get their ``attend`` (or ``forward``) replaced on the object, timm's hand out what passes through ``attn_drop``;
both are put back whatever happens.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from timm.models.convit import GPSA
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

from convit.analysis.attention_layers import AttentionLayer, replaced
from convit.errors import InputError
from convit.grid import Grid
from convit.layers import GatedPositionalSelfAttention, PositionalSelfAttention, SelfAttention
from convit.models.pruned_layers import PrunedFastGPSA, PrunedGPSA
from convit.ops import naive

# What is replaced on an object of ours while its maps are recorded.
_METHODS: dict[type[nn.Module], str] = {
    GatedPositionalSelfAttention: "attend",
    PositionalSelfAttention: "attend",
    SelfAttention: "forward",
}


def check_recordable(layer: AttentionLayer) -> None:
    """Whether a layer attends as it was written to: what replaces a method here would hide another's.

    Raises:
        InputError: its method was replaced before, or its gates are pruned: then it has no such maps.
    """
    if isinstance(layer.module, (PrunedGPSA, PrunedFastGPSA)):
        raise InputError(
            f"layers: got layer {layer.index} with pruned gates, expected a whole one: call convit.restore(model) first"
        )
    cls = next((cls for cls in _METHODS if isinstance(layer.module, cls)), None)
    if cls is None:
        return
    method = _METHODS[cls]
    if method in vars(layer.module) or getattr(type(layer.module), method) is not getattr(cls, method):
        raise InputError(
            f"layers: got layer {layer.index} whose {method} is not that of {cls.__name__}, expected that one"
        )


@contextmanager
def recording(
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
