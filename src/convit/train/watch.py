"""Noticing that another process is gone, and ending together: one line for a person, no waiting for ever."""

import os
import sys
import threading
import time
from collections.abc import Callable

import torch.distributed as dist

from convit.errors import InputError
from convit.train.observer import Stopped

BEAT = 0.5
"""Seconds between two signs of life of a process."""
GONE = 20.0
"""Seconds without one after which a process counts as gone; long, for a machine that is short of memory."""
SILENT = 5.0
"""The same, where a connection broke: then some process is gone for sure."""
GRACE = 3.0
"""Seconds that the others leave to the one that speaks: launchers end all processes when the first has ended."""


class Watch:
    """Knows whether the other processes of a run live.

    Each counts up a number in the store they share. One whose number stands still is gone: by a kill, or its machine is
    down. Collective operations over NCCL would wait for it for hours; over gloo they fail at once, and say no more than
    that a connection is closed. What ends the run is said by one process, the first to write its name into the store.

    Args:
        store: shared by the processes.
        rank: which this is.
        size: how many there are.
    """

    def __init__(self, store: dist.Store, rank: int, size: int) -> None:
        self.store, self.rank, self.size = store, rank, size
        self.newest: Callable[[], str] = lambda: "no state is saved yet"
        """Says what there is to go on from."""
        self._left = False
        self._beats: dict[int, tuple[bytes, float]] = {}  # the last number, and when it was new
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(store.clone(),), daemon=True)
        store.set(f"beat/{rank}", "0")
        self._thread.start()

    def stop(self) -> None:
        """Ends the watch, before the processes part."""
        self._done.set()
        self._thread.join()

    def leave(self, error: BaseException) -> None:
        """Called with what ends this process; the others then end too.

        Raises:
            SystemExit: another process says what happened.
        """
        if self._left:
            return
        self._left = True
        if isinstance(error, Stopped):  # all of them are
            self.stop()
            if self.rank != 0:
                time.sleep(GRACE)
                raise SystemExit(128 + error.signum)
        elif _is_broken_connection(error):
            self._find_who_is_gone()
        else:
            self._leave_to_the_first(_status(error))

    def _leave_to_the_first(self, status: int) -> None:
        """Returns on the first process that ends, when the others can know it; they leave quietly."""
        own = f"{self.rank} {status}"
        try:
            first = self.store.compare_set("end", "", own).decode()
        except RuntimeError:  # the store is gone with the first
            first = "store"
        if first != own:
            time.sleep(GRACE)
            raise SystemExit(status)
        time.sleep(2 * BEAT)  # the store may be in this process

    def _find_who_is_gone(self) -> None:
        """Waits for the signs of life to tell; raises SystemExit."""
        until = time.monotonic() + GONE
        while time.monotonic() < until:
            time.sleep(BEAT / 4)
            for rank, (_, since) in list(self._beats.items()):
                if time.monotonic() - since > SILENT:
                    raise SystemExit(self._tell_gone(rank))
        raise SystemExit(self._tell_gone(None))

    def _run(self, store: dist.Store) -> None:
        """Gives and reads signs of life until the end; ends the process itself where its main thread hangs."""
        others = [rank for rank in range(self.size) if rank != self.rank]
        count = 0
        while not self._done.wait(BEAT):
            count += 1
            try:
                store.set(f"beat/{self.rank}", str(count))
                ended = store.get("end").decode() if store.check(["end"]) else None
                numbers = store.multi_get([f"beat/{rank}" for rank in others])
            except RuntimeError:
                self._exit(self._tell_gone(None))
            now = time.monotonic()
            for rank, number in zip(others, numbers, strict=True):
                if rank not in self._beats or self._beats[rank][0] != number:
                    self._beats[rank] = number, now
            if ended is not None and int(ended.split()[0]) != self.rank:
                time.sleep(GRACE)
                self._exit(int(ended.split()[1]))
            silent = [rank for rank, (_, since) in self._beats.items() if now - since > GONE]
            if silent and ended is None:
                self._exit(self._tell_gone(silent[0]))

    def _exit(self, status: int) -> None:
        if not self._done.is_set():
            os._exit(status)  # the main thread waits in a collective operation, which nothing else interrupts

    def _tell_gone(self, rank: int | None) -> int:
        """Says so, on one process; returns the exit status."""
        own = f"{self.rank} 1"
        try:
            first = self.store.compare_set("end", "", own).decode()
        except RuntimeError:  # it was in the process that is gone
            first = own
        if first != own:
            time.sleep(GRACE)
            return int(first.split()[1])
        who = "another process" if rank is None else f"process {rank}"
        print(
            f"convit train: {who} of {self.size} is gone (killed, or its machine is down); {self.newest()}; "
            "continue with --resume",
            file=sys.stderr,
            flush=True,
        )
        return 1


def _status(error: BaseException) -> int:
    """The exit status that the command line gives an error."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 2 if isinstance(error, InputError | OSError) else 1


def _is_broken_connection(error: BaseException) -> bool:
    if not isinstance(error, RuntimeError):
        return False
    said = str(error).lower()
    return isinstance(error, dist.DistError) or any(word in said for word in ("gloo", "nccl", "closed by peer"))
