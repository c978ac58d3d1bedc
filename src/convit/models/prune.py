"""Heads whose gate has decided skip the path they no longer use, in place, and what that gains and costs.

The layers that do so are in :mod:`convit.models.pruned_layers`.
"""

import statistics
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from timm.models.convit import GPSA as TimmGPSA
from torch import Tensor, nn

from convit.errors import InputError
from convit.layers import GatedPositionalSelfAttention
from convit.models.pruned_layers import PRUNED, plan_of

ROUNDS = 7
"""How often the model runs each way to find the speed."""
BATCH = 4
"""The random images that it runs on if none are given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneReport:
    """What :func:`prune_gates` did. Layers go by their names in ``model.named_modules()``, heads by their numbers."""

    tolerance: float
    shut: Mapping[str, tuple[int, ...]]
    """In every layer, the heads that attend by content alone from now on."""
    open: Mapping[str, tuple[int, ...]]
    """In every layer, the heads that attend by position alone from now on."""
    num_heads: int
    """All heads of these layers."""
    largest_change: float
    """The largest difference of an output, on the images that it was measured on."""
    relative_change: float
    """The same as a part of the largest output."""
    speed: float
    """Time before over time after: the median of several pairs of runs of the whole model, one after the other."""
    left: Mapping[str, str]
    """The GPSA layers that were not looked at, each with the reason."""

    @property
    def num_shut(self) -> int:
        """The number of heads that attend by content alone."""
        return sum(map(len, self.shut.values()))

    @property
    def num_open(self) -> int:
        """The number of heads that attend by position alone."""
        return sum(map(len, self.open.values()))

    def __str__(self) -> str:
        lines = [
            f"gates pruned at a tolerance of {self.tolerance:g}: {self.num_shut} shut and {self.num_open} open, "
            f"of {self.num_heads} heads in {len(self.shut)} layers",
            f"speed: {self.speed:.2f} times; largest change of the output: {self.largest_change:.1e}, "
            f"{self.relative_change:.1e} of the largest",
        ]
        for name in self.shut:
            parts = [f"{word} {', '.join(map(str, heads))}" for word, heads in self._words(name) if heads]
            if parts:
                lines.append(f"  {name or 'the model itself'}: {'; '.join(parts)}")
        return "\n".join(lines + [f"  {name or 'the model itself'}: left, {why}" for name, why in self.left.items()])

    def _words(self, name: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
        return ("shut", self.shut[name]), ("open", self.open[name])


def prune_gates(model: nn.Module, tolerance: float = 0.0, *, images: Tensor | None = None) -> PruneReport:
    r"""Lets heads whose gate has decided skip what they no longer use, in place, in evaluation.

    With ``g = sigmoid(gating_param)`` of a head, a gate of ``g <= tolerance`` is shut: the head attends by content
    alone, as if g were 0. A gate of ``1 - g <= tolerance`` is open: the head attends by position alone, as if g were 1,
    and its queries and keys are not computed. Prefix tokens, which have no position, attend by content all the same.

    What changes: positional and content attention are both means of the head's values v, so each number of the head's
    output moves by at most ``2 t max|v|``, with ``t = max(tolerance, eps / 4)`` and eps that of the gates' type. At
    ``tolerance=0`` this is ``eps / 2 max|v|``, the rounding of one number as large as the largest value: the attention
    is exact to the working precision (in fp32 gates beyond a logit of 17.4, in bf16 of 6.3).

    The layer's own form runs, and nothing is pruned, in training; where autograd is on and a parameter of the layer
    wants its gradient (so evaluate under ``torch.no_grad()``); and once gates or their type are others than those that
    this function saw. Compiled code cannot look at the gates: it learns of others from ``load_state_dict``, ``train``
    and ``eval``; gates written to in another way need one of these or another call. A captured CUDA graph never learns.

    Parameters and state dict stay as they are. A second call starts anew; :func:`convit.restore` undoes it.

    Args:
        model: ours, any module with a :class:`convit.GPSA` inside, or a timm ConViT after :func:`convit.speed_up`.
        tolerance: from 0 to below 0.5.
        images: what to measure speed and change on: one batch, as the model takes it. Random normal ones, always the
            same, of the model's input size if left out.

    Returns:
        The heads, speed, and largest change. If it raises, no layer is pruned.

    Raises:
        InputError: no GPSA layer that can be pruned, a tolerance out of range, no images for a model that does not
            tell its input size, an output that is no tensor.

    Example:
        >>> from convit import ConViT
        >>> model = ConViT(img_size=16, patch_size=4, num_classes=5, embed_dim=18, depth=2, num_heads=9,
        ...                local_up_to_layer=1)
        >>> _ = model.blocks[0].attn.gating_param.data.copy_(torch.tensor([-20.0, 20, 1, 1, 1, 1, 1, 1, -9]))
        >>> report = prune_gates(model)
        >>> report.shut, report.open
        ({'blocks.0.attn': (0,)}, {'blocks.0.attn': (1,)})
        >>> prune_gates(model, 0.01).shut
        {'blocks.0.attn': (0, 8)}
    """
    if not 0 <= tolerance < 0.5:
        raise InputError(f"tolerance: got {tolerance}, expected from 0 to below 0.5, such as 0.01")
    layers, left = _layers(model)
    _unprune(layers.values())
    plans = {name: plan_of(layer, tolerance) for name, layer in layers.items()}
    changing = {layers[name]: plan for name, plan in plans.items() if plan.shut or plan.open}
    change = relative = 0.0
    speed = 1.0
    if changing:
        for layer, plan in changing.items():
            layer.head_plan, layer.plan_holds = plan, True
        try:
            change, relative, speed = _compare(model, tuple(changing), _images(model) if images is None else images)
        except BaseException:
            _unprune(changing)
            raise
    return PruneReport(
        tolerance=tolerance,
        shut={name: plan.shut for name, plan in plans.items()},
        open={name: plan.open for name, plan in plans.items()},
        num_heads=sum(layer.num_heads for layer in layers.values()),
        largest_change=change,
        relative_change=relative,
        speed=speed,
        left=left,
    )


# -- the layers --------------------------------------------------------------------------------------------------------


def _layers(model: nn.Module) -> tuple[dict[str, Any], dict[str, str]]:
    """The layers that can be pruned by name, and the other GPSA layers with the reason."""
    if not isinstance(model, nn.Module):
        raise InputError(f"model: got {type(model).__name__}, expected an nn.Module with a GPSA layer")
    layers: dict[str, Any] = {}
    left: dict[str, str] = {}
    for name, module in model.named_modules():
        if type(module) in (*PRUNED, *PRUNED.values()) and "forward" not in vars(module):
            layers[name] = module
        elif type(module) is TimmGPSA:
            left[name] = "got timm's own GPSA, expected the fast one: call convit.speed_up(model) first"
        elif isinstance(module, (GatedPositionalSelfAttention, TimmGPSA)):
            left[name] = f"got {type(module).__name__}, whose code may differ; expected the GPSA layer itself"
    if layers:
        return layers, left
    reason = next(iter(left.values()), "got none; expected convit.GPSA, or timm's after convit.speed_up(model)")
    raise InputError(f"model: got {type(model).__name__} without a GPSA layer that can be pruned: {reason}")


def _switch(layers: Iterable[Any], *, on: bool) -> None:
    """Each layer to its pruned class, for which it has a plan, or to the class that it had before."""
    for layer in layers:
        layer.__class__ = PRUNED.get(type(layer), type(layer)) if on else getattr(layer, "unpruned", type(layer))


def _unprune(layers: Iterable[Any]) -> None:
    for layer in layers:
        _switch([layer], on=False)
        vars(layer).pop("head_plan", None)
        vars(layer).pop("plan_holds", None)


# -- before and after --------------------------------------------------------------------------------------------------


@torch.no_grad()
def _compare(model: nn.Module, layers: tuple[Any, ...], images: Tensor) -> tuple[float, float, float]:
    """Largest change of the output, the same as a part of the largest output, and speed. Leaves the layers pruned."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    outputs: list[Tensor] = []
    ratios: list[float] = []
    try:
        for turn in range(1 + ROUNDS):  # the first warms up
            seconds = []
            for on in (False, True):
                _switch(layers, on=on)
                start = _clock(images)
                output = model(images)
                seconds.append(_clock(images) - start)
                if turn == 0:
                    outputs.append(_checked(output))
            if turn > 0:
                ratios.append(seconds[0] / seconds[1])
    finally:
        for module, mode in modes.items():
            module.training = mode
    before, after = (output.to(torch.promote_types(output.dtype, torch.float32)) for output in outputs)
    change = (after - before).abs().max().item()
    scale = before.abs().max().item()
    return change, change / scale if scale else 0.0, statistics.median(ratios)


def _checked(output: Any) -> Tensor:
    if not isinstance(output, Tensor):
        raise InputError(f"model: got an output of type {type(output).__name__}, expected a tensor to compare")
    return output


def _clock(images: Tensor) -> float:
    if images.device.type != "cpu":
        torch.accelerator.synchronize(images.device)
    return time.perf_counter()


def _images(model: nn.Module) -> Tensor:
    """Random normal images of the size that the model says it takes."""
    stem = getattr(model, "patch_embed", None)
    size = getattr(model, "img_size", getattr(stem, "img_size", None))
    channels = getattr(model, "in_chans", getattr(getattr(stem, "proj", None), "in_channels", None))
    if size is None or channels is None:
        raise InputError(
            f"images: got none for a {type(model).__name__}, which does not tell the size of its input; "
            "expected images=..., a batch such as it takes"
        )
    images = torch.randn(BATCH, channels, *size, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
    return images.to(next(model.parameters()))
