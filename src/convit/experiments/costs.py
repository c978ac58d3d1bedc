"""What a training step of each rival costs beside ConViT's, and the runs of equal minutes that follow from it.

A step is that of a run: forward, backward and the optimiser's step, in the run's batch and at its image sizes, on
noise; and, where no other process loads the images, the loading of a batch. The models take turns, one step each, in
many rounds; what counts is the least time of each. On a CPU it is the processor's time of this process alone. Other
work on the machine can make a step slower and never faster, and not all models alike: so there are more rounds until
the ratios stay the same, and it is said if they do not, or if other programs run.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from convit.benchmark.machine import machine_facts
from convit.benchmark.steps import wait_for
from convit.benchmark.timing import interleaved
from convit.data import ImageSet
from convit.device import pick_device
from convit.errors import InputError
from convit.events import Said, ignore
from convit.experiments.results import kept
from convit.experiments.rivals import RIVALS
from convit.experiments.settings import Settings
from convit.experiments.study import Tell, asked
from convit.options import make
from convit.training.batches import TrainingBatches
from convit.training.distributed import ALONE
from convit.training.engine import starting_model
from convit.training.learner import Learner
from convit.training.options import Asked
from convit.training.plan import Plan
from convit.training.planning import make_plan, planned
from convit.training.recipes import BY_EPOCHS

FILE = "costs.json"
"""Where an experiment keeps them."""
BASE = "convit"
LOADING = "loading"
ROUNDS, WARMUP = 10, 2
MOST = 8
"""So many times as many rounds are made at most."""
BUSY = 1.5
"""Of so many processes that wanted a processor in the last minute, on average, one at least is not this one."""
STEADY = 0.01
"""A ratio that the latest rounds changed by no more than this part of it is steady."""
Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a rival costs, and what ConViT's run is, on one fraction of the data; both of one measurement."""

    milliseconds: float
    """Of a training step, for one image, with its loading; the least of all rounds."""
    convit_milliseconds: float
    times_convit: float
    """The ratio of these two."""
    convit_epochs: int
    images: int
    """To learn from."""
    batch_size: int
    lr: float
    """The peak that the recipe gives ConViT."""
    augmentation: dict[str, Any]
    """What the recipe gives ConViT of the options in :data:`convit.training.recipes.BY_EPOCHS`."""
    machine: str
    """Where it was measured, in words."""

    @property
    def epochs(self) -> float:
        """How many take as long as ConViT's do."""
        return self.convit_epochs / self.times_convit


def whole_epochs(epochs: float) -> tuple[int, float]:
    """Epochs of a run that is to take so many, and the part of the images that each shows.

    Epochs are whole; less than one is one over a part of the images, each of which is shown once, as in the beginning
    of an epoch.

    >>> whole_epochs(10.4), whole_epochs(1.5), whole_epochs(0.25)
    ((10, 1.0), (2, 1.0), (1, 0.25))
    """
    return max(1, round(epochs)), min(1.0, epochs)


def at_equal_minutes(asked: Asked, cost: Cost, rate: float) -> Asked:
    """The options of a rival's run that takes as long as ConViT's.

    Args:
        asked: those of ConViT's run.
        cost: of the rival.
        rate: factor of the recipe's peak learning rate.
    """
    epochs, part = whole_epochs(cost.epochs)
    part = min(1.0, max(part, 2 * cost.batch_size / cost.images))  # a step or two are made
    fraction = part * (asked.fraction or 1.0)
    return replace(
        asked,
        epochs=epochs,
        fraction=None if fraction == 1 else fraction,
        batch_size=cost.batch_size,  # also of a part of the images
        lr=float(f"{cost.lr * rate:.3g}"),
        **cost.augmentation,
    )


def costs(settings: Settings, folder: Path, tell: Tell) -> dict[tuple[str, float, str], Cost]:
    """By model, fraction and rival; what the folder does not have yet is measured, on one thread, and kept in it.

    Raises:
        InputError: the file of the folder is damaged.
    """
    names = {
        f"{model}, fraction {fraction:g}: {rival}": (model, fraction, rival)
        for model in settings.models
        for fraction in settings.fractions
        for rival in settings.rows
    }

    def measure(missing: list[str]) -> dict[str, dict[str, Any]]:
        return {name: asdict(cost) for name, cost in _measured(settings, {n: names[n] for n in missing}, tell)}

    found = kept(folder / FILE, names, measure)
    try:
        return {key: Cost(**found[name]) for name, key in names.items()}
    except TypeError as error:
        raise InputError(f"{folder / FILE}: not readable ({error}); delete it to measure again") from error


