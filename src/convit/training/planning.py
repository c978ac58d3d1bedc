"""Makes the plan: from the config (what was asked) and the facts of the data to a plan with every value decided.

    Asked -> images (data.select) -> Facts -> the model -> a recipe's values for what is open -> Plan -> the rules

Each step is one function of the values before it; no step changes an earlier value. Read it from top to bottom.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from convit.classifier_config import ClassifierConfig, read_config
from convit.classifier_folder import CONFIG, WEIGHTS
from convit.data import BadImage, Preprocess, first_change
from convit.data.copies import learning_side
from convit.data.duplicates import duplicate_notes
from convit.data.select import Facts, Learning, Selection, check, refuse_bad, select
from convit.data.sources.layout import split_folder
from convit.errors import InputError, counted
from convit.events import Listener
from convit.files import absolute, fingerprint, fingerprint_of_files
from convit.training.distributed import ALONE, World
from convit.training.look_ahead import check_weights, look_ahead
from convit.training.model_choice import ModelChoice, choose_model
from convit.training.options import Asked
from convit.training.plan import Plan
from convit.training.recipes import RECIPES
from convit.training.rules import check_plan


def planned(asked: Asked, tell: Listener, world: World = ALONE) -> tuple[Selection, Plan]:
    """The images of a new run and its plan. Nothing is written.

    Options that do not fit are refused before the images are decoded, which can take minutes. Files that cannot be
    decoded are left out with ``skip_bad``; then images and plan are made again without them.

    Raises:
        InputError: data or options that do not work.
    """
    world.from_main(partial(look_ahead, asked))
    selection, plan = _chosen(asked, world)
    checked = world.from_main(partial(check, selection, tell, *plan.packs))
    if checked.bad and not asked.skip_bad:
        refuse_bad(selection.name, checked.bad)
    if checked.bad or checked.full_scale != selection.full_scale:
        selection, plan = _chosen(asked, world, checked.bad, checked.full_scale)
    contents = {split: images["contents"] for split, images in selection.record["splits"].items()}
    said = world.from_main(partial(duplicate_notes, selection.splits, contents, checked.checksums))
    facts = replace(plan.facts, notes=(*plan.facts.notes, *said))
    return selection, replace(plan, facts=facts, sources=world.from_main(partial(_sources, plan, selection)))


def _chosen(
    asked: Asked, world: World, bad: Sequence[BadImage] = (), full_scale: float | None = None
) -> tuple[Selection, Plan]:
    """Images and plan without the files that are ``bad``, and with the ``full_scale`` that was found."""
    if asked.data is None:
        raise InputError("data: got none, expected a folder of images or the name of a data set, such as digits")
    selection = world.in_turn(partial(select, asked.data, learning(asked, bad, full_scale)))
    plan = make_plan(asked, selection.facts(), processes=world.size)
    if world.size > 1:
        first = world.from_main(lambda: selection.record)
        if change := first_change(first, selection.record):
            raise InputError(
                f"process {world.rank} of {world.size}: other images than process 0: {change}; expected the same files "
                "for all of them"
            )
    return selection, plan


def learning(
    asked: Asked,
    bad: Sequence[BadImage] = (),
    full_scale: float | None = None,
    recorded: Mapping[str, Sequence[str]] | None = None,
) -> Learning:
    """Which images a run with these options learns from."""
    return Learning(
        data_root=asked.data_root,
        classes=asked.classes,
        seed=asked.seed,
        val_fraction=asked.val_fraction,
        fold=None if asked.folds is None else (asked.fold or 1, asked.folds),
        fraction=asked.fraction,
        per_class=asked.per_class,
        skip_test=asked.skip_test,
        folders=asked.split_folders,
        missing=asked.skip_bad,
        leave_out=tuple(bad),
        full_scale=full_scale if asked.full_scale is None else asked.full_scale,
        recorded=recorded,
    )


def make_plan(asked: Asked, facts: Facts, *, processes: int = 1) -> Plan:
    """Decides the options that ``asked`` does not give.

    Args:
        asked: the options.
        facts: of the data that they choose (:meth:`convit.data.select.Selection.facts`).
        processes: how many train together.

    Raises:
        InputError: options that do not fit the data or each other.
    """
    start = start_of(asked)
    choice = choose_model(asked, facts, start)
    recipe = asked.recipe or ("finetune" if _has_weights(asked) else "small")
    shape = {"image_size": tuple(choice.args["img_size"]), "patch_size": choice.args["patch_size"]}
    sized = replace(asked, recipe=recipe, model=choice.name, **shape)
    values = RECIPES[recipe](facts, sized) | _of_start(choice, start)
    options = _filled(sized, facts, choice, values)
    size = (int(choice.args["img_size"][0]), int(choice.args["img_size"][1]))
    assert options.crop_pct is not None
    preprocess = Preprocess(image_size=size) if start is None else start.preprocess
    plan = Plan(
        given={name: value for name, value in asked.to_dict().items() if name in asked.given()},
        facts=facts,
        options=options,
        model_args=choice.args | {"locality_strength": options.locality_strength or values["locality_strength"]},
        blocks=choice.blocks,
        preprocess=replace(
            preprocess,
            image_size=size,
            crop_pct=options.crop_pct,
            full_scale=preprocess.full_scale if facts.full_scale is None else facts.full_scale,
        ),
        side=learning_side(size, options.crop_scale or 1.0),
        keep_head=start is not None and tuple(start.class_names) == facts.class_names,
        reasons=choice.reasons | _reasons(asked, options, facts),
    )
    check_plan(plan, processes)
    _ = plan.augmentation  # which refuses a RandAugment of another form
    return plan


def start_of(asked: Asked) -> ClassifierConfig | None:
    """The config of the model that the run starts from; None for a bare file of weights, and without weights.

    Raises:
        InputError: no such file or folder.
    """
    if asked.weights is None:
        return None
    check_weights("weights", asked.weights)
    weights = asked.weights
    if weights.name == WEIGHTS and (weights.parent / CONFIG).is_file():
        weights = weights.parent
    return read_config(weights) if weights.is_dir() else None


def _sources(plan: Plan, selection: Selection) -> dict[str, str]:
    """Fingerprints of a run's images, of the weights that it starts from and of the teacher's."""
    weights = {"weights": plan.options.weights, "teacher_weights": plan.options.teacher_weights}
    found = {name: fingerprint_of_weights(path) for name, path in weights.items() if path is not None}
    return {"images": fingerprint(selection.record), **found}


def fingerprint_of_weights(path: Path) -> str:
    """Fingerprint of weights and of the config beside them."""
    files = (path / CONFIG, path / WEIGHTS) if path.is_dir() else (path,)
    return fingerprint_of_files(*(file for file in files if file.is_file()))  # whoever loads it says what is missing


def _has_weights(asked: Asked) -> bool:
    return asked.pretrained or asked.weights is not None


def _of_start(choice: ModelChoice, start: ClassifierConfig | None) -> dict[str, Any]:
    """Values that the classifier to start from has, in place of the recipe's."""
    values: dict[str, Any] = {} if start is None else {"crop_pct": start.preprocess.crop_pct}
    if "locality_strength" in choice.args:
        values["locality_strength"] = choice.args["locality_strength"]
    return values


