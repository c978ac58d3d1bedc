"""Times of all contestants of a case, interleaved: a slow moment of the machine hits them alike."""

import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from convit.benchmark.cases import Case
from convit.benchmark.memory import peak_memory
from convit.benchmark.report import Measured, Result
from convit.benchmark.steps import CannotMeasureError, Step, build, cannot_measure, make_step, random_images, wait_for
from convit.choices import RIVALS, Rival
from convit.events import Advanced, Listener, PassBegan, Said, ignore

SAMPLE = 0.05
"""Seconds that a sample of the slowest contestant lasts at least: shorter steps are timed several in a row."""
ROUNDS = (7, 200)
"""Fewest and most rounds of a case where none are given."""


def interleaved(
    steps: Mapping[str, Step],
    rounds: int,
    *,
    warmup: int = 1,
    repeats: int = 1,
    wait: Callable[[], None] = lambda: None,
    on_sample: Callable[[], None] = lambda: None,
    clock: Callable[[], float] | None = None,
) -> dict[str, list[float]]:
    """Seconds of every step in every round, in which each runs once, every round another one first.

    Args:
        steps: by name.
        rounds: how many count.
        warmup: how many before them do not.
        repeats: how often a step runs in a row; the time is their mean.
        wait: returns when the device is done.
        on_sample: called after each, outside of its time.
        clock: gives seconds [``time.perf_counter``]; ``time.process_time`` counts those of this process alone.

    Example:
        >>> seconds = interleaved({"sum": lambda: sum(range(9)), "nothing": lambda: None}, rounds=3)
        >>> [len(times) for times in seconds.values()]
        [3, 3]
    """
    clock = clock or time.perf_counter
    names = list(steps)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(warmup + rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            start = clock()
            for _ in range(repeats):
                steps[name]()
            wait()
            if number >= warmup:
                seconds[name].append((clock() - start) / repeats)
            on_sample()
    return seconds


def measure(
    cases: Sequence[Case],
    *,
    device: torch.device,
    rivals: Sequence[Rival] = RIVALS,
    rounds: int | None = None,
    seconds: float = 30.0,
    exported: Callable[[Tensor], Tensor] | None = None,
    tell: Listener = ignore,
) -> tuple[Measured, ...]:
    """Measures the cases one after the other.

    Memory comes first: a contestant that runs out of it, where only a process of its own dies, is not timed.

    Args:
        cases: what to measure.
        device: where.
        rivals: who stands beside our model.
        rounds: how many count in each case [as many as fit in ``seconds``, 7 to 200].
        seconds: how long the rounds of a case may take, about.
        exported: an exported file as a function; it takes part where forward passes in fp32 are timed, eager.
        tell: is told how it goes.
    """
    out = []
    for number, case in enumerate(cases, 1):
        tell(Said(f"{number} of {len(cases)}: {case.title}"))
        results = {who: Result(who=who) for who in case.contestants(rivals)}
        if exported is not None and case.timed and (case.mode, case.precision) == ("forward", "fp32"):
            results |= {} if case.compiled else {"onnx": Result(who="onnx")}
        if case.memory:
            results |= _peaks(case, [who for who in results if who != "onnx"], device, tell)
        repeats = 1
        if case.timed:
            able = [who for who, result in results.items() if result.error is None]
            times, repeats = _times(case, able, device, rounds, seconds, exported, tell)
            for who, timed in times.items():
                results[who] = replace(timed, peak_bytes=results[who].peak_bytes)
        out.append(Measured(case=case, results=tuple(results.values()), steps_per_sample=repeats))
    return tuple(out)


def _peaks(case: Case, who: Sequence[str], device: torch.device, tell: Listener) -> dict[str, Result]:
    """Peak memory of every contestant, or why there is none."""
    peaks = {}
    tell(PassBegan("peak memory", 2 * case.batch_size * len(who)))
    for name in who:
        try:
            peaks[name] = Result(who=name, peak_bytes=peak_memory(case, name, device))
        except CannotMeasureError as error:
            peaks[name] = Result(who=name, error=str(error))
        tell(Advanced(2 * case.batch_size))
    return peaks


def _times(
    case: Case,
    who: Sequence[str],
    device: torch.device,
    rounds: int | None,
    budget: float,
    exported: Callable[[Tensor], Tensor] | None,
    tell: Listener,
) -> tuple[dict[str, Result], int]:
    """Times of every contestant, or why there are none; and how many steps make a sample."""
    torch._dynamo.reset()  # it compiles one function for only so many models
    _free(device)
    results: dict[str, Result] = {}
    steps: dict[str, Step] = {}
    once: dict[str, float] = {}
    images, wait = random_images(case, device), wait_for(device)
    tell(PassBegan("warming up", 2 * case.batch_size * len(who)))
    for name in who:
        try:
            with cannot_measure():
                step = partial(exported, images) if name == "onnx" and exported else _step(case, name, images)
                once |= {name: interleaved({name: step}, 1, wait=wait)[name][0]}
                steps[name] = step
        except CannotMeasureError as error:
            results[name] = Result(who=name, error=str(error))
            _free(device)
        tell(Advanced(2 * case.batch_size))
    if not steps:
        return results, 1
    repeats = math.ceil(SAMPLE / max(once.values()))
    fitting = int(budget / (repeats * sum(once.values())))
    rounds = rounds or min(max(fitting, ROUNDS[0]), ROUNDS[1])
    images_each = repeats * case.batch_size
    tell(PassBegan("measuring", rounds * len(steps) * images_each))
    try:
        with cannot_measure():
            taken = interleaved(
                steps, rounds, warmup=0, repeats=repeats, wait=wait, on_sample=lambda: tell(Advanced(images_each))
            )
    except CannotMeasureError as error:  # all of them together are too much
        return results | {name: Result(who=name, error=str(error)) for name in steps}, repeats
    return results | {name: Result(who=name, seconds=tuple(times)) for name, times in taken.items()}, repeats


def _step(case: Case, who: str, images: Tensor) -> Step:
    return make_step(case, build(case, who).to(images.device), images)


def _free(device: torch.device) -> None:
    """Gives back what earlier models held."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
