"""``convit bench``: speed and memory beside plain attention and timm, in one interleaved run."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor

import convit_onnx
from convit.benchmark.cases import PRESETS, Case, grid_of_cases
from convit.benchmark.loading import make_photos, measure_loading
from convit.benchmark.machine import machine_facts
from convit.benchmark.memory import check_memory_is_measurable
from convit.benchmark.report import Report
from convit.benchmark.table import table
from convit.benchmark.timing import measure
from convit.cli.options.bench import BenchCommand
from convit.cli.output import print_or_write_json
from convit.cli.screen import Screen
from convit.data import ImageSet, open_source
from convit.device import pick_device
from convit.errors import InputError, one_line
from convit.events import Said
from convit.export import onnx_runner
from convit.files import parse_json
from convit.models.ranges import check_of_file, check_ranges
from convit.training.memory import size_words


def main(options: BenchCommand) -> None:
    """Measures and prints the table."""
    if options.preset == "data":
        _loading(options)
        return
    exported = _exported(options.onnx) if options.onnx else None
    cases, device = _cases(options, exported), _device(options)
    if any(case.memory for case in cases):
        check_memory_is_measurable(device)
    if options.json not in (None, "-") and Path(options.json).suffix.lower() != ".json":
        raise InputError(f"json: got {options.json}, expected the name of a .json file")
    _check_memory(cases, device)
    if options.threads:
        torch.set_num_threads(options.threads)
    run: Callable[[Tensor], Tensor] | None = None
    if exported:
        run = onnx_runner(exported.path, threads=torch.get_num_threads())
    with Screen(stderr=True) as screen:
        measured = measure(
            cases, device=device, rivals=options.against, rounds=options.rounds, exported=run, tell=screen
        )
    report = Report(facts=machine_facts(device), cases=measured)
    if not print_or_write_json(report.to_dict(), options.json):
        print(table(report))


def _loading(options: BenchCommand) -> None:
    """Measures loading beside a step, and prints what each part of it takes."""
    _check_alone(options, "memory")
    if options.threads:
        torch.set_num_threads(options.threads)
    with TemporaryDirectory() as folder, Screen(stderr=True) as screen:
        place = Path(folder)
        if options.data is None:
            screen(Said(f"making {MADE} photos of 12 megapixels"))
            images: ImageSet = make_photos(place / "photos", MADE)
        else:
            source = open_source(options.data)
            images = next(source.splits[split] for split in ("train", "all", "val", "test") if split in source.splits)
        loading = measure_loading(images, place / "copies", pick_device(options.device), screen)
    if not print_or_write_json(loading.to_dict(), options.json):
        print("\n".join((*machine_facts(pick_device(options.device)).lines(), "", *loading.lines())))


MADE = 12
"""Photos, where none are given."""


class _Exported(NamedTuple):
    """What an exported file says of itself."""

    path: Path
    model: str
    model_args: dict[str, Any]
    patch: int
    num_classes: int
    image_size: tuple[int, int]
    any_size: bool


def _exported(path: Path) -> _Exported:
    """Raises :class:`InputError` for what 'convit export' did not write."""
    file = convit_onnx.OnnxClassifier(path)
    facts = file.session.get_modelmeta().custom_metadata_map
    try:
        model_args = dict(parse_json(facts.get("model_args", "{}")))
        patch, any_size = parse_json(facts["patch_size"]), facts["dynamic_size"] == "true"
        check_of_file(model_args)
        check_ranges({"patch_size": patch})
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: metadata that do not fit it ({one_line(error)}); export it again") from error
    return _Exported(
        path=path,
        model=file.model_name,
        model_args=model_args,
        patch=patch,
        num_classes=len(file.class_names),
        image_size=file.preprocess.image_size,
        any_size=any_size,
    )


def _device(options: BenchCommand) -> torch.device:
    if options.onnx and options.device not in ("auto", "cpu"):
        raise InputError(f"device: got {options.device} with --onnx, expected cpu: an .onnx file is computed there")
    chosen = "cpu" if options.onnx else PRESETS[options.preset].device if options.preset else "auto"
    return pick_device(chosen if options.device == "auto" else options.device)


def _cases(options: BenchCommand, exported: _Exported | None) -> tuple[Case, ...]:
    """The cases of the preset or of the options, for the model of the exported file if there is one."""
    if options.preset:
        _check_alone(options)
        cases = PRESETS[options.preset].cases
    else:
        own = [max(exported.image_size)] if exported else ()
        cases = grid_of_cases(
            models=options.models or ([exported.model] if exported else ["convit_tiny_patch16_224"]),
            image_sizes=options.image_size or own,
            batch_sizes=options.batch_size or (16,),
            modes=options.mode or ("forward", "train"),
            precisions=options.precision or ("fp32",),
            compiled=options.compile,
            patch=exported.patch if exported else None,
            num_classes=exported.num_classes if exported else 1000,
        )
    if exported:
        _check_exported(exported, cases)
        cases = tuple(replace(case, model_args=exported.model_args) for case in cases)
    return tuple(replace(case, memory=True) for case in cases) if options.memory else cases


def _check_alone(options: BenchCommand, *more: str) -> None:
    """Raises :class:`InputError` for a preset beside options that say what to measure."""
    for name in ("models", "image_size", "batch_size", "mode", "precision", "compile", "onnx", *more):
        if getattr(options, name):
            raise InputError(f"preset: got it with {name.replace('_', '-')}, expected one of the two")


def _check_exported(exported: _Exported, cases: Sequence[Case]) -> None:
    """Raises :class:`InputError` where the cases are not the file's."""
    if other := next((case.model for case in cases if case.model != exported.model), None):
        raise InputError(f"onnx: {exported.path} is {exported.model}, got the model {other}, expected none or that one")
    if not any((case.mode, case.precision) == ("forward", "fp32") for case in cases):
        raise InputError("onnx: a file is measured forward in fp32, got no such case, expected --mode forward")
    sizes = {case.image_size for case in cases}
    if not exported.any_size and sizes != {*exported.image_size}:
        height, width = exported.image_size
        wrong = max(sizes - {*exported.image_size}, default=height)
        raise InputError(
            f"onnx: {exported.path} takes {height} x {width} pixels, got {wrong} x {wrong}, expected a file of "
            "'convit export --dynamic-size'"
        )


def _check_memory(cases: Sequence[Case], device: torch.device) -> None:
    """Raises :class:`InputError` for images that alone take more memory than the device has, in fp32."""
    if device.type == "cuda":
        there = torch.cuda.get_device_properties(device).total_memory
    elif hasattr(os, "sysconf"):
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        return
    for case in cases:
        images = case.batch_size * 3 * 4
        if (taken := images * case.image_size**2) > there:
            raise InputError(
                f"image-size: got {case.image_size} with batch-size {case.batch_size}: the images alone take "
                f"{size_words(taken)} of memory, and {size_words(there)} are there; expected less, and far less than "
                f"--image-size {math.isqrt(there // images)}"
            )
