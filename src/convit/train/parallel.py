"""A model on several processes: each has a share of every batch, and the whole model (DDP) or a part of it (FSDP2)."""

from typing import Literal

import torch
from timm.layers import DropPath
from timm.layers.drop import drop_path
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from convit.errors import InputError
from convit.models import ConViT
from convit.train.config import OptimConfig
from convit.train.distributed import World

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


def check_divisible(model: nn.Module) -> None:
    """Refuses a model whose step in parts, one after the other or in several processes, is not the undivided one.

    Raises:
        InputError: batch norm.
    """
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        raise InputError(
            "model: got batch norm in it, whose statistics would be those of a part of each step's images; expected "
            "--norm layer, or one process without --accumulate"
        )


def check_parallel(parallel: Parallel, options: OptimConfig) -> None:
    """Refuses options that FSDP does not go with.

    Raises:
        InputError: got such.
    """
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
