"""Runs of several processes as a launcher starts them, but sooner: they are forked from one that has imported."""

import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from convit.training import watch

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.training.processes", "convit.cli.train", "torch.nn.parallel.distributed"])


class Launched:
    """Processes that run ``work(rank, *arguments)`` in the environment that torchrun makes.

    Args:
        log: a folder for what they say.
        size: how many.
        work: a function of a module; it returns the exit status or None.
        arguments: of ``work``.
    """

    def __init__(self, log: Path, size: int, work: Callable[..., Any], *arguments: Any) -> None:
        self.log = log
        log.mkdir(parents=True)
        self.store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        port = self.store.port
        self.processes: list[BaseProcess] = [
            CONTEXT.Process(target=_rank, args=(rank, size, port, log, work, arguments)) for rank in range(size)
        ]
        for process in self.processes:
            process.start()

    def wait(self, timeout: float = 300) -> list[int | None]:
        """The exit statuses; -n for one that signal n ended."""
        for process in self.processes:
            process.join(timeout)
        alive = [process for process in self.processes if process.is_alive()]
        for process in alive:
            process.kill()
        assert not alive, f"{len(alive)} of {len(self.processes)} still run after {timeout} s: {self.err}"
        return [process.exitcode for process in self.processes]

    @property
    def err(self) -> list[str]:
        """What each said on standard error."""
        return self._said("err")

    @property
    def out(self) -> list[str]:
        """What each said on standard output."""
        return self._said("out")

    def _said(self, stream: str) -> list[str]:
        """What each said on a stream, without the lines in which PyTorch 2.10 tells of its connections."""
        files = [self.log / f"{rank}.{stream}" for rank in range(len(self.processes))]
        lines = [file.read_text().splitlines(keepends=True) for file in files]
        return ["".join(line for line in said if not line.startswith("[Gloo] ")) for said in lines]


def _rank(rank: int, size: int, port: int, log: Path, work: Callable[..., Any], arguments: Sequence[Any]) -> None:
    for stream, name in ((sys.stdout, "out"), (sys.stderr, "err")):
        descriptor = os.open(log / f"{rank}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, stream.fileno())
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"  # as with torchrun, the store outlives the processes
    where = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port, "MASTER_ADDR": "127.0.0.1"}
    os.environ.update({key: str(value) for key, value in where.items()})
    torch.set_num_threads(1)
    watch.BEAT, watch.SILENT, watch.GRACE = 0.2, 2.0, 1.0  # nobody reads along
    sys.exit(work(rank, *arguments))


def command(rank: int, *arguments: str) -> int:
    """``convit ...``, with empty pictures."""
    import convit_launcher
    from convit.training import plots

    for name in ("curves", "gates", "confusion", "mistakes"):
        if hasattr(plots, name):
            setattr(plots, name, lambda _what, path, **_: path.touch())
    sys.argv = ["convit", *arguments]
    return convit_launcher.main()
