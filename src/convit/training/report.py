"""The messages of a run at its beginning and the files at its end: decisions, accuracy, plots, the model card."""

import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from convit.calibration import calibrate
from convit.classifier import Classifier
from convit.data import ImageSet
from convit.data.copies import Copies
from convit.data.images import ignored_notes
from convit.data.scan import SAMPLE
from convit.data.select import Facts, Selection
from convit.errors import InputError
from convit.events import Finding, PassBegan, RunEnded
from convit.figures import lacking
from convit.files import write
from convit.model_card import TrainingFacts, data_name
from convit.training import plots
from convit.training.engine import Trainer
from convit.training.evaluation import Evaluation, best_record, evenly, logits_of, score
from convit.training.evaluation_files import write_evaluation
from convit.training.memory import activation_bytes, disk_bytes, free_bytes, held_bytes, size_words
from convit.training.mistakes import Mistake, mistakes, reliability, table
from convit.training.outcome import outcome
from convit.training.page import REPORT, Report, page
from convit.training.plan import Plan
from convit.training.plots import spared
from convit.training.run_folder import SKIPPED
from convit.training.workers import WorkerDied

FEW_PHOTOS, PHOTO = 1000, 64
"""So few images to learn from are few, if half of them have at least so many pixels on the shorter side: the published
weights, of photos, are of little use for small pictures."""
MOST_CLASSES = 8
"""The images of so many classes are told of each; of more, of the smallest and the largest."""


def introduction(trainer: Trainer, selection: Selection) -> Iterator[str]:
    """What will be done, and what was decided, in lines."""
    plan, facts = trainer.plan, trainer.plan.facts
    count = {split: sum(counts) for split, counts in facts.counts.items()}
    counts = f"{count['train']} to learn from, {count['val']} to validate"
    if "test" in count:
        counts += f", {count['test']} to test at the end"
    yield f"{facts.name}: {len(plan.class_names)} classes, {counts}"
    yield from _of_the_images(facts)
    unseen = [name for name, images in zip(plan.class_names, facts.counts["val"], strict=True) if not images]
    if unseen:
        yield f"no validation image of {len(unseen)} classes, such as {unseen[0]!r}: the best epoch is chosen without"
    if selection.left_out:
        where = trainer.folder.path / SKIPPED
        yield f"left out {len(selection.left_out)} files that do not decode: see {where}"
    yield from ignored_notes(selection.ignored)
    yield from facts.notes
    if plan.options.weights is not None:
        head = "with its head: the classes are the same" if plan.keep_head else "with a new head"
        yield f"starting from {plan.options.weights}, {head}"
    if trainer.learner.distiller is not None:
        yield trainer.learner.distiller.about
    for option, why in plan.reasons.items():
        yield f"  --{option.replace('_', '-')}: {why}" if option != "augmentation" else f"  {option}: {why}"
    if _has_few_photos(plan):
        yield (
            f"{plan.images} photos are few to learn from scratch; --pretrained starts from weights of ImageNet-1k, "
            "which usually makes far fewer mistakes"
        )
    yield from _costs(trainer)
    parameters = sum(p.numel() for p in trainer.model.parameters()) / 1e6
    yield f"{parameters:.2f} million parameters, on {trainer.device}; run folder {trainer.folder.path}"


def _has_few_photos(plan: Plan) -> bool:
    """Whether a run from scratch learns from so few photos that published weights are the better start.

    Not where the model was named: few have published weights.
    """
    options = plan.options
    from_weights = plan.starts_from_weights or options.teacher is not None or options.teacher_weights is not None
    few = plan.images < FEW_PHOTOS and plan.facts.native_size >= PHOTO
    return few and not from_weights and "model" not in plan.given


