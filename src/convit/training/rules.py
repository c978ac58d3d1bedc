"""The rules between options, one row each: its condition and its error message.

A rule of one option alone (its type, its range) is at its field. These rules are about several options, or about an
option and the data. Each row is checked once: the first ones on the config, as soon as it is read, the others on the
plan. So they hold for the command line, YAML and Python. Imports nothing heavy.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from convit.errors import InputError
from convit.files import absolute

Given = Mapping[str, Any]
"""The options that were asked for, by name: those that are not as they are by default."""


def _first(names: Iterable[str], given: Given) -> str | None:
    """The first of the options that was asked for, as messages have it."""
    return next((name.replace("_", "-") for name in names if given.get(name) is not None), None)


def _both(first: str, second: str) -> tuple[Callable[[Given], bool], str]:
    words = " and ".join(name.replace("_", "-") for name in (first, second))
    return lambda given: first in given and second in given, f"{words}: got both, expected one of them"


FROM_SCRATCH = (
    *("locality_strength", "heads", "stem", "norm", "gate_init", "weight_init", "ungated", "random_init"),
    "position_embedding",
)
OF_GPSA = ("gate_init", "ungated", "random_init", "freeze_gates", "freeze_gpsa")
OF_DISTILLATION = ("distillation", "distillation_alpha", "distillation_temperature")


def _from_weights(given: Given) -> bool:
    return "pretrained" in given or "weights" in given


def _of_no_gpsa(plan: Any) -> str | None:
    """An option about GPSA, where the model has none."""
    moved = "position-lr" if plan.options.position_lr != 1.0 else None
    return (_first(OF_GPSA, plan.given) or moved) if plan.options.local_up_to_layer == 0 else None


def _wrong_first_size(plan: Any) -> str | None:
    """A first size that the patch does not divide, or beyond the image size; and what would do."""
    first, last = (tuple(sides * 2)[:2] for sides in (plan.options.first_size, plan.options.image_size))
    patch = plan.options.patch_size
    if not any(side % patch for side in first) and all(a <= b for a, b in zip(first, last, strict=True)):
        return None
    fit = [max(patch, min(a, b) // patch * patch) for a, b in zip(first, last, strict=True)]
    words = " x ".join(map(str, first))
    return f"{words}, expected multiples of the patch size {patch} up to the image size, such as {fit[0]} x {fit[1]}"


def _above_lr(plan: Any) -> str | None:
    """A learning rate at the end or at the beginning that is above the peak: the schedule would not be what it says."""
    options = plan.options
    above = (name for name in ("min_lr", "warmup_lr") if getattr(options, name) > options.lr)
    return next((name.replace("_", "-") for name in above), None)


def _near_multiples(batch: int, of: int) -> str:
    below = f"{batch // of * of} or " if batch > of else ""
    return f"{below}{(batch // of + 1) * of}"


def _among_images(plan: Any) -> Path | None:
    """A run folder among the images would be taken for a class next time, images in a run folder could be replaced."""
    assert plan.options.out is not None
    run, data = absolute(plan.options.out), Path(plan.facts.root)
    places = [data, *(absolute(data / folder) for folder in plan.options.split_folders.values())]
    if not data.is_absolute():
        return None
    return next((place for place in places if run.is_relative_to(place) or place.is_relative_to(run)), None)


def _would_delete(plan: Any) -> Path | None:
    """What the run starts from, or learns from, where ``--overwrite`` would delete it."""
    if not plan.given.get("overwrite"):
        return None
    assert plan.options.out is not None
    run = absolute(plan.options.out)
    places = [place for place in (plan.options.weights, plan.options.teacher_weights) if place is not None]
    return next((p for p in places if run.is_relative_to(absolute(p)) or absolute(p).is_relative_to(run)), None)


# Of each row: to what breaks the rule, shown as {found}, or to nothing; and the message, in which {NAME} is an option
# that was asked for.
RULES_OF_ASKED: tuple[tuple[Callable[[Given], object], str], ...] = (
    _both("fraction", "per_class"),
    _both("pretrained", "weights"),
    _both("folds", "val"),
    _both("folds", "val_fraction"),
    _both("ungated", "freeze_gates"),
    _both("ungated", "gate_init"),
    _both("freeze_gates", "gate_init"),
    _both("overwrite", "resume"),
    _both("epochs", "minutes"),
    (
        lambda given: given.get("first_epochs") and _first(("teacher", "teacher_weights"), given),
        "first-epochs: got {first_epochs} with a {found}, which may know images of one size only; expected 0",
    ),
    (
        lambda given: "fold" in given and given["fold"] > given.get("folds", 0),
        "fold: got {fold}, expected --folds K too, and one of these, from 1 to K",
    ),
    (
        lambda given: "train" not in given and _first(("val", "test"), given),
        "{found}: got it without --train, expected --train DIR too (--train . if the class folders are right in DATA)",
    ),
    (
        lambda given: "freeze" in given and not _from_weights(given),
        "freeze: got {freeze} for a start from scratch, expected --pretrained or --weights too",
    ),
    (
        lambda given: _from_weights(given) and _first(FROM_SCRATCH, given),
        "{found}: got it with --pretrained or --weights, expected a start from scratch",
    ),
    (
        lambda given: "teacher" not in given and "teacher_weights" not in given and _first(OF_DISTILLATION, given),
        "{found}: got it without a teacher, expected --teacher or --teacher-weights",
    ),
    (
        lambda given: "distillation_temperature" in given and given.get("distillation") != "soft",
        "distillation-temperature: got {distillation_temperature:g} with hard distillation, which has none; expected "
        "--distillation soft",
    ),
    (
        lambda given: "freeze_gpsa" in given and given.get("position_lr", 1.0) != 1.0,
        "freeze-gpsa and position-lr: got both, expected one of them: nothing of it learns",
    ),
)
# The same from the plan and the number of processes; in a message {o.NAME} is an option of the plan, {p.NAME} is of the
# plan itself, {n} the number of processes.
RULES_OF_PLANS: tuple[tuple[Callable[[Any, int], object], str], ...] = (
    (
        lambda p, n: p.options.freeze > p.blocks,
        "freeze: got {o.freeze}, expected at most the {p.blocks} blocks of the model",
    ),
    (lambda p, n: _of_no_gpsa(p), "{found}: got it for a model without GPSA, expected one with some"),
    (
        lambda p, n: p.batch_size > p.images,
        "batch-size: got {o.batch_size}, expected at most the {p.images} training images",
    ),
    (
        lambda p, n: p.steps_per_epoch < 1,
        "repeated-augmentation: got {o.repeated_augmentation}, with which an epoch of {p.images} training images has "
        "less than a step of {o.batch_size}; expected a lower one, or a lower --batch-size",
    ),
    (
        lambda p, n: n > 1 and p.batch_size % (2 * n) and _near_multiples(p.batch_size, 2 * n),
        "batch-size: got {o.batch_size} for {n} processes, expected a multiple of twice their number (each takes pairs "
        "of images): {found}",
    ),
    (
        lambda p, n: p.options.accumulate > p.batch_size // n and str(p.batch_size // n),
        "accumulate: got {o.accumulate}, expected at most the {found} images that a process has of a step",
    ),
    (
        lambda p, n: p.options.accumulate > 1 and p.model_args.get("batch_norm"),
        "accumulate: got {o.accumulate} for a model with batch norm, whose statistics would be those of a part of each "
        "step's images; expected a step in one piece, or --norm layer",
    ),
    (
        lambda p, n: p.options.warmup_epochs > p.epochs,
        "warmup-epochs: got {o.warmup_epochs:g}, expected at most the {o.epochs} epochs",
    ),
    (
        lambda p, n: p.options.first_epochs > p.epochs,
        "first-epochs: got {o.first_epochs}, expected at most the {o.epochs} epochs",
    ),
    (lambda p, n: _wrong_first_size(p), "first-size: got {found}"),
    (
        lambda p, n: not p.options.first_epochs and p.first_size != p.preprocess.image_size,
        "first-size: got it for no epoch, expected --first-epochs above 0 too",
    ),
    (
        lambda p, n: n > 1 and "minutes" in p.given,
        "minutes: got {p.given[minutes]:g} for {n} processes, expected --epochs: steps are measured in one process",
    ),
    (lambda p, n: _above_lr(p), "{found}: got more than the peak learning rate of {o.lr:g}, expected at most that"),
    (
        lambda p, n: p.options.crop_scale is not None and p.options.crop != "random_resized",
        "crop-scale: got {o.crop_scale:g} with --crop {o.crop}, which takes no part; expected --crop random_resized",
    ),
    (
        lambda p, n: p.options.mix_prob and not (p.options.mixup or p.options.cutmix),
        "mix-prob: got {o.mix_prob:g} without mixing, expected --mixup or --cutmix above 0 too",
    ),
    (
        lambda p, n: not p.options.mix_prob and (p.options.mixup or p.options.cutmix),
        "mix-prob: got 0 with --mixup or --cutmix above 0, expected a --mix-prob above 0",
    ),
    (
        lambda p, n: _among_images(p),
        "out: got {o.out}, which lies together with the images in {found}; expected a folder apart",
    ),
    (
        lambda p, n: _would_delete(p),
        "out: got {o.out}, which --overwrite would delete with the weights {found} in it; expected another --out",
    ),
)


def check_asked(given: Given) -> None:
    """Checks what was asked.

    Raises:
        InputError: the first rule that is broken.
    """
    for broken, message in RULES_OF_ASKED:
        if found := broken(given):
            raise InputError(message.format(**given, found=found))


def check_plan(plan: Any, processes: int = 1) -> None:
    """Checks a :class:`convit.training.plan.Plan`.

    Raises:
        InputError: the first rule that is broken.
    """
    for broken, message in RULES_OF_PLANS:
        if found := broken(plan, processes):
            raise InputError(message.format(o=plan.options, p=plan, n=processes, found=found))
