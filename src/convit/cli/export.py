"""``convit export RUN``: the run as one file for onnxruntime, or for PyTorch alone."""

import torch
from torch import Tensor, nn

from convit import hub
from convit.choices import OPSET
from convit.classifier import Classifier
from convit.cli.options.export import ExportCommand
from convit.cli.output import left_out_lines
from convit.cli.runs import load_run
from convit.cli.screen import Screen
from convit.data.select import Evaluating, Selection, select
from convit.errors import InputError
from convit.events import Advanced, PassBegan, Said
from convit.export import Exported, export_onnx, export_torch, onnx_runner
from convit.export_space import PAGE, export_space, push_space
from convit.export_verification import BATCHES, TOLERANCE, Run
from convit.export_web import MOST_DIFFERENCE, WebPage, export_web
from convit.files import check_output, printable
from convit.intervals import rate_with_interval
from convit.training import evaluate
from convit.training.run_folder import RunFolder


def main(options: ExportCommand) -> None:
    """Exports, compares with PyTorch, and says how near the file is."""
    _check_format(options)
    if options.push is not None:
        hub.check_repo_id(options.push)
    onnx = "model-int8.onnx" if options.int8 else "model.onnx"
    name = {"torch": "model.pt2", "web": "model.html", "space": "space", "onnx": onnx}[options.format]
    path = options.out or options.run / name
    if options.run.is_dir():  # else that is what is wrong
        check_output("out", path, folder=options.format == "space")
    classifier = load_run(options.run, "cpu", options.views)
    there = path / PAGE if options.format == "space" else path
    if there.is_file() and not options.overwrite:
        raise InputError(f"{there}: exists; expected another --out, or --overwrite")
    if options.format == "space":
        _show_page(export_space(classifier, path, license=options.license), classifier)
        if options.push is not None:
            print(f"uploaded to {push_space(path, options.push)}")
        return
    if options.format == "web":
        _show_page(export_web(classifier, path), classifier)
        return
    selection = None
    if options.data is not None:
        with Screen(stderr=True) as screen:
            known, full_scale = RunFolder(options.run).known(), classifier.preprocess.full_scale
            selection = select(options.data, Evaluating(known=known, full_scale=full_scale, tell=screen))
            for note in (*selection.notes, *left_out_lines(selection.left_out)):
                screen(Said(note))
    if options.format == "onnx":
        exported = export_onnx(
            classifier, path, dynamic_size=options.dynamic_size, int8=options.int8, opset=options.opset
        )
    else:
        exported = export_torch(classifier, path, dynamic_size=options.dynamic_size)
    _show(exported, classifier, options)
    if selection is not None:
        _score(exported, classifier, selection)


def _check_format(options: ExportCommand) -> None:
    """Options that only some formats have."""
    files = ("onnx", "torch")
    fitting = {"int8": ("onnx",), "opset": ("onnx",), "dynamic-size": files, "data": files, "views": files}
    fitting |= {"license": ("space",), "push": ("space",)}
    given = {"int8": options.int8, "opset": options.opset != OPSET, "dynamic-size": options.dynamic_size}
    given |= {"data": options.data is not None, "views": options.views != "one"}
    given |= {"license": options.license is not None, "push": options.push is not None}
    for name, is_given in given.items():
        if is_given and options.format not in fitting[name]:
            others = " or ".join(f"--format {other}" for other in fitting[name])
            raise InputError(f"format: got {options.format} with --{name}, expected {others}")


def _show_page(page: WebPage, classifier: Classifier) -> None:
    height, width = classifier.preprocess.image_size
    print(
        f"{printable(str(page.path))}: {page.bytes / 1e6:.1f} MB, {page.weights} weights, "
        f"{len(classifier.class_names)} classes, {height} x {width} pixels; open it in a browser"
    )
    print(
        f"largest change of a logit by fp16 weights: {page.difference:.1e} of the largest logit (at most "
        f"{MOST_DIFFERENCE:.0e} is taken)"
    )


def _show(exported: Exported, classifier: Classifier, options: ExportCommand) -> None:
    height, width = classifier.preprocess.image_size
    patch = classifier.model.patch_size
    size = f"any size in multiples of {patch}" if options.dynamic_size else f"{height} x {width}"
    weights, batch = ("int8", "one image at a time") if options.int8 else ("float32", "batches of any size")
    print(
        f"{printable(str(exported.path))}: {exported.bytes / 1e6:.1f} MB, {weights} weights, "
        f"{len(classifier.class_names)} classes; takes {batch}, {size} pixels"
    )
    sizes = ", ".join(f"{h} x {w}" for h, w in exported.image_sizes)
    print(
        f"largest difference from PyTorch: {exported.difference:.1e} of the largest logit (at most {TOLERANCE:.0e} is "
        f"taken), at batches of {', '.join(map(str, BATCHES))} and {sizes} pixels"
    )
    if exported.int8_difference is not None:
        print(f"  with int8 weights: {exported.int8_difference:.1e}")


def _score(exported: Exported, classifier: Classifier, selection: Selection) -> None:
    """Top-1 of the run and of the file on the same images."""
    ((split, images),) = selection.splits.items()
    ran: Run
    if exported.path.suffix.lower() == ".onnx":
        ran = onnx_runner(exported.path)
    else:
        ran = torch.export.load(exported.path).module()  # this process has just written it
    accuracies = []
    with Screen(stderr=True) as screen:
        for model in (classifier.model, _File(ran)):
            screen(PassBegan("evaluating", len(images)))
            result = evaluate(model, images, classifier.preprocess, on_batch=lambda count: screen(Advanced(count)))
            accuracies.append(rate_with_interval(result.right, result.num_images))
    title = printable(f"{selection.name}, {split} images")
    print(f"top-1 on {title} ({len(images)}): PyTorch {accuracies[0]}, this file {accuracies[1]}")


class _File(nn.Module):
    """A file as a module that can be evaluated."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.function = (run,)  # in a tuple: an exported program is a module that does not know eval()
        self.device_of = nn.Parameter(torch.empty(0), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.function[0](images)
