"""The average of several models, or of several views of an image, as one model."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class AverageOf(nn.Module):
    """What averages have in common: the shape of what each model takes and gives.

    Args:
        models: one or more, all for the same images and classes.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        assert models
        self.models = nn.ModuleList(models)

    @property
    def _first(self) -> Any:
        return self.models[0]

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return int(self._first.num_classes)

    @property
    def in_chans(self) -> int:
        """The channels of an image."""
        return int(self._first.in_chans)

    @property
    def patch_size(self) -> int:
        """The side of a patch of each model, in pixels."""
        return int(self._first.patch_size)

    @property
    def global_pool(self) -> str:
        """What the classifiers read; see :class:`convit.ConViT`."""
        return str(self._first.global_pool)


class Average(AverageOf):
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
        super().__init__(models)
        self.temperatures = tuple(temperatures or [1.0] * len(models))
        assert len(self.temperatures) == len(models)

    def forward(self, x: Tensor) -> Tensor:
        answers = [
            (model(x).float() / temperature).log_softmax(dim=-1)
            for model, temperature in zip(self.models, self.temperatures, strict=True)
        ]
        return torch.stack(answers).logsumexp(dim=0) - torch.log(torch.tensor(float(len(answers))))


class Mirrored(AverageOf):
    """A model that looks at each image twice, as it is and mirrored: its probabilities are the mean of both views.

        forward(x) = log(1/2 (softmax(z(x) / T) + softmax(z(m(x)) / T))),    m(x)[..., j] = x[..., W - 1 - j]

    Args:
        model: from images ``(B, 3, H, W)`` to logits ``z``, ``(B, classes)``.
        temperature: T.

    >>> model = Mirrored(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)))
    >>> x = torch.rand(1, 3, 2, 2)
    >>> torch.equal(model(x), model(x.flip(-1)))
    True
    """

    def __init__(self, model: nn.Module, temperature: float = 1.0) -> None:
        super().__init__([model])
        self.temperature = temperature

    def forward(self, x: Tensor) -> Tensor:
        both = self._first(torch.cat((x, x.flip(-1)))).float() / self.temperature  # in one pass: a file has one copy
        return both.log_softmax(dim=-1).reshape(2, x.shape[0], -1).logsumexp(dim=0) - math.log(2)
