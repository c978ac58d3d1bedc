"""A run from beginning to end: look at the data, plan, train, evaluate, draw."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from convit.classifier import Classifier
from convit.data import BadImage, DataSource, ImageSet, drop, open_source, scan, some_classes
from convit.device import pick_device
from convit.errors import InputError
from convit.model_card import TrainingFacts, data_name
from convit.train import plots
from convit.train.config import TrainConfig
from convit.train.distributed import ALONE, World, join
from convit.train.engine import Trainer
from convit.train.evaluation import Evaluation, best_record, evaluate
from convit.train.identity import identify, identity_before
from convit.train.mistakes import Answers, write_mistakes
from convit.train.observer import Observer, Stopped, stop_on_signals
from convit.train.plan import Plan, make_plan, split
from convit.train.run_folder import RunFolder, split_names
from convit.train.workers import WorkerDied

T = TypeVar("T")


def train(config: TrainConfig, observer: Observer | None = None) -> Classifier:
    """Trains a classifier and writes its run folder.

    Started by ``torchrun`` or ``accelerate launch``, the processes train together (:mod:`convit.train.distributed`).

    Args:
        config: the options.
        observer: hears how it goes on.

    Returns:
        The best model, by top-1 on the validation images.

    Raises:
        InputError: data or options that do not work, before anything is written; or a loss that is no number.
        Stopped: Ctrl-C or SIGTERM; the state is saved, ``resume`` continues it.
        OSError: the disk is full or read-only.
    """
    with join(config.run.device) as world, contextlib.ExitStack() as held:
        speaking = observer if observer is not None and world.main else Observer()
        return _train(config, speaking, world, held)


def _train(config: TrainConfig, observer: Observer, world: World, held: contextlib.ExitStack) -> Classifier:
    """As :func:`train`; ``held`` is closed at the end, with the lock on the folder in it."""
    pick_device(config.run.device)
    if config.run.resume and config.run.out is None:  # where it lies is decided from the data, all else as it was
        config = replace(config, run=replace(config.run, out=_usual_folder(config, observer, world)))
    if config.run.out is not None:  # before the scan, which can take a while
        before = RunFolder(config.run.out)
        before.check_free(resume=config.run.resume, overwrite=config.run.overwrite)
        if config.run.resume:
            if world.main:
                held.enter_context(before.locked())
            config = as_before(config, before.read_config())
    plan, source, bad = planned(config, observer, world)
    folder = RunFolder(plan.out)
    folder.check_free(resume=config.run.resume, overwrite=config.run.overwrite)
    parts: dict[str, ImageSet | None] = {"train": plan.train, "val": plan.val, "test": plan.test}
    world.check_same("images", split_names(parts))
    if config.run.resume:
        _check_same(folder, plan)
    identity: dict[str, Any] = {}
    if world.main:
        identity = identity_before(folder, plan, parts) if config.run.resume else identify(plan, parts)
    run = world.from_main(lambda: str(identity["run"]))
    # From here on there is something to save.
    with stop_on_signals(second_acts=world.size == 1) as stop, world.guard():
        trainer = Trainer(plan, folder, observer, stop, world, run)
        if config.run.resume:
            trainer.resume()
            if world.main and not folder.has_identity:
                folder.write_identity(identity)
                trainer.say("an earlier version began this run: from now on it knows its images by more than names")
        elif world.main:
            observer.check()
            held.enter_context(folder.locked())
            folder.check_free(resume=False, overwrite=config.run.overwrite)  # nobody was quicker
            if config.run.overwrite:
                folder.clear()
            folder.write_split(parts)
            folder.write_identity(identity)
            if bad:
                folder.write_skipped(bad)
            folder.write_config(plan.config)  # the last: with it there is a run to resume
            for line in introduction(trainer, source, bad):
                trainer.say(line)
        _begin_run(trainer)
        try:
            trainer.fit()
            return _finish(trainer)
        except Stopped:
            if not world.main:
                raise
            with contextlib.suppress(OSError):  # the state is saved; pictures can wait until there is room
                plots.draw_history(trainer.progress.history, folder.path)
            raise


def _begin_run(trainer: Trainer) -> None:
    """Tells the observer; where it cannot begin, as a tracker without a key, nothing of a new run is left."""
    plan, folder = trainer.plan, trainer.folder
    try:
        trainer.observer.begin_run(folder.path, plan.config.to_dict(), trainer.progress.epoch)
    except InputError:
        if not plan.config.run.resume and trainer.world.main:
            folder.discard()
        raise


def planned(config: TrainConfig, observer: Observer, world: World = ALONE) -> tuple[Plan, DataSource, list[BadImage]]:
    """A run's plan, its images, and those that were left out. Nothing is written.

    Raises:
        InputError: data or options that do not work.
    """
    source, bad = scanned(_opened(config, world), skip_bad=config.source.skip_bad, observer=observer, world=world)
    plan = make_plan(config, source, split(source, config.source.val_fraction, config.run.seed))
    world.check_batch(plan.batch_size, plan.config.optim.accumulate)
    _check_apart(plan.out, source)
    _check_weights_apart(config)
    return plan, source, bad


def _usual_folder(config: TrainConfig, observer: Observer, world: World) -> Path:
    """Where a run lies that was begun without ``--out``."""
    source = _opened(config, world)
    if config.source.skip_bad:  # without those there may be another model for the images, else nothing is decoded
        source, _ = scanned(source, skip_bad=True, observer=observer, world=world)
    return make_plan(config, source, split(source, config.source.val_fraction, config.run.seed)).out


def _opened(config: TrainConfig, world: World) -> DataSource:
    """The images that the options ask for, not looked at yet."""
    source = world.in_turn(
        lambda: open_source(config.data, root=config.source.data_root, missing=config.source.skip_bad)
    )
    parts = {part: images for part, images in source.parts.items() if part != "test"}
    if config.source.skip_test and parts:  # a test part alone is refused as ever
        source = replace(source, parts=parts)
    if config.source.classes is not None:
        source = some_classes(source, config.source.classes, config.run.seed)
    return source


def as_before(options: T, before: T) -> T:
    """The options of a run that goes on: what is left open is as it was, whatever would be decided today.

    >>> from convit.train import OptimConfig
    >>> before = TrainConfig(data="digits", optim=OptimConfig(epochs=3, lr=0.1))
    >>> as_before(TrainConfig(data="digits", optim=OptimConfig(epochs=3)), before).optim.lr
    0.1
    """
    taken: dict[str, Any] = {}
    for entry in fields(options):  # type: ignore[arg-type]
        own, old = getattr(options, entry.name), getattr(before, entry.name)
        if is_dataclass(own):
            taken[entry.name] = as_before(own, old)
        elif own is None:
            taken[entry.name] = old
    return replace(options, **taken)  # type: ignore[type-var]


def scanned(
    source: DataSource, *, skip_bad: bool, observer: Observer, world: World = ALONE
) -> tuple[DataSource, list[BadImage]]:
    """The source without the files that do not decode; of several processes one looks.

    Raises:
        InputError: there are such files, and ``skip_bad`` is not set.
    """
    kept: dict[str, ImageSet] = {}
    bad: list[BadImage] = []
    for part, images in source.parts.items():
        observer.begin(f"checking {part} images" if part != "whole" else "checking images", len(images))
        found = world.from_main(partial(scan, images, progress=lambda done, total: observer.advance(1)))
        kept[part] = drop(images, found) if found and skip_bad else images
        bad += found
    if bad and not skip_bad:
        shown = "; ".join(f"{image.name} ({image.reason})" for image in bad[:3])
        more = f"; and {len(bad) - 3} more" if len(bad) > 3 else ""
        files = "1 file does" if len(bad) == 1 else f"{len(bad)} files do"
        raise InputError(
            f"{source.name}: {files} not decode: {shown}{more}; mend them, or leave them out with --skip-bad"
        )
    return replace(source, parts=kept), bad


def _check_apart(out: Path, source: DataSource) -> None:
    """A run folder among the images would be taken for a class next time; images in a run folder could be replaced."""
    run, data = out.resolve(), Path(source.root)
    if data.is_absolute() and (run.is_relative_to(data) or data.is_relative_to(run)):
        raise InputError(f"out: got {out}, which lies together with the images in {data}; expected a folder apart")


def _check_weights_apart(config: TrainConfig) -> None:
    """``--overwrite`` must not delete what the run starts from, or learns from."""
    out = config.run.out
    for weights in (config.model.weights, config.distill.teacher_weights):
        if config.run.overwrite and out is not None and weights is not None:
            run, start = out.resolve(), weights.resolve()
            if run.is_relative_to(start) or start.is_relative_to(run):
                raise InputError(f"out: got {out}, which --overwrite would delete with the weights {weights} in it")


def _check_same(folder: RunFolder, plan: Plan) -> None:
    """A run is only continued as what it was: with the same options (and images, :mod:`convit.train.identity`)."""
    before, now = folder.read_config().to_dict(), plan.config.to_dict()
    for group, options in now.items():
        if group == "run":
            options = {"seed": options["seed"]}
        was = before[group]
        for name, value in options.items() if isinstance(options, dict) else [("data", options)]:
            old = was[name] if isinstance(options, dict) else was
            if old != value and name != "workers":
                option = name.replace("_", "-")
                raise InputError(
                    f"{folder.path}: its {option} is {old}, got {value}; expected the run's own to resume it"
                )


def introduction(trainer: Trainer, source: DataSource, bad: list[BadImage]) -> Iterator[str]:
    """What will be done, and what was decided, in lines."""
    plan = trainer.plan
    counts = f"{len(plan.train)} to learn from, {len(plan.val)} to validate"
    if plan.test is not None:
        counts += f", {len(plan.test)} to test at the end"
    yield f"{source.name}: {len(plan.class_names)} classes, {counts}"
    unseen = [name for name, count in zip(plan.class_names, plan.val.counts(), strict=True) if not count]
    if unseen:
        yield f"no validation image of {len(unseen)} classes, such as {unseen[0]!r}: the best epoch is chosen without"
    if bad:
        yield f"left out {len(bad)} files that do not decode: see {trainer.folder.path / 'skipped.json'}"
    if source.ignored:
        yield f"ignored {len(source.ignored)} files that are no images by name, such as {source.ignored[0]}"
    yield from source.notes
    options = plan.config.model
    if options.weights is not None:
        head = "with its head: the classes are the same" if plan.keep_head else "with a new head"
        yield f"starting from {options.weights}, {head}"
    if trainer.learner.distiller is not None:
        yield trainer.learner.distiller.about
    for option, why in plan.decided.items():
        yield f"  --{option}: {why}" if option != "augmentation" else f"  {option}: {why}"
    parameters = sum(p.numel() for p in trainer.model.parameters()) / 1e6
    yield f"{parameters:.2f} million parameters, on {trainer.device}; run folder {trainer.folder.path}"


def _finish(trainer: Trainer) -> Classifier:
    """Takes the best model, evaluates it once on the test images (or again on the validation ones), draws."""
    plan, folder, world = trainer.plan, trainer.folder, trainer.world
    world.barrier()  # the best model is written
    best = Classifier.load(folder.path, trainer.device)
    part, images = ("test", plan.test) if plan.test is not None else ("val", plan.val)
    trainer.observer.begin(f"best model on the {part} images", len(images))
    answers = Answers()
    try:
        result = evaluate(
            best.model,
            images,
            plan.preprocess,
            workers=plan.workers,
            on_batch=trainer.hear_batch,
            on_logits=answers.add,
            world=world,
        )
    except WorkerDied as died:
        raise InputError(
            f"{died}; all is trained, and saved in {folder.path}: --resume evaluates it, with fewer --workers than "
            f"{plan.workers} if it happens again"
        ) from died
    wrong = answers.mistakes(images, world)
    if not world.main:
        return best
    folder.write_json("evaluation.json", {"part": part, **result.to_dict()})
    best.training = _facts(plan, trainer.progress.history, result if part == "test" else None)
    best.save(folder.path)  # once more, for its card: only now is it known how good it is
    plots.draw_history(trainer.progress.history, folder.path)
    title = f"{data_name(plan.config.data)}, {part} images"
    plots.confusion(result, folder.path / "confusion.png", title=title)
    write_mistakes(wrong, folder.path / "mistakes.csv")
    plots.mistakes(wrong, folder.path / "mistakes.png", images=images, title=title)
    top = best_record(trainer.progress.history)
    trainer.say(f"best epoch {top['epoch']}: validation top-1 {top['val_top1']:.2f}%")
    if part == "test":
        trainer.say(
            f"test top-1 {result.top1:.2f}%, top-5 {result.top5:.2f}% on {result.num_images} images never seen before"
        )
    if note := chance_note(result.confusion):
        trainer.say(note)
    return best


def chance_note(confusion: NDArray[np.int64]) -> str | None:
    """A line for a model that is not two standard errors better than always answering the most frequent class.

    Of too few images none could be.
    """
    images = int(confusion.sum())
    chance = int(confusion.sum(axis=1).max()) / images
    needed = chance + 2 * math.sqrt(chance * (1 - chance) / images)
    if needed >= 1:
        return f"{images} images are too few to tell whether anything was learned"
    if np.trace(confusion) / images > needed:
        return None
    return (
        f"not clearly better than always answering the most frequent class ({100 * chance:.1f}%): nothing to rely on "
        "was learned; try more images, more --epochs, or a start from --pretrained weights"
    )


def _facts(plan: Plan, history: list[dict[str, Any]], test: Evaluation | None) -> TrainingFacts:
    """What the model's card tells of the run."""
    model, best = plan.config.model, best_record(history)
    published = f"the published weights of {model.model}, ImageNet-1k" if model.pretrained else None
    return TrainingFacts(
        data=data_name(plan.config.data),
        started_from=data_name(str(model.weights)) if model.weights is not None else published,
        train_images=len(plan.train),
        val_images=len(plan.val),
        test_images=test.num_images if test else None,
        epochs=len(history),
        best_epoch=best["epoch"],
        batch_size=plan.batch_size,
        lr=plan.lr,
        weight_decay=plan.values.weight_decay,
        seed=plan.config.run.seed,
        val_top1=best["val_top1"],
        val_top5=best.get("val_top5"),
        test_top1=test.top1 if test else None,
        test_top5=test.top5 if test else None,
    )
