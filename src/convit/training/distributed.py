"""More than one process: the rank of this one, the exchange of values, and the common end.

``torchrun`` and ``accelerate launch`` start the same command several times, and say in the environment which of them
each is (``RANK``, ``LOCAL_RANK``, ``WORLD_SIZE``, ``MASTER_ADDR``, ``MASTER_PORT``). Each has its rows of every batch
(:func:`convit.data.share_of_batch`); only process 0 writes files and prints.
"""

import datetime
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from convit.data import share_of_batch
from convit.device import pick_device
from convit.errors import InputError
from convit.training.watch import Watch

T = TypeVar("T")

TIMEOUT = datetime.timedelta(hours=2)
"""How long a process waits for another that is alive: process 0 saves and measures while the others wait. One that is
gone is noticed by :class:`convit.training.watch.Watch`, within a minute."""


class World:
    """The processes of a run, seen from one of them. A run of one process exchanges nothing.

    Args:
        rank: which this is, from 0.
        size: how many there are.
        local_rank: which this is on its machine, from 0.
        watch: sees whether the others live; None for a run of one.

    >>> world = World()
    >>> world.main, world.gather(3.0), world.sum(torch.tensor([2, 5]))
    (True, [[3.0]], tensor([2, 5]))
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0, watch: Watch | None = None) -> None:
        self.rank, self.size, self.local_rank, self.watch = rank, size, local_rank, watch

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    def gather(self, *values: float) -> list[list[float]]:
        """The values of every process, in the order of their ranks; the same on all of them. All have to call it."""
        if self.size == 1:
            return [list(values)]
        own = torch.tensor(values, dtype=torch.float64)
        every = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(every, own)
        return [row.tolist() for row in every]

    def barrier(self) -> None:
        """Waits until all processes are here."""
        self.gather(0.0)

    def any(self, flag: bool) -> bool:
        """Whether it holds on any process."""
        return any(row[0] for row in self.gather(float(flag)))

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor on the CPU over the processes, in its own type."""
        if self.size > 1:
            tensor = tensor.clone()
            dist.all_reduce(tensor)
        return tensor

    def from_main(self, make: Callable[[], T]) -> T:
        """What ``make`` gives on process 0, on every process."""
        if self.size == 1:
            return make()
        made: list[T | None] = [make() if self.main else None]
        dist.broadcast_object_list(made, src=0, device=torch.device("cpu"))
        return made[0]  # type: ignore[return-value]

    def in_turn(self, make: Callable[[], T]) -> T:
        """What ``make`` gives on this process; first on process 0, then on one of every machine, then on the others.

        So a data set is downloaded once, not by all at the same time.
        """
        turn = 0 if self.main else 1 if self.local_rank == 0 else 2
        for now in range(3 if self.size > 1 else 1):
            if now == turn:
                made = make()
            self.barrier()
        return made

    def check_same(self, what: str, value: object) -> None:
        """Refuses to go on where ``value``, of JSON types, is another one here than on process 0."""
        if value != self.from_main(lambda: value):
            raise InputError(f"process {self.rank} of {self.size}: other {what} than process 0; expected the same")

    def rows(self, batch_size: int, rank: int | None = None) -> Tensor:
        """(batch_size / size,) int64: the rows of a global batch that a process has; this one by default."""
        return torch.from_numpy(share_of_batch(batch_size, self.rank if rank is None else rank, self.size))

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Within it a process that fails ends the others too: one prints the reason, all exit with the same status."""
        try:
            yield
        except SystemExit:
            raise
        except BaseException as error:
            if self.watch is not None:
                self.watch.leave(error)
            raise


ALONE = World()
"""A run of one process."""


@contextmanager
def join(device: str) -> Iterator[World]:
    """Within it the processes that a launcher started are connected; without a launcher it is a run of one.

    Args:
        device: as of ``--device``; of several GPUs each process of a machine takes its own.

    Raises:
        InputError: more processes than GPUs, or no connection. Where one process fails or is stopped, its error leaves
            it, and the others leave by ``SystemExit`` with the same status.
    """
    size = _number("WORLD_SIZE", 1)
    if size == 1:
        yield ALONE
        return
    rank, local_rank = _number("RANK"), _number("LOCAL_RANK")
    chosen = pick_device(device)
    if chosen.type == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise InputError(
                f"device: got process {local_rank + 1} of this machine, which has {torch.cuda.device_count()} GPUs; "
                "expected a GPU for each: fewer processes, or --device cpu"
            )
        torch.cuda.set_device(local_rank)
    try:
        store, _, _ = next(rendezvous("env://", rank, size, timeout=datetime.timedelta(minutes=5)))
        backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
        dist.init_process_group(
            backend, store=dist.PrefixStore("group", store), rank=rank, world_size=size, timeout=TIMEOUT
        )
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"process {rank} of {size}: no connection ({' '.join(str(error).split())[:200]}); expected all processes "
            "to be started, by torchrun or accelerate launch, with a free MASTER_PORT"
        ) from error
    watch = Watch(dist.PrefixStore("watch", store), rank, size)
    world = World(rank, size, local_rank, watch)
    with world.guard():
        yield world
        world.barrier()
    watch.stop()
    world.barrier()  # the store may live in process 0
    dist.destroy_process_group()


def _number(name: str, default: int | None = None) -> int:
    text = os.environ.get(name, "" if default is None else str(default))
    if not text.isdecimal():
        raise InputError(f"{name}: got {text!r} in the environment, expected the number that torchrun sets")
    return int(text)
