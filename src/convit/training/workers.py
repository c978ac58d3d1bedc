"""Processes that load images: how they are started and ended."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from convit.errors import InputError

LEFT_TO_THE_LOOP = (signal.SIGINT, signal.SIGTERM)


def make_loader(dataset: Any, workers: int, **options: Any) -> DataLoader[Any]:
    """A loader whose processes leave signals to the loop, which ends them with :func:`end_workers`.

    Ctrl-C, ``timeout`` and schedulers signal every process of a group. A loader process that died of it would take
    the loop along before it has saved its state.
    """
    return DataLoader(
        dataset, num_workers=workers, persistent_workers=workers > 0, worker_init_fn=_ignore_signals, **options
    )


class WorkerDied(InputError):
    """A loader process was killed, for want of memory as a rule."""


def batches(loader: DataLoader[Any]) -> Iterator[Any]:
    """The loader's batches.

    Raises:
        WorkerDied: a process of it is gone. That is noticed between two batches, never in the middle of a step.
    """
    try:
        with _held_signals():
            iterator = iter(loader)
        _drop_handler_of_dead_workers()
        yield from iterator
    except (RuntimeError, ConnectionError, EOFError) as error:
        told = str(error)
        if "Caught" in told or (isinstance(error, RuntimeError) and "DataLoader worker" not in told):
            raise  # what a process met while it loaded an image, or something else
        raise WorkerDied("a process that loads images died (killed for want of memory?)") from error


@contextlib.contextmanager
def _held_signals() -> Iterator[None]:
    """Processes that are started within it never see a signal: until they ignore it, it waits; here, to the end."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, LEFT_TO_THE_LOOP)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _drop_handler_of_dead_workers() -> None:
    """PyTorch's handler of SIGCHLD raises wherever the loop is, half-way through an update too."""
    if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
        handler = signal.getsignal(signal.SIGCHLD)
        if str(getattr(handler, "__module__", "")).startswith("torch."):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def end_workers(loader: DataLoader[Any]) -> None:
    """Ends the loader's processes now. At the interpreter's exit they would be sent SIGTERM, and waited for forever."""
    iterator = loader._iterator  # there is no public way; Lightning takes this one too
    if iterator is not None and loader.num_workers > 0:
        iterator._shutdown_workers()  # type: ignore[attr-defined]
        loader._iterator = None


def _ignore_signals(_: int) -> None:
    for number in LEFT_TO_THE_LOOP:
        signal.signal(number, signal.SIG_IGN)
