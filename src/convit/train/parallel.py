"""A model on several processes: each has a share of every batch, and the whole model (DDP) or a part of it (FSDP2)."""

from typing import Any, Literal

import torch
from timm.layers import DropPath
from timm.layers.drop import drop_path
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from convit.errors import InputError
from convit.layers import TokenBatchNorm
from convit.models import ConViT
from convit.train.config import OptimConfig
from convit.train.distributed import World

BatchNorm = nn.modules.batchnorm._BatchNorm
Parallel = Literal["ddp", "fsdp"]


class Rows:
    """Which rows of the batch of a step the model is being shown."""

    def __init__(self) -> None:
        self.batch_size = 0
        self.shown = torch.empty(0, dtype=torch.int64)


class DropPathOfRows(nn.Module):
    """Drop path that draws for the batch of the whole step and takes its rows of it.

    So an image is treated alike in whichever process and part of the batch it is: where the generators start the same,
    the shares and parts of a step together are the step in one piece.

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


def _sum_of_all(x: Tensor) -> Tensor:
    total: Tensor = _SumOfAll.apply(x)
    return total


class BatchNormOfAll(nn.Module):
    """Batch norm whose mean and variance in training are those of the whole step, over the shares of all processes.

    All have to have a share of the same size. Takes over parameters and running means of ``norm``, under their names.
    (PyTorch's ``SyncBatchNorm`` knows GPUs alone.)

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
        mean = _sum_of_all(values.sum(others)) / count
        variance = _sum_of_all((values - self._along(mean, x)).square().sum(others)) / count
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


def check_divisible(model: nn.Module) -> None:
    """Refuses a model whose step in parts, one after the other, is not the undivided one.

    Raises:
        InputError: batch norm.
    """
    if any(isinstance(module, BatchNorm) for module in model.modules()):
        raise InputError(
            "accumulate: got it for a model with batch norm, whose statistics would be those of a part of each step's "
            "images; expected a step in one piece, or --norm layer"
        )


def check_parallel(parallel: Parallel, options: OptimConfig, model: nn.Module) -> None:
    """Refuses what FSDP does not go with.

    Raises:
        InputError: got such.
    """
    if parallel == "fsdp" and any(isinstance(module, BatchNorm) for module in model.modules()):
        raise InputError("parallel: got fsdp for a model with batch norm, expected --parallel ddp, or --norm layer")
    if parallel == "fsdp" and (options.compile or options.channels_last or options.precision == "fp16"):
        raise InputError(
            "parallel: got fsdp with --compile, --channels-last or --precision fp16, expected none of them: "
            "--precision bf16, or --parallel ddp"
        )


def data_parallel(model: nn.Module, device: torch.device) -> DistributedDataParallel:
    """A callable that averages the gradients of ``model`` over the processes."""
    devices = [torch.cuda.current_device()] if device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=devices)


def shard(model: ConViT, device: torch.device, world: World) -> None:
    """Leaves every process a part of each parameter; a block is put together while it is computed."""
    mesh = init_device_mesh(device.type, (world.size,))
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def whole(tensor: Tensor) -> Tensor:
    """A tensor put together from its parts, which takes all processes; one that has no parts as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def in_parts(tensor: Tensor, like: Tensor) -> Tensor:
    """The inverse of :func:`whole`: this process's part, where ``like`` is in parts."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
