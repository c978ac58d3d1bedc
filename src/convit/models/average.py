"""The average of several models, or of several views of an image, as one model."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class AverageOf(nn.Module):
    """What averages have in common: of each model the same images and classes.

    Args:
        models: one or more. Where the first has them, the average has its ``num_classes``, ``in_chans``, ``patch_size``
            and ``global_pool``.
    """

    num_classes: int
    in_chans: int
    patch_size: int
    global_pool: str

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        assert models
        self.models = nn.ModuleList(models)
        for name in AverageOf.__annotations__:
            if hasattr(models[0], name):
                setattr(self, name, getattr(models[0], name))


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
        both = self.models[0](torch.cat((x, x.flip(-1)))).float() / self.temperature  # in one pass: a file has one copy
        return both.log_softmax(dim=-1).reshape(2, x.shape[0], -1).logsumexp(dim=0) - math.log(2)