def _measured(
    settings: Settings, wanted: Mapping[str, tuple[str, float, str]], tell: Tell
) -> Iterator[tuple[str, Cost]]:
    """What is wanted, by name: of each model and fraction together, with ConViT among them."""
    times: dict[tuple[object, ...], dict[str, float]] = {}  # of an equal batch they are measured once
    device = pick_device(settings.device)
    for model, fraction in dict.fromkeys((model, fraction) for model, fraction, _ in wanted.values()):
        here = {name: rival for name, (*group, rival) in wanted.items() if group == [model, fraction]}
        plans, images = _plans(asked(settings, model, settings.seeds[0], fraction), [BASE, *here.values()])
        of_convit = plans[BASE]
        same = (model, of_convit.batch_size, tuple(image_sizes(of_convit)), of_convit.options.opt, *plans)
        with _one_thread():
            machine = ", ".join(machine_facts(device).lines())
            if same not in times:
                tell(Said(f"measuring a training step of {', '.join(plans)} ({of_convit.batch_size} images)"))
                times[same] = _times(plans, images, device, tell)
        seconds = times[same]
        for name, rival in here.items():
            cost = Cost(
                milliseconds=round(1000 * seconds[rival], 4),
                convit_milliseconds=round(1000 * seconds[BASE], 4),
                times_convit=round(seconds[rival] / seconds[BASE], 4),
                convit_epochs=of_convit.epochs,
                images=of_convit.images,
                batch_size=of_convit.batch_size,
                lr=of_convit.options.lr or 0.0,
                augmentation={option: getattr(of_convit.options, option) for option in BY_EPOCHS},
                machine=machine,
            )
            yield name, cost


def _plans(of_convit: Asked, rivals: Sequence[str]) -> tuple[dict[str, Plan], ImageSet]:
    """The plan of each rival, with ConViT's number of epochs, and the images that they learn from."""
    selection, base = planned(of_convit, ignore)
    plans = {}
    for name in rivals:
        plan = make_plan(make(Asked, {**of_convit.to_dict(), **RIVALS[name].changes}), base.facts)
        other = RIVALS[name].other
        plans[name] = plan if other is None else other.plan(plan)
    return plans, selection.splits["train"]


def image_sizes(plan: Plan) -> dict[Size, float]:
    """Height and width of the images that a run learns from, and the part of its steps that have this size."""
    first = (plan.options.first_epochs or 0) / plan.epochs
    sizes = {plan.first_size: first, plan.preprocess.image_size: 1 - first}
    return {size: part for size, part in sizes.items() if part}


def _times(plans: Mapping[str, Plan], to_learn: ImageSet, device: torch.device, tell: Tell) -> dict[str, float]:
    """Seconds of a training step for one image, by rival; of several image sizes the mean over a run's steps."""
    sizes, batch_size = image_sizes(plans[BASE]), plans[BASE].batch_size
    loading = _loading(plans[BASE], to_learn, device)
    learners = {
        name: Learner(plan, starting_model(plan, RIVALS[name].other).to(device)) for name, plan in plans.items()
    }
    target = torch.arange(batch_size) % len(plans[BASE].class_names)
    images = {size: torch.randn(batch_size, 3, *size) for size in sizes}
    steps_of: dict[Size, dict[str, Callable[[], object]]] = {
        size: {LOADING: loading, **{name: partial(one.step, noise, target, 0, 0) for name, one in learners.items()}}
        for size, noise in images.items()
    }

    def least() -> dict[str, float]:
        """Of some rounds."""
        total = dict.fromkeys(plans, 0.0)
        for size, part in sizes.items():
            seconds = interleaved(
                steps_of[size],
                ROUNDS,
                warmup=WARMUP,
                wait=wait_for(device),
                clock=time.process_time if device.type == "cpu" else time.perf_counter,
            )
            for name in total:
                total[name] += part * (min(seconds[name]) + min(seconds[LOADING])) / batch_size
        return total

    busy = hasattr(os, "getloadavg") and os.getloadavg()[0] > BUSY  # some systems do not tell
    found, steady = steadily_least(least)
    if busy or not steady:
        tell(
            Said(
                "these costs were measured beside other work, which slows the models unequally: the runs are of equal "
                f"minutes only by and large. To measure again, delete {FILE} and start where nothing else runs"
            )
        )
    return found


def steadily_least(measure: Callable[[], Mapping[str, float]]) -> tuple[dict[str, float], bool]:
    """The least time of each contestant, measured until their ratios stay the same, and whether they do.

    Args:
        measure: gives the least time of each in some more rounds.

    >>> times = iter([{"a": 4.0, "b": 3.0}, {"a": 2.0, "b": 3.0}, {"a": 2.0, "b": 3.0}])
    >>> steadily_least(lambda: next(times))
    ({'a': 2.0, 'b': 3.0}, True)
    """
    found = dict(measure())
    for _ in range(MOST - 1):
        before, again = found, measure()
        found = {name: min(so_far, again[name]) for name, so_far in before.items()}
        changes = [found[name] / before[name] for name in found]
        if max(changes) <= (1 + STEADY) * min(changes):
            return found, True
    return found, False


def _loading(plan: Plan, images: ImageSet, device: torch.device) -> Callable[[], object]:
    """Loads a batch, as the process of a run does; nothing if others do that meanwhile."""
    if plan.options.workers:
        return lambda: None
    batches = TrainingBatches(plan, images.called(images.names[: plan.batch_size]), device, ALONE)
    return lambda: list(batches.of_epoch(0))


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