def _costs(trainer: Trainer) -> Iterator[str]:
    """Memory and room on the disk that the run takes. Nothing of the run is changed by it."""
    learner = trainer.learner
    held, active = held_bytes(learner), _activations(trainer)
    memory = f"memory: {size_words(held)} of weights, gradients and moments"
    memory += " in each process" if trainer.world.size > 1 else ""
    memory += "" if active is None else f", about {size_words(active)} of activations; {size_words(held + active)}"
    yield f"{memory}, besides what the libraries take"
    need, free = disk_bytes(learner), free_bytes(trainer.folder.path)
    line = f"disk: up to {size_words(need)} for the model and its checkpoints"
    if free is not None:
        line += f", of {size_words(free)} that are free" + (": too little to save the run" if need > free else "")
    yield line


def _activations(trainer: Trainer) -> int | None:
    """Bytes of the activations of a step; None where they cannot be counted."""
    if trainer.world.size > 1:
        return None  # one process alone makes no forward pass: batch norm waits for the others
    try:
        return activation_bytes(trainer.learner, trainer.plan.batch_size)
    except RuntimeError:  # there is no room even for this, as the first step is going to say
        return None


def _of_the_images(facts: Facts) -> Iterator[str]:
    """The images of each class by split, or of the smallest and the largest where there are many; and their sizes."""
    splits = "/".join(facts.counts)
    counts = list(zip(*facts.counts.values(), strict=True))
    each = [f"{name} {'/'.join(map(str, of))}" for name, of in zip(facts.class_names, counts, strict=True)]
    order = sorted(range(len(each)), key=lambda i: counts[i])
    if len(each) <= MOST_CLASSES:
        yield f"images of each class ({splits}): {', '.join(each)}"
    else:
        few, many = (", ".join(each[i] for i in some) for some in (order[:3], order[-3:]))
        yield f"images of the smallest classes ({splits}): {few}; of the largest: {many}"
    (low, high), some = facts.sides, f" ({SAMPLE} looked at)" if facts.images > SAMPLE else ""
    spread = f"{low} px" if low == high else f"{low} to {high} px, half of them up to {facts.native_size} px"
    yield f"shorter side of the images{some}: {spread}"


def finish(trainer: Trainer) -> dict[str, Any]:
    """Takes the best model, calibrates it on the validation images, evaluates it once on the test images (or those same
    ones), draws, and tells what came of the run.

    The validation images also chose the best epoch, which moves one temperature very little. All of it is a function of
    the model and the images, so that a resumed run has the same.

    Returns:
        What a :class:`convit.training.run.Run` has of it: ``best``, ``split``, ``evaluation``, ``outcome``,
        ``classifier``.
    """
    plan, folder, world = trainer.plan, trainer.folder, trainer.world
    world.barrier()  # the best model is written
    classifier = trainer.saved()
    split = "test" if "test" in trainer.images else "val"
    images = trainer.images[split]
    val = trainer.images["val"]
    of_val = _logits(trainer, classifier, "best model on the val images", val, trainer.copies["val"])
    classifier.calibration = calibrate(of_val.numpy(), val.targets) if of_val.isfinite().all() else None
    logits = of_val
    if split == "test":
        logits = _logits(trainer, classifier, "best model on the test images", images, trainer.copies["test"])
    evaluation = score(logits / classifier.temperature, images.targets, images.class_names)
    seen = evenly(trainer.images["train"], plan.seen_images)
    of_seen = _logits(trainer, classifier, "best model on images it learned from", seen)
    history = trainer.progress.history
    on_seen = score(of_seen / classifier.temperature, seen.targets, seen.class_names)
    found = outcome(plan, history, evaluation, split, on_seen)
    made = {"best": best_record(history), "split": split, "evaluation": evaluation, "outcome": found}
    made["classifier"] = classifier
    if not world.main:
        return made
    answers = table(logits, images.targets, classifier.calibration)
    wrong = mistakes(answers, images)
    reliable = reliability(answers, classifier.calibration, fitted_here=split == "val")
    folder.write_metrics(history)
    classifier.training = _card_facts(plan, history, evaluation if split == "test" else None)
    classifier.write(folder.path)  # once more, for its card: only now is it known how good it is
    plots.draw_history(history, folder.path, trainer.say)
    if note := lacking((*plan.class_names, plan.facts.name)):
        trainer.say(note)
    findings = (*found.findings(), Finding("probabilities", reliable.summary()))
    ended = RunEnded(folder.path, findings, _files(history, wrong), _commands(folder.path))
    report = Report(
        plan=plan, history=history, evaluation=evaluation, outcome=found, ended=ended, mistakes=wrong, images=images
    )
    with spared(REPORT, trainer.say):
        write(folder.path / REPORT, page(report))
    root = plan.facts.root
    write_evaluation(  # the last: with it the run is complete
        folder.path, evaluation, wrong, images, reliable, data=data_name(root), root=root, split=split, say=trainer.say
    )
    trainer.tell(
        replace(ended, files={name: what for name, what in ended.files.items() if (folder.path / name).exists()})
    )
    return made


