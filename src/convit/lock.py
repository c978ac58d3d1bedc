"""One process at a time works in a folder. The lock is released when the process ends, in whatever way."""

import errno
import os
import platform
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from convit.errors import InputError

try:
    import fcntl
except ImportError:  # Windows: there is no such lock, so nobody is kept away
    fcntl = None  # type: ignore[assignment]

FILE = ".lock"
"""The file in the folder that is locked; it says who did it last, and stays."""
UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL}
"""What file systems say that have no locks."""
_held: set[int] = set()


@contextmanager
def locked(folder: Path, does: str, *, wait: float = 0.0) -> Iterator[int]:
    """Within it no other process works in the folder, which is made if needed; gives the descriptor of the open lock.

    A process that is forked meanwhile does not keep the lock; one that inherits the descriptor does.

    Args:
        folder: where.
        does: what this process does there, such as ``"trains"``, for the message to other processes.
        wait: seconds to wait for another process to end.

    Raises:
        InputError: another process works there.
    """
    until = time.monotonic() + wait
    while True:
        with _opened(folder) as descriptor:
            if not _taken(descriptor):
                if time.monotonic() >= until:
                    who = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "which does not say its pid"
                    raise InputError(f"another process ({who}) {does} in {folder}; expected its end, or another --out")
                time.sleep(0.2)
            elif _is_there(descriptor, folder / FILE):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"pid {os.getpid()} on {platform.node()}\n".encode())
                yield descriptor
                return


_AS_IT_IS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""A link is not followed, to a file of somebody else, and a pipe not waited for."""


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(folder / FILE, os.O_RDWR | os.O_CREAT | _AS_IT_IS, 0o666)
    except OSError as error:
        raise InputError(f"{folder / FILE}: cannot be opened ({error.strerror}); expected a file, or none") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{folder / FILE}: not a regular file; expected one, or none")
    _held.add(descriptor)
    try:
        yield descriptor
    finally:
        if descriptor in _held:  # else this is a forked process
            _held.remove(descriptor)
            os.close(descriptor)


def _taken(descriptor: int) -> bool:
    """Whether the lock is ours now; also where there are none."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    return True


def _is_there(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one of that name: who gives the folder up removes it, and its lock with it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _close_all() -> None:
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    # A process that loads images outlives a killed one by seconds, in which its run could not go on.
    os.register_at_fork(after_in_child=_close_all)
