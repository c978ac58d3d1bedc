"""The average of several models, as one."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Average(nn.Module):
    """Models of the same classes as one, whose probabilities are the mean of theirs.

        forward(x) = log(1/K sum_k softmax(z_k(x) / T_k))

    so the softmax of what it gives is that mean.

    Args:
        models: K models from images ``(B, 3, H, W)`` of one size to logits ``z_k``, ``(B, classes)``.
        temperatures: T_k; None for 1.

    >>> fixed = [nn.Sequential(nn.Flatten(), nn.Linear(1, 2)) for _ in range(2)]
    >>> x = torch.zeros(1, 1)
    >>> mean = sum(model(x).softmax(-1) for model in fixed) / 2
    >>> torch.allclose(Average(fixed)(x).softmax(-1), mean)
    True
    """

    def __init__(self, models: Sequence[nn.Module], temperatures: Sequence[float] | None = None) -> None:
        super().__init__()
        assert models
        self.models = nn.ModuleList(models)
        self.temperatures = tuple(temperatures or [1.0] * len(models))
        assert len(self.temperatures) == len(models)

    def forward(self, x: Tensor) -> Tensor:
        answers = [
            (model(x).float() / temperature).log_softmax(dim=-1)
            for model, temperature in zip(self.models, self.temperatures, strict=True)
        ]
        return torch.stack(answers).logsumexp(dim=0) - torch.log(torch.tensor(float(len(answers))))

    @property
    def _first(self) -> Any:
        return self.models[0]

    @property
    def num_classes(self) -> int:
        """The classes of each of them."""
        return int(self._first.num_classes)

    @property
    def in_chans(self) -> int:
        """The channels of an image."""
        return int(self._first.in_chans)

    @property
    def patch_size(self) -> int:
        """The side of a patch of each of them, in pixels."""
        return int(self._first.patch_size)

    @property
    def global_pool(self) -> str:
        """What the classifiers read; see :class:`convit.ConViT`."""
        return str(self._first.global_pool)
