"""Makes a timm ConViT that is already in memory fast, in place, and undoes it.

Only the class of each attention module changes, to a subclass of its own that computes the same value another way. The
object stays the one it was, so everything that is tied to it stays too: parameters and their names, buffers, hooks,
mode, device, type, the optimiser, whatever wraps the model. Nothing is copied, kept aside or put back, and compiled
code notices by itself that the class is another one.

Shapes: B batch, N tokens, h heads, C width, d = C / h head width.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import timm
import torch
from timm.models.convit import GPSA, MHSA
from torch import Tensor, nn

from convit import ops
from convit.errors import InputError
from convit.layers import AttentionBase
from convit.layers.attention import merge_heads, split_heads
from convit.layers.linear import is_untouched
from convit.ops import factorized


@dataclass(frozen=True)
class Swapped:
    """What :func:`speed_up` or :func:`restore` did; modules go by their names in ``model.named_modules()``."""

    changed: tuple[str, ...]
    """The attention modules that run other code from now on."""
    left: Mapping[str, str]
    """The ones that should have changed and could not, each with the reason."""

    def __str__(self) -> str:
        lines = [f"attention modules changed: {len(self.changed)}, left as they were: {len(self.left)}"]
        return "\n".join(lines + [f"  {name or 'the model itself'}: {reason}" for name, reason in self.left.items()])


def speed_up(model: nn.Module) -> Swapped:
    """Makes the attention of a timm ConViT fast, in place: same weights, same outputs up to rounding.

    Positional attention becomes two small matrix products (:func:`convit.ops.gated_attention`) and content attention
    PyTorch's fused one; no ``N x N`` tensor is left. Every parameter stays the object it was, under the same name, so
    optimisers, hooks, state dicts and wrappers go on as before. A second call finds nothing more to do.

    Where the map itself is wanted timm's own code goes on to run, at its own speed: attention dropout in training, a
    hook on ``attn_drop`` or ``pos_proj``, ``get_attention_map``. A model that is pickled whole needs ``convit`` where
    it is loaded, and TorchScript cannot compile it: :func:`restore` it first.

    Args:
        model: a timm ConViT, or any module with one inside, wrapped and compiled ones too.

    Returns:
        The modules that changed, and those that could not with the reason.

    Raises:
        InputError: no timm ConViT inside, or a timm whose attention is not the one that this package knows.

    Example:
        >>> model = timm.create_model("convit_tiny", img_size=32, depth=3, local_up_to_layer=2)
        >>> speed_up(model).changed
        ('blocks.0.attn', 'blocks.1.attn', 'blocks.2.attn')
        >>> model(torch.randn(1, 3, 32, 32)).shape
        torch.Size([1, 1000])
        >>> print(restore(model))
        attention modules changed: 3, left as they were: 0
    """
    attention = _timm_attention(model)
    _check_timm()
    changed, left = [], {}
    for name, module in attention.items():
        if isinstance(module, (FastGPSA, FastMHSA)):
            continue
        if (obstacle := _obstacle(module)) is not None:
            left[name] = obstacle
        else:
            module.__class__ = _FAST[type(module)]
            changed.append(name)
    return Swapped(tuple(changed), left)


def restore(model: nn.Module) -> Swapped:
    """Undoes :func:`speed_up`: the same objects run timm's own code again. Mode, device and type are those of now.

    Args:
        model: what was given to it, or a copy of it, wrapped, or loaded from a file.

    Returns:
        The modules that changed, none if none were fast; and those that could not, with the reason.

    Raises:
        InputError: no timm ConViT inside.
    """
    changed, left = [], {}
    attention: dict[str, Any] = dict(_timm_attention(model))
    for name, module in attention.items():
        if "restores_to" in vars(type(module)):
            module.__class__ = type(module).restores_to
            changed.append(name)
        elif hasattr(type(module), "restores_to"):
            left[name] = f"got {type(module).__name__}, made from the fast class since; expected the fast class itself"
    return Swapped(tuple(changed), left)


class FastGPSA(GPSA):
    """timm's GPSA without its ``N x N`` maps. Made by :func:`speed_up` out of an existing one."""

    restores_to = GPSA

    def forward(self, x: Tensor) -> Tensor:
        """``(B, N, C)`` to ``(B, N, C)``. The N patches fill a square, as they do for timm."""
        if _left_out(self) is not None or _drops_attention(self):
            return super().forward(x)
        q, k = split_heads(self.qk(x), 2, self.num_heads).unbind(0)
        v = split_heads(self.v(x), 1, self.num_heads)[0]
        pos_weight = self.pos_proj.weight
        if torch.is_grad_enabled():
            # The bias cancels in the softmax, so its gradient is zero, as timm's is up to rounding. Without any,
            # DistributedDataParallel would wait for it, and weight decay would pass the bias over.
            pos_weight = pos_weight + 0 * self.pos_proj.bias[:, None]
        side = math.isqrt(x.shape[1])
        out = ops.gated_attention(q, k, v, self.gating_param, pos_weight, grid=(side, side))
        return self.proj_drop(self.proj(merge_heads(out)))

    def get_attention(self, x: Tensor) -> Tensor:
        """timm's map, ``(B, h, N, N)``. It reads positions that timm's ``forward`` caches and the fast one does not."""
        if self.rel_indices is None or self.rel_indices.shape[1] != x.shape[1]:
            self.rel_indices = self.get_rel_indices(x.shape[1])
        return super().get_attention(x)


