"""Files of strangers, a thousand of them: good ones that are changed at the level of their structure, by seed.

Each is handed to the public way in. The answer is one line of refusal, or a result that is finite and right in shape;
never another exception, seconds of waiting or gigabytes. ``python -m tests.faults.fuzz SEED [COUNT]`` runs it alone.
"""

import os
import random
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from convit import InputError
from tests.faults.strangers import (
    Good,
    case_config,
    case_links,
    case_list,
    case_onnx,
    case_pickle,
    case_run,
    case_safetensors,
    case_yaml,
    check_line,
)
from tests.outside.handed_over import peak_memory

SECONDS, HANGS, MEGABYTES = 5.0, 60.0, 2000
KINDS: dict[str, tuple[Callable[[Good, Path, random.Random], None], int]] = {
    "config.json": (case_config, 5),
    ".pth": (case_pickle, 5),
    ".safetensors": (case_safetensors, 4),
    "YAML": (case_yaml, 4),
    "run folder": (case_run, 5),
    "list": (case_list, 4),
    "ONNX": (case_onnx, 5),
    "links": (case_links, 1),
}
"""What is made, and how often beside the others."""


@dataclass
class Outcome:
    """What came of all the files."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")
    megabytes: int = 0
    """By which the process has grown."""


def fuzz(good: Good, seed: int, count: int, tell: Callable[[str], object] = lambda line: None) -> Outcome:
    """Makes so many files and hands each to its way in."""
    outcome = Outcome()
    order = [name for name, (_, often) in KINDS.items() for _ in range(often)]
    before = peak_memory()
    for number in range(count):
        name = order[number % len(order)]
        place = Path(tempfile.mkdtemp(dir=good.place))
        began, used = time.monotonic(), sum(os.times()[:4])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                KINDS[name][0](good, place, random.Random(f"{seed} {number}"))
            result = "answered"
        except InputError as error:
            result = "refused"
            try:
                check_line(error)
            except AssertionError as wrong:
                outcome.faults.append(f"{seed} {number} {name}: no one line: {wrong}")
                tell(outcome.faults[-1])
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            result = "failed"
            outcome.faults.append(f"{seed} {number} {name}: {traceback.format_exc()[-3000:]}")
            tell(outcome.faults[-1])
        # Seconds of a processor, in which a machine with other work is no slower; a wait uses none.
        seconds, passed = sum(os.times()[:4]) - used, time.monotonic() - began
        if seconds > SECONDS or passed > HANGS:
            outcome.faults.append(f"{seed} {number} {name}: took {seconds:.1f} s of a processor, {passed:.1f} s in all")
            tell(outcome.faults[-1])
        outcome.slowest = max(outcome.slowest, (round(seconds, 2), f"{seed} {number} {name}"))
        outcome.counts[f"{name} {result}"] += 1
        shutil.rmtree(place, ignore_errors=True)
    outcome.megabytes = peak_memory() - before
    if outcome.megabytes > MEGABYTES:
        outcome.faults.append(f"{seed}: the process grew by {outcome.megabytes} MB")
    return outcome


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = fuzz(Good(Path(folder)), int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1000, print)
        for what, times in sorted(found.counts.items()):
            print(f"{times:5} {what}")
        print(f"slowest {found.slowest}, grew by {found.megabytes} MB, {len(found.faults)} faults")
