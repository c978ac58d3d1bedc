"""An attention layer, as analysis asks it: its kind, its gates, its positional weights, and the maps of a pass.

Our layers have these as attributes and hooks (:mod:`convit.layers.attention`); each kind of timm's layers has an
adapter (:mod:`convit.analysis.timm_layers`). All of analysis uses this interface.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from convit.errors import InputError
from convit.grid import Grid


@dataclass(frozen=True, eq=False)
class Pass:
    """The maps and the output of a layer in one forward pass."""

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
    hidden: Tensor
    """What the block (the module that holds the attention) returned, ``(B, T, C)``."""


@dataclass(frozen=True, eq=False)
class AttentionLayer:
    """An attention module of ours, and the block that holds it. Subclasses are for timm's."""

    index: int
    """Its number in the model, from 0."""
    module: Any
    block: nn.Module

    @property
    def kind(self) -> str:
        """``"gpsa"``, ``"psa"`` or ``"sa"``."""
        return str(self.module.kind)

    @property
    def num_heads(self) -> int:
        """h."""
        return int(self.module.num_heads)

    @property
    def gates(self) -> Tensor | None:
        """The weight of positional attention in each head, ``(h,)``; of GPSA only."""
        return self.module.gates if self.kind == "gpsa" else None

    @property
    def position_weight(self) -> Tensor | None:
        """``v_pos``, ``(h, 3)``; none in plain attention."""
        if self.kind == "sa":
            return None
        with torch.no_grad():
            return self.module.position_weight()

    @contextmanager
    def recorded(self, network: nn.Module, images: Tensor, finish: Callable[[Pass], None]) -> Iterator[None]:
        """Within it ``finish`` gets the layer's :class:`Pass` of each forward pass, as soon as its block is done.

        Args:
            network: the model that holds the layer.
            images: those of the pass.
            finish: a function of it; no reference to a map is kept here.

        Raises:
            InputError: in the pass, if the layer's own code has computed no map, or the layer runs more than once.
        """
        parts: dict[str, Any] = {}
        ended = False

        def begin(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = dict(zip(("x", "grid", "num_prefix_tokens"), args, strict=False)) | kwargs
            if parts:
                self._refuse_twice()
            parts["place"] = given.get("grid"), given.get("num_prefix_tokens", 0)

        def end_of_block(_module: nn.Module, _args: Any, output: Tensor) -> None:
            if not parts:
                return
            nonlocal ended
            taken, ended = dict(parts), True
            parts.clear()
            if "place" not in taken:
                raise InputError(
                    f"layers: got layer {self.index}, which does not run as a module, expected one that does"
                )
            if "mixed" not in taken:
                raise InputError(
                    f"layers: got layer {self.index} of type {type(self.module).__name__}, whose map does not pass "
                    "through its attn_drop; expected one that hands it out there"
                )
            finish(self._pass(taken, output, network, images))

        with ExitStack() as stack:
            stack.enter_context(self.module.register_forward_pre_hook(begin, with_kwargs=True))
            self._watch(stack, parts)
            stack.enter_context(self.block.register_forward_hook(end_of_block))
            yield
            if parts and ended:  # it ran in another block too
                self._refuse_twice()

    def _refuse_twice(self) -> NoReturn:
        raise InputError(
            f"layers: got layer {self.index}, which runs more than once in a pass of the model, expected once"
        )

    def _watch(self, stack: ExitStack, parts: dict[str, Any]) -> None:
        """Keeps in ``parts`` the layer's maps, and where they are."""
        names = {"mixed": "attn_drop", "content": "content_map", "positional": "positional_map", "place": "place"}
        for name, point in names.items():
            if hasattr(self.module, point):
                stack.enter_context(kept(getattr(self.module, point), parts, name))

    def _pass(self, parts: dict[str, Any], hidden: Tensor, network: nn.Module, images: Tensor) -> Pass:
        """What was kept, in order."""
        (grid, prefix), mixed = parts["place"], parts["mixed"]
        full = Grid.of(mixed.shape[-1] - prefix, grid)
        return Pass(full, prefix, mixed, parts.get("content"), parts.get("positional"), hidden)


def kept(module: nn.Module, parts: dict[str, Any], name: str) -> AbstractContextManager[Any]:
    """Within it ``parts[name]`` is what the module returned last."""

    def keep(_module: nn.Module, _args: Any, output: Tensor) -> None:
        parts[name] = output

    return module.register_forward_hook(keep)


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