class FastMHSA(MHSA):
    """timm's plain attention, fused. Made by :func:`speed_up` out of an existing one."""

    restores_to = MHSA

    def forward(self, x: Tensor) -> Tensor:
        """``(B, N, C)`` to ``(B, N, C)``."""
        if _left_out(self) is not None or _drops_attention(self):
            return super().forward(x)
        q, k, v = split_heads(self.qkv(x), 3, self.num_heads).unbind(0)
        out = factorized.content_attention(q, k, v, scale=self.scale)
        return self.proj_drop(self.proj(merge_heads(out)))


_FAST = {GPSA: FastGPSA, MHSA: FastMHSA}
# What the fast code knows of: a module that holds anything else computes something else.
_CHILDREN = {
    GPSA: {"qk", "v", "attn_drop", "proj", "pos_proj", "proj_drop"},
    MHSA: {"qkv", "attn_drop", "proj", "proj_drop"},
}
_PARAMETERS = {GPSA: {"gating_param"}, MHSA: set[str]()}


def _timm_attention(model: nn.Module) -> dict[str, GPSA | MHSA]:
    """Every attention module of timm's ConViT in the model, fast or not, by its name."""
    if not isinstance(model, nn.Module):
        raise InputError(f"model: got {type(model).__name__}, expected a timm ConViT, an nn.Module")
    found = {name: module for name, module in model.named_modules() if isinstance(module, (GPSA, MHSA))}
    if found:
        return found
    if any(isinstance(module, AttentionBase) for module in model.modules()):
        raise InputError(
            f"model: got {type(model).__name__} with convit's own attention, which is the fast one: nothing to do; "
            "expected a timm ConViT"
        )
    raise InputError(
        f"model: got {type(model).__name__} with no attention of timm's ConViT in it, "
        "expected a timm ConViT such as timm.create_model('convit_tiny')"
    )


def _obstacle(module: GPSA | MHSA) -> str | None:
    """Why the fast code would not compute what this module does, or None."""
    kind = type(module)
    if kind not in _FAST:
        base = GPSA if isinstance(module, GPSA) else MHSA
        return f"got {kind.__name__}, whose code may differ; expected timm's {base.__name__} itself"
    children, parameters = set(dict(module.named_children())), set(dict(module.named_parameters(recurse=False)))
    if children != _CHILDREN[kind] or parameters != _PARAMETERS[kind]:
        expected = _CHILDREN[kind] | _PARAMETERS[kind]
        return f"got a {kind.__name__} of {sorted(children | parameters)}, expected {sorted(expected)}"
    if "forward" in vars(module):
        return "its forward was replaced on the object; expected the one of its class"
    return _left_out(module)


def _left_out(module: GPSA | MHSA) -> str | None:
    """What the fast code would leave out now, as it reads some parts without calling them. A hook may come any time."""
    if type(module.attn_drop) is not nn.Dropout or not is_untouched(module.attn_drop):
        return "attn_drop has a hook or is no plain nn.Dropout; the fast form has no map to give it"
    if isinstance(module, MHSA):
        return None
    position = module.pos_proj
    if type(position) is not nn.Linear or not is_untouched(position) or position.bias is None:
        return "pos_proj has a hook or is no plain nn.Linear with a bias; the fast form reads its weight only"
    if "get_attention" in vars(module):
        return "its get_attention was replaced on the object; the fast form does not call it"
    if not math.isclose(module.scale, (module.dim // module.num_heads) ** -0.5):
        return f"got scale {module.scale}, expected 1 / sqrt(dim // num_heads)"
    return None


def _drops_attention(module: GPSA | MHSA) -> bool:
    """Whether entries of the map are dropped now; ``attn_drop``'s own mode counts, as in Monte Carlo dropout."""
    return module.attn_drop.training and module.attn_drop.p > 0


@cache
def _check_timm() -> None:
    """Runs timm's code and ours side by side, once a process: another timm may compute something else.

    Raises:
        InputError: they differ, or ours fails on what timm builds.
    """
    for kind in _FAST:
        try:
            problem = _difference(kind)
        except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            problem = f"{type(error).__name__}: {error}"
        if problem is not None:
            raise InputError(
                f"timm: got version {timm.__version__}, whose {kind.__name__} is not the one that convit can speed "
                f"up ({problem}); expected the one of timm 1.0.31"
            )


@torch.no_grad()
def _difference(kind: type[GPSA | MHSA]) -> str | None:
    """What differs between timm's code and ours on a module with random weights, or None."""
    # The caller may have another default device, and keeps its random state. Autocast leaves fp64 alone.
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        probe = kind(6, num_heads=2).double().eval()
        generator = torch.Generator("cpu").manual_seed(0)
        for parameter in probe.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        x = torch.randn(2, 9, 6, generator=generator, dtype=torch.float64)
        if (obstacle := _obstacle(probe)) is not None:
            return obstacle
        expected = probe(x)
        probe.__class__ = _FAST[kind]
        error = (probe(x) - expected).abs().max().item()
    return None if error < 1e-9 else f"outputs differ by {error:.1e}"