def _filled(asked: Asked, facts: Facts, choice: ModelChoice, values: Mapping[str, Any]) -> Asked:
    """What was asked; options that were not given get the recipe's values and the model's."""
    taken = {name: value for name, value in values.items() if getattr(asked, name) is None}
    if _has_weights(asked):
        taken["locality_strength"] = None  # that of the weights
    if "mix_prob" in taken and not any(taken.get(name, getattr(asked, name)) for name in ("mixup", "cutmix")):
        taken["mix_prob"] = 0.0
    lr = taken.get("lr", asked.lr)
    taken |= {name: min(taken[name], lr) for name in ("min_lr", "warmup_lr") if name in taken}
    root, named = Path(facts.root), asked.split_folders.items()
    # Relative to the data: so they are found again where it is moved.
    folders: dict[str, Any] = {split: split_folder(root, split, folder) for split, folder in named}
    workers = 0 if min(choice.args["img_size"]) <= 16 else min(8, torch.get_num_threads())  # none for small images
    name = f"{Path(facts.name).name}-{choice.name.removeprefix('convit_').split('_patch')[0]}"
    return replace(
        asked,
        **taken,
        data=facts.root,
        **folders,
        full_scale=facts.full_scale,
        flip=facts.flip if asked.flip is None else asked.flip,
        local_up_to_layer=choice.args["local_up_to_layer"],
        weights=_absolute(asked.weights),
        teacher_weights=_absolute(asked.teacher_weights),
        workers=workers if asked.workers is None else asked.workers,
        out=asked.out or Path("runs") / name,
        overwrite=False,
        resume=None,
        minutes=None,  # they have become epochs
    )


def _absolute(path: Path | None) -> Path | None:
    return path and absolute(path)


def _reasons(asked: Asked, options: Asked, facts: Facts) -> dict[str, str]:
    """What the recipe decided, and why, for people."""
    reasons = {}
    if asked.batch_size is None:
        reasons["batch_size"] = f"{options.batch_size} ({facts.images} training images)"
    if asked.epochs is None:
        reasons["epochs"] = f"{options.epochs} ({facts.images} training images)"
    if options.first_epochs and (asked.first_epochs is None or asked.first_size is None):
        assert options.first_size is not None
        side = " x ".join(map(str, options.first_size))
        reasons["first_size"] = f"{side} for the first {counted(options.first_epochs, 'epoch')}: less time"
    if asked.lr is None:
        reasons["lr"] = f"{options.lr:g} (batch size {options.batch_size})"
    if asked.layer_decay is None and (options.layer_decay or 1) < 1:
        reasons["layer_decay"] = f"{options.layer_decay:g} (each block learns slower than the next)"
    if asked.flip is None:
        reasons["flip"] = "yes" if options.flip else f"no (a mirrored image of {facts.name} shows something else)"
    if asked.full_scale is None and facts.full_scale is not None:
        reasons["full_scale"] = f"{facts.full_scale:g} (white in grey images of more than 8 bits or of floats)"
    scale = "" if options.crop_scale is None else f" (scale {options.crop_scale:g})"
    reasons["augmentation"] = (
        f"crop {options.crop}{scale}, RandAugment {options.rand_augment or 'off'}, "
        f"mixup {options.mixup:g}, cutmix {options.cutmix:g}"
    )
    return reasons