def _logits(
    trainer: Trainer, classifier: Classifier, what: str, images: ImageSet, copies: Copies | None = None
) -> Tensor:
    """What the finished model says of some images.

    Raises:
        InputError: a process that loads images died: as all is trained, it says how to evaluate again.
    """
    plan = trainer.plan
    trainer.tell(PassBegan(what, len(images)))
    try:
        return logits_of(
            classifier.model,
            images,
            plan.preprocess,
            workers=plan.options.workers or 0,
            copies=copies,
            on_batch=trainer.observe_batch,
            world=trainer.world,
        )
    except WorkerDied as died:
        raise InputError(
            f"{died}; all is trained, and saved: 'convit train --resume {trainer.folder.path}' evaluates it, with "
            f"fewer --workers than {trainer.plan.options.workers} if it happens again"
        ) from died


def _files(history: list[dict[str, Any]], wrong: list[Mistake]) -> dict[str, str]:
    """The files that a run leaves, the most useful first."""
    files = {
        REPORT: "all of this with curves and pictures, for a browser",
        "model.safetensors": "the best model; with config.json all that predicting needs",
        "mistakes.png": "the images that it gets wrong, the worst first",
        "confusion.png": "which classes are taken for which",
        "reliability.png": "how often an answer of each probability is right",
        "curves.png": "loss and accuracy by epoch",
        "gates.png": "whether heads look by position or by content",
        "mistakes.csv": "every image that it gets wrong",
        "evaluation.json": "every number of the evaluation",
        "metrics.jsonl": "a line for each epoch",
        "config.yaml": "every option: --config repeats the run",
    }
    without = {name for name, there in (("mistakes.png", wrong), ("gates.png", history[-1]["gates"])) if not there}
    return {name: what for name, what in files.items() if name not in without}


def _commands(folder: Path) -> dict[str, str]:
    """What may be typed next."""
    run = shlex.quote(f"./{folder}" if str(folder).startswith("-") else str(folder))
    return {
        f"convit predict {run} PHOTO.jpg": "what is on a picture",
        f"convit inspect {run} PHOTO.jpg": "where the model looks",
        f"convit evaluate {run} FOLDER": "how good it is on other images",
        f"convit forecast {run}": "what more images would give",
        f"convit export {run}": "one file to deploy",
    }


def _public(data: str) -> str:
    """The public name of data, with ? for bytes that are no text: other programs read the model's files."""
    return data_name(data).encode(errors="replace").decode()


def _card_facts(plan: Plan, history: list[dict[str, Any]], test: Evaluation | None) -> TrainingFacts:
    """What the model's card tells of the run."""
    options, best = plan.options, best_record(history)
    published = f"the published weights of {options.model}, ImageNet-1k" if options.pretrained else None
    return TrainingFacts(
        data=_public(plan.facts.root),
        started_from=_public(str(options.weights)) if options.weights is not None else published,
        train_images=plan.images,
        val_images=sum(plan.facts.counts["val"]),
        test_images=test.num_images if test else None,
        epochs=len(history),
        best_epoch=best["epoch"],
        batch_size=plan.batch_size,
        lr=options.lr,
        weight_decay=options.weight_decay,
        seed=options.seed,
        val_top1=best["val_top1"],
        val_top5=best.get("val_top5"),
        test_top1=test.top1 if test else None,
        test_top5=test.top5 if test else None,
    )
