"""The optimisers that a training can have."""

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from convit.choices import OptimizerName

COEFFICIENTS = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)
"""Of the polynomial ``a x + b x^3 + c x^5`` of each iteration. Source: Jordan et al., modded-nanogpt; timm's name for
them is ``quintic``."""
LEAST_SIDE, LONGEST = 4, 128
"""A matrix has at least so many rows and columns, and a longer side of at most so many times the shorter."""
KEPT_BY_ADAMW = {"exp_avg", "exp_avg_sq", "step"}
"""Of each parameter: its two moments, and how often it was moved."""


def make_optimizer(groups: list[dict[str, Any]], opt: OptimizerName, lr: float) -> torch.optim.Optimizer:
    """An optimiser by its name.

    Args:
        groups: of parameters (:func:`convit.training.parameters.parameter_groups`).
        opt: its name.
        lr: the peak learning rate.
    """
    if opt == "adamw":
        return torch.optim.AdamW(groups, lr=lr, weight_decay=0.0)
    return Muon(groups, lr=lr)


def kept_of(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> set[str]:
    """The names of all that an optimiser keeps of a parameter that it has moved."""
    return {"momentum_buffer"} if isinstance(optimizer, Muon) and is_matrix(parameter) else KEPT_BY_ADAMW


def is_matrix(parameter: Tensor) -> bool:
    """Whether Muon moves a parameter: a linear map or a convolution, no embedding, bias, gate or depthwise kernel.

    >>> is_matrix(torch.empty(64, 3, 3, 3)), is_matrix(torch.empty(1, 196, 64)), is_matrix(torch.empty(9, 3))
    (True, False, False)
    """
    if parameter.ndim < 2 or 1 in parameter.shape[:2]:
        return False
    less, more = sorted((parameter.shape[0], math.prod(parameter.shape[1:])))
    return less >= LEAST_SIDE and more <= LONGEST * less


class Muon(torch.optim.Optimizer):
    r"""Muon (Jordan et al. 2024): each matrix moves by the orthogonal matrix nearest to its momentum; AdamW moves the
    rest. With G the gradient of a matrix W of m rows and n columns (of a convolution, n is all but its first side):

        M <- mu M + (1 - mu) G,    O = U V^T where M = U S V^T,    W <- (1 - lr w) W - lr 0.2 sqrt(max(m, n)) O

    The factor gives an update the size of AdamW's (Liu et al. 2025, "Muon is scalable for LLM training"), so that one
    learning rate is right for both. O is found by five Newton-Schulz iterations (:func:`orthogonalized`), of all
    matrices of a shape together.

    The same algorithm as timm's Muon, whose iterations are in bf16 on every machine: with the small matrices of small
    models on a CPU without bf16 units they take five times as long as these.

    Args:
        groups: of parameters, each with its ``weight_decay`` (w).
        lr: learning rate.
        momentum: mu.
        betas: of AdamW's two averages.
        eps: added to AdamW's denominators.
        weight_decay: of groups without their own.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        lr: float,
        momentum: float = 0.9,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-7,
        weight_decay: float = 0.0,
    ) -> None:
        # In every group, as an optimiser's copies and states have these alone.
        defaults = {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Moves every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike: defaultdict[tuple[Any, ...], list[nn.Parameter]] = defaultdict(list)
            rest = []
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if is_matrix(parameter):
                    alike[(parameter.shape, parameter.dtype, parameter.device)].append(parameter)
                else:
                    rest.append(parameter)
            for matrices in alike.values():
                self._move_matrices(matrices, group)
            if rest:
                self._move_rest(rest, group)
        return loss

    def _move_matrices(self, matrices: list[nn.Parameter], group: dict[str, Any]) -> None:
        """Those of one shape."""
        rows = matrices[0].shape[0]
        columns = matrices[0].numel() // rows
        for matrix in matrices:
            self._moment(matrix, "momentum_buffer").lerp_(_grad(matrix), 1 - group["momentum"])
        momenta = torch.stack([self.state[matrix]["momentum_buffer"].reshape(rows, columns) for matrix in matrices])
        for matrix, found in zip(matrices, orthogonalized(momenta), strict=True):
            direction = found.to(matrix.dtype).reshape(matrix.shape)
            scale = 0.2 * max(rows, columns) ** 0.5
            matrix.mul_(1 - group["lr"] * group["weight_decay"]).add_(direction, alpha=-group["lr"] * scale)

    def _move_rest(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        for parameter in parameters:
            self.state[parameter].setdefault("step", torch.zeros((), dtype=torch.float32))
        grads = [_grad(parameter) for parameter in parameters]
        first, second = ([self._moment(p, name) for p in parameters] for name in ("exp_avg", "exp_avg_sq"))
        # One call in place of hundreds; it takes all tensors of a parameter to have one layout in memory.
        all_tensors = (*parameters, *grads, *first, *second)
        fused = all(tensor.device.type == "cpu" and tensor.is_contiguous() for tensor in all_tensors)
        adamw(
            list[Tensor](parameters),
            grads,
            first,
            second,
            [],
            [self.state[parameter]["step"] for parameter in parameters],
            fused=True if fused else None,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def _moment(self, parameter: nn.Parameter, name: str) -> Tensor:
        """What is kept of a parameter under a name: zero at first."""
        state: dict[str, Tensor] = self.state[parameter]
        if name not in state:
            state[name] = torch.zeros_like(parameter)
        return state[name]


def _grad(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def orthogonalized(matrices: Tensor) -> Tensor:
    """About ``U V^T`` of each matrix ``U S V^T``, by Newton-Schulz iterations.

    Each iteration is ``X <- a X + (b X X^T + c (X X^T)^2) X``, which takes every singular value x to
    ``a x + b x^3 + c x^5`` and leaves U and V as they are. Five of them bring every value that is at least 0.003 of the
    matrix's Frobenius norm between 0.85 and 1.15, up to rounding.

    Args:
        matrices: ``(count, m, n)``; one of zeros stays so.

    Returns:
        ``(count, m, n)``, in bf16 on a GPU with units for it, else in at least fp32.
    """
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = (matrices if wide else matrices.mT).to(_compute_dtype(matrices)).contiguous()
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for a, b, c in COEFFICIENTS:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide else x.mT


def _compute_dtype(matrices: Tensor) -> torch.dtype:
    if matrices.is_cuda and torch.cuda.get_device_capability(matrices.device) >= (8, 0):
        return torch.bfloat16
    return torch.promote_types(matrices.dtype, torch.float32)
