"""The messages of a run at its beginning and the files at its end: decisions, accuracy, plots, the model card."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convit.data.images import ignored_notes
from convit.data.scan import SAMPLE
from convit.data.select import Facts, Selection
from convit.errors import InputError
from convit.events import PassBegan
from convit.model_card import TrainingFacts, data_name
from convit.training import plots
from convit.training.engine import Trainer
from convit.training.evaluation import Evaluation, best_record, evaluate
from convit.training.evaluation_files import write_evaluation
from convit.training.mistakes import Answers
from convit.training.plan import Plan
from convit.training.run_folder import SKIPPED
from convit.training.workers import WorkerDied

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
    parameters = sum(p.numel() for p in trainer.model.parameters()) / 1e6
    yield f"{parameters:.2f} million parameters, on {trainer.device}; run folder {trainer.folder.path}"


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
    """Takes the best model, evaluates it once on the test images (or again on the validation ones), draws.

    Returns:
        What a :class:`convit.training.run.Run` has of it: ``best``, ``split``, ``evaluation``, ``classifier``.
    """
    plan, folder, world = trainer.plan, trainer.folder, trainer.world
    world.barrier()  # the best model is written
    classifier = trainer.saved()
    split = "test" if "test" in trainer.images else "val"
    images, answers = trainer.images[split], Answers()
    trainer.tell(PassBegan(f"best model on the {split} images", len(images)))
    try:
        evaluation = evaluate(
            classifier.model,
            images,
            plan.preprocess,
            workers=plan.options.workers or 0,
            copies=trainer.copies[split],
            on_batch=trainer.observe_batch,
            on_logits=answers.add,
            world=world,
        )
    except WorkerDied as died:
        raise InputError(
            f"{died}; all is trained, and saved: 'convit train --resume {folder.path}' evaluates it, with fewer "
            f"--workers than {plan.options.workers} if it happens again"
        ) from died
    wrong = answers.mistakes(images, world)
    history = trainer.progress.history
    best = best_record(history)
    made = {"best": best, "split": split, "evaluation": evaluation, "classifier": classifier}
    if not world.main:
        return made
    folder.write_metrics(history)
    classifier.training = _card_facts(plan, history, evaluation if split == "test" else None)
    classifier.save(folder.path)  # once more, for its card: only now is it known how good it is
    plots.draw_history(history, folder.path)
    root = plan.facts.root
    write_evaluation(folder.path, evaluation, wrong, images, data=data_name(root), root=root, split=split)  # the last
    trainer.say(f"best epoch {best['epoch']}: validation top-1 {best['val_top1']:.2f}%")
    if split == "test":
        trainer.say(f"test {evaluation.accuracy} on {evaluation.num_images} images that were left for the end")
    if note := chance_note(evaluation.confusion):
        trainer.say(note)
    return made


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
