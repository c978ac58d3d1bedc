"""Processes that load images: how they are started and ended."""

import contextlib
import multiprocessing
import multiprocessing.queues
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from convit.errors import InputError

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

LEFT_TO_THE_LOOP = (signal.SIGINT, signal.SIGTERM)


def make_loader(dataset: Any, workers: int, *, beside_another: bool = False, **options: Any) -> DataLoader[Any]:
    """A loader whose processes leave signals to the loop, which ends them with :func:`end_workers`.

    Ctrl-C, ``timeout`` and schedulers signal every process of a group. A loader process that died of it would take
    the loop along before it has saved its state.

    Args:
        dataset: of the images.
        workers: processes; none for 0.
        beside_another: another loader of as many processes will be used before this one ends.
        options: of the DataLoader.

    Raises:
        InputError: this machine does not give so many processes what they need.
    """
    if workers:
        _check_room(workers, *(FILES_BESIDE_ANOTHER if beside_another else FILES))
    return DataLoader(
        dataset, num_workers=workers, persistent_workers=workers > 0, worker_init_fn=_begin_worker, **options
    )


FILES, FILES_BESIDE_ANOTHER = (8, 8), (12, 32)
"""Open files for each process (its pipes, and the batches that wait), and for all else; measured."""


def _check_room(workers: int, files: int, others: int) -> None:
    """Whether processes can hand over images here: short of open files they wait for each other for ever.

    Raises:
        InputError: they cannot, or not so many, with ``files`` open for each (pipes, waiting batches), and ``others``.
    """
    try:
        _ = [multiprocessing.get_context().Lock() for _ in range(3 * workers + 9)]  # as many as their queues have
    except OSError as error:
        raise InputError(
            f"workers: got {workers}, but processes share no memory here (/dev/shm: {error.strerror}); expected "
            "--workers 0, or a /dev/shm with room that can be written to"
        ) from error
    if resource is None:
        return
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    room = max(0, limit - len(os.listdir("/dev/fd")) - others)
    if limit != resource.RLIM_INFINITY and room < workers * files:
        raise InputError(
            f"workers: got {workers}, which takes about {workers * files} open files, and there is room for {room} "
            f"(ulimit -n {limit}); expected --workers {room // files}, or a higher ulimit -n"
        )


class WorkerDied(InputError):
    """A loader process was killed, or cannot hand over what it loaded: for want of memory as a rule."""


def batches(loader: DataLoader[Any]) -> Iterator[Any]:
    """The loader's batches.

    Raises:
        WorkerDied: a process of it is gone, or has no room to hand over images. That is noticed between two batches,
            never in the middle of a step.
    """
    try:
        iterator = _started(loader)
        _drop_handler_of_dead_workers()
        yield from iterator
    except (RuntimeError, ConnectionError, EOFError) as error:
        told = str(error)
        if loader.num_workers and (lack := next((lack for lack in _LACKS if lack in told), None)):
            raise WorkerDied(f"the processes that load images have {_LACKS[lack]}; try --workers 0") from error
        if "Caught" in told or (isinstance(error, RuntimeError) and "DataLoader worker" not in told):
            raise  # what a process met while it loaded an image, or something else
        raise WorkerDied(
            "a process that loads images died (killed for want of memory, or no room in /dev/shm?); try --workers 0"
        ) from error


_LACKS = {
    "shared memory": "no room in /dev/shm to hand them over",
    "Too many open files": "too many open files",
    "File too large": "a limit on the size of files (ulimit -f) below that of a batch",
}
"""What is said for what PyTorch says."""


def _started(loader: DataLoader[Any]) -> Iterator[Any]:
    try:
        with _held_signals():
            return iter(loader)
    except OSError as error:
        raise WorkerDied(
            f"the processes that load images cannot be started ({error.strerror}); try --workers 0"
        ) from error


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


def _begin_worker(_: int) -> None:
    """In a process that loads: signals are the loop's, and a batch that cannot be handed over ends the process. Python
    would print the error and go on without that batch, for which the loop would wait for ever."""
    for number in LEFT_TO_THE_LOOP:
        signal.signal(number, signal.SIG_IGN)
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(  # type: ignore[attr-defined]
        lambda error, batch: os._exit(1)
    )
