"""``convit export RUN``: the run as one file for onnxruntime, or for PyTorch alone."""

import torch
from torch import Tensor, nn

from convit.choices import OPSET
from convit.classifier import Classifier, load
from convit.cli.evaluate import choose
from convit.cli.options.export import Options
from convit.cli.pictures import printable
from convit.cli.progress import Reporter
from convit.data import DataSource, ImageSet, open_source
from convit.errors import InputError
from convit.export import BATCHES, TOLERANCE, Exported, Run, export_onnx, export_torch, onnx_runner
from convit.train import evaluate
from convit.train.run import scanned
from convit.train.run_folder import RunFolder


def main(options: Options) -> None:
    """Exports, compares with PyTorch, and says how near the file is."""
    if options.format == "torch" and (options.int8 or options.opset != OPSET):
        raise InputError(f"format: got torch with --{'int8' if options.int8 else 'opset'}, expected --format onnx")
    name = "model.pt2" if options.format == "torch" else "model-int8.onnx" if options.int8 else "model.onnx"
    path = options.out or options.run / name
    classifier = load(options.run)
    if path.is_file() and not options.overwrite:
        raise InputError(f"{path}: exists; expected another --out FILE, or --overwrite")
    images = _labelled(options.data, classifier, RunFolder(options.run)) if options.data else None
    if options.format == "onnx":
        exported = export_onnx(
            classifier, path, dynamic_size=options.dynamic_size, int8=options.int8, opset=options.opset
        )
    else:
        exported = export_torch(classifier, path, dynamic_size=options.dynamic_size)
    _show(exported, classifier, options)
    if images is not None:
        _score(exported, classifier, *images)


def _show(exported: Exported, classifier: Classifier, options: Options) -> None:
    height, width = classifier.preprocess.image_size
    patch = classifier.model.patch_size
    size = f"any size in multiples of {patch}" if options.dynamic_size else f"{height} x {width}"
    weights = "int8" if options.int8 else "float32"
    print(
        f"{printable(str(exported.path))}: {exported.bytes / 1e6:.1f} MB, {weights} weights, "
        f"{len(classifier.class_names)} classes; takes batches of any size, {size} pixels"
    )
    sizes = ", ".join(f"{h} x {w}" for h, w in exported.image_sizes)
    print(
        f"largest difference from PyTorch: {exported.difference:.1e} of the largest logit (at most {TOLERANCE:.0e} is "
        f"taken), at batches of {', '.join(map(str, BATCHES))} and {sizes} pixels"
    )
    if exported.int8_difference is not None:
        print(f"  with int8 weights: {exported.int8_difference:.1e}")


def _labelled(data: str, classifier: Classifier, run: RunFolder) -> tuple[str, ImageSet]:
    """The images to score on, each of which decodes, and what they are called."""
    source = open_source(data, min_classes=1)
    part, images = choose(source, "auto", run)
    images = images.with_classes(classifier.class_names)
    whole = DataSource(name=source.name, root=source.root, class_names=images.class_names, parts={"whole": images})
    with Reporter(stderr=True) as reporter:
        chosen, _ = scanned(whole, skip_bad=False, observer=reporter)
    return f"{source.name}, {part} images", chosen.part("whole")


def _score(exported: Exported, classifier: Classifier, title: str, images: ImageSet) -> None:
    """Top-1 of the run and of the file on the same images."""
    ran: Run
    if exported.path.suffix.lower() == ".onnx":
        ran = onnx_runner(exported.path)
    else:
        ran = torch.export.load(exported.path).module()  # this process has just written it
    top1 = []
    with Reporter(stderr=True) as reporter:
        for model in (classifier.model, _File(ran)):
            reporter.begin("evaluating", len(images))
            top1.append(evaluate(model, images, classifier.preprocess, on_batch=reporter.advance).top1)
    print(f"top-1 on {printable(title)} ({len(images)}): PyTorch {top1[0]:.2f}%, this file {top1[1]:.2f}%")


class _File(nn.Module):
    """A file as a module that can be evaluated."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.function = (run,)  # in a tuple: an exported program is a module that does not know eval()
        self.device_of = nn.Parameter(torch.empty(0), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.function[0](images)
