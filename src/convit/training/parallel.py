"""A model on several processes, each with some rows of every batch; the result is that of one process."""

from typing import Any

import torch
from timm.layers import DropPath
from timm.layers.drop import drop_path
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from convit.layers import TokenBatchNorm

BatchNorm = nn.modules.batchnorm._BatchNorm


class Rows:
    """Which rows of the batch of a step the model is being shown."""

    def __init__(self) -> None:
        self.batch_size = 0
        self.shown = torch.empty(0, dtype=torch.int64)


class DropPathOfRows(nn.Module):
    """Drop path that draws for the whole batch of the step and uses the values of its own rows.

    So an image gets the same draw in every process and in every part of the batch, if the generators start from the
    same state: a divided step equals the undivided one.

    Args:
        drop_prob: probability that a residual branch is left out for an image.
        rows: of the forward pass, on the device of its input.
    """

    def __init__(self, drop_prob: float, rows: Rows) -> None:
        super().__init__()
        self.drop_prob, self.rows = drop_prob, rows

    def forward(self, x: Tensor) -> Tensor:
        """``(rows, ...)`` to the same shape."""
        if not self.training:
            return x
        ones = x.new_ones((self.rows.batch_size,) + (1,) * (x.ndim - 1))
        return x * drop_path(ones, self.drop_prob, training=True)[self.rows.shown]


def draw_by_rows(model: nn.Module) -> Rows:
    """Gives every drop path of a model the rows that it returns."""
    rows = Rows()
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, DropPath):
                setattr(module, name, DropPathOfRows(child.drop_prob, rows))
    return rows


class _SumOfAll(torch.autograd.Function):
    """The sum of a tensor over all processes. Each one's loss depends on it, so their gradients add up as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        torch.distributed.all_reduce(total)
        return total


class BatchNormOfAll(nn.Module):
    """Batch norm whose mean and variance in training are those of the whole step, over all processes.

    All processes must have the same number of images. The parameters and running means are those of ``norm``, under
    their names. (PyTorch's ``SyncBatchNorm`` works on GPUs only.)

    Args:
        norm: of tokens ``(B, N, C)``, or of feature maps ``(B, C, H, W)``.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, norm: BatchNorm) -> None:
        super().__init__()
        assert norm.momentum is not None, "a mean over all steps is not made here"
        self.channels = 2 if isinstance(norm, TokenBatchNorm) else 1
        self.eps, self.momentum = norm.eps, norm.momentum
        self.weight, self.bias = norm.weight, norm.bias
        for name, value in norm.named_buffers():
            self.register_buffer(name, value)
        self.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        """To the same shape."""
        if not self.training:
            return self._normed(x, self.running_mean, self.running_var)
        others = [dim for dim in range(x.ndim) if dim != self.channels]
        count = x.numel() // x.shape[self.channels] * torch.distributed.get_world_size()
        values = x.float()
        mean: Tensor = _SumOfAll.apply(values.sum(others)) / count
        variance: Tensor = _SumOfAll.apply((values - self._along(mean, x)).square().sum(others)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        return self._normed(x, mean, variance)

    def _normed(self, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        scale = self.weight * (variance + self.eps).rsqrt()
        return (x.float() * self._along(scale, x) + self._along(self.bias - mean * scale, x)).to(x.dtype)

    def _along(self, values: Tensor, x: Tensor) -> Tensor:
        """One value for each channel, in the shape that goes with ``x``."""
        return values.view([-1 if dim == self.channels else 1 for dim in range(x.ndim)])


def share_batch_norm(model: nn.Module) -> None:
    """Lets every batch norm of a model take its mean and variance over all processes."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, BatchNorm):
                setattr(module, name, BatchNormOfAll(child))


def data_parallel(model: nn.Module, device: torch.device) -> DistributedDataParallel:
    """A callable that averages the gradients of ``model`` over the processes."""
    devices = [torch.cuda.current_device()] if device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=devices)
