"""What the tests of handed-over files share.

Each file is read as data or refused in one line that names it; nothing in it runs, and nothing large is made of it.
"""

import contextlib
import json
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MODEL, ARGS = "convit_micro_patch4_32", {"img_size": [8, 8], "patch_size": 4, "depth": 2, "local_up_to_layer": 1}


@contextlib.contextmanager
def little_memory(megabytes: int = 500) -> Iterator[None]:
    """Fails if the process has grown by more than so much within it."""
    with contextlib.suppress(OSError):  # on Linux the peak is counted anew; else what came before may hide growth
        Path("/proc/self/clear_refs").write_text("5")
    before = peak_memory()
    yield
    grown = peak_memory() - before
    assert grown < megabytes, f"took {grown} MB"


def peak_memory() -> int:
    """Megabytes that the process has taken at most."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # in units of 1024 bytes, as on Linux


def changed(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes what the config.json of a model says."""
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
