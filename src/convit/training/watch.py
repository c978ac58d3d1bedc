"""Detects that another process is gone, and ends all processes, with one line of message."""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

import torch.distributed as dist

from convit.errors import InputError
from convit.files import printable
from convit.training.stopping import Stopped

BEAT = 0.5
"""Seconds between two heartbeats of a process."""
GONE = 20.0
"""Seconds without one after which a process counts as gone; long, for a machine that is short of memory."""
SILENT = 5.0
"""The same, where a connection broke: then some process is gone for sure."""
GRACE = 3.0
"""Seconds that the others wait for the process that prints: launchers end all processes when the first has ended."""


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
        self._broken = float("inf")  # when a connection broke
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
            status, speaks = 128 + error.signum, self.rank == 0
        elif _is_broken_connection(error):
            self._broken = time.monotonic()
            self._thread.join()  # it finds out who is gone, and ends this process
            return
        else:
            known = 2 if isinstance(error, InputError | OSError) else 1
            status = 130 if isinstance(error, KeyboardInterrupt) else known  # as the command line's
            speaks = self._first(self.store, status, otherwise="the store is gone with the first") is None
            time.sleep(2 * BEAT if speaks else 0)  # the store may be in this process
        if not speaks:
            time.sleep(GRACE)
            raise SystemExit(status)

    def _first(self, store: dist.Store, status: int, otherwise: str | None = None) -> str | None:
        """Writes that this process ends the run; None, or what another one wrote before (its rank and status)."""
        own = f"{self.rank} {status}"
        try:
            first = store.compare_set("end", "", own).decode()
        except RuntimeError:
            return otherwise
        return None if first == own else first

    def _run(self, store: dist.Store) -> None:
        """Gives and reads signs of life until the end; ends the process where its main thread hangs or waits for it."""
        others = [rank for rank in range(self.size) if rank != self.rank]
        beats: dict[int, tuple[bytes, float]] = {}  # the last number, and when it was new
        count = 0
        while not self._done.wait(BEAT):
            count += 1
            try:
                store.set(f"beat/{self.rank}", str(count))
                ended = store.get("end").decode() if store.check(["end"]) else None
                numbers = store.multi_get([f"beat/{rank}" for rank in others])
            except RuntimeError:  # it was in the process that is gone
                self._tell_gone(store, None)
            now = time.monotonic()
            for rank, number in zip(others, numbers, strict=True):
                if rank not in beats or beats[rank][0] != number:
                    beats[rank] = number, now
            if ended is not None and int(ended.split()[0]) != self.rank:
                self._exit(int(ended.split()[1]), GRACE)
            patience = SILENT if self._broken < now else GONE
            silent = [rank for rank, (_, since) in beats.items() if now - since > patience]
            if ended is None and (silent or now - self._broken > GONE):
                self._tell_gone(store, silent[0] if silent else None)

    def _tell_gone(self, store: dist.Store, rank: int | None) -> NoReturn:
        """Says so, on one process, and ends this one."""
        if first := self._first(store, 1):
            self._exit(int(first.split()[1]), GRACE)
        who = "another process" if rank is None else f"process {rank}"
        if not self._done.is_set():
            logging.getLogger(__name__).critical(
                "convit train: %s of %d is gone (killed, or its machine is down); %s",
                who,
                self.size,
                printable(self.newest()),
            )
        self._exit(1)

    def _exit(self, status: int, grace: float = 0.0) -> NoReturn:
        """Ends the process from here: the main thread waits in a collective operation, which nothing interrupts."""
        time.sleep(grace)
        if self._done.is_set():  # it came to its end meanwhile
            raise SystemExit  # of this thread
        sys.stdout.flush()
        os._exit(status)


def _is_broken_connection(error: BaseException) -> bool:
    if not isinstance(error, RuntimeError):
        return False
    said = str(error).lower()
    return isinstance(error, dist.DistError) or any(word in said for word in ("gloo", "nccl", "closed by peer"))
