"""``convit predict MODEL.onnx IMAGE|FOLDER...``: an exported classifier on onnxruntime, numpy and Pillow alone.

Outside the package, whose import takes PyTorch and seconds. What it needs of the package are modules that need no
more than numpy and Pillow themselves.
"""

import argparse
import errno
import importlib
import importlib.util
import json
import math
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from convit.cli.pictures import pictures, show, write_csv
    from convit.data.images import UnreadableImageError, read_image
    from convit.errors import InputError, nearest
else:

    def _of_the_package(*names: str) -> list[ModuleType]:
        """Modules of the package, without running the ``__init__`` of the packages that they are in."""
        if "convit" in sys.modules:
            return [importlib.import_module(name) for name in names]
        spec = importlib.util.find_spec("convit")  # finds it, and does not import it
        root = Path(spec.submodule_search_locations[0])
        try:
            for parent in {parent for name in names for parent in _parents(name)}:
                sys.modules[parent] = bare = ModuleType(parent)
                bare.__path__ = [str(root.joinpath(*parent.split(".")[1:]))]
            return [importlib.import_module(name) for name in names]
        finally:  # whoever imports the package after this gets all of it
            for name in [name for name in sys.modules if name.split(".")[0] == "convit"]:
                del sys.modules[name]

    def _parents(name: str) -> list[str]:
        """``convit`` and ``convit.data`` for ``convit.data.images``."""
        parts = name.split(".")
        return [".".join(parts[:i]) for i in range(1, len(parts))]

    _errors, _images, _cli = _of_the_package("convit.errors", "convit.data.images", "convit.cli.pictures")
    InputError, nearest = _errors.InputError, _errors.nearest
    UnreadableImageError, read_image = _images.UnreadableImageError, _images.read_image
    pictures, show, write_csv = _cli.pictures, _cli.show, _cli.write_csv

BATCH = 32
FORMAT = "1"
DISK_FAULTS = {errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT, errno.ENAMETOOLONG}
DISK_FAULTS |= {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}


class Prediction(NamedTuple):
    """One class and how probable the model finds it, 0 to 1."""

    class_name: str
    probability: float


class Preprocessing(NamedTuple):
    """How an image becomes the model's input; the fields of ``convit.data.Preprocess``."""

    image_size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    crop_pct: float


def is_onnx(argument: str) -> bool:
    """Whether an argument names an ONNX file, there or not. (A run folder may have any name.)"""
    return argument.lower().endswith(".onnx") and not Path(argument).is_dir()


class OnnxClassifier:
    """A file of ``convit export --format onnx``, on the CPU.

    Args:
        path: the file.

    Raises:
        InputError: no such file, not an ONNX file, or one that ``convit export`` did not write; no onnxruntime.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            found = "a folder" if self.path.is_dir() else "no such file"
            raise InputError(f"{path}: {found}; expected a file of 'convit export'")
        self.session = _session(self.path)
        facts = self.session.get_modelmeta().custom_metadata_map
        if facts.get("convit_format") != FORMAT:
            found = f"format {facts['convit_format']!r}" if "convit_format" in facts else "no convit metadata in it"
            raise InputError(f"{path}: {found}; expected a file that 'convit export' of this version wrote")
        try:
            self.class_names = tuple(str(name) for name in json.loads(facts["class_names"]))
            self.preprocessing = _preprocessing(json.loads(facts["preprocessing"]))
            self.model_name = facts["model_name"]
            (inputs,), (outputs,) = self.session.get_inputs(), self.session.get_outputs()
            self.input, self.output = inputs.name, outputs.name
            wanted = [3, *self.preprocessing.image_size]
            fits = all(isinstance(a, str) or a == b for a, b in zip(inputs.shape[1:], wanted, strict=True))
            if not fits or outputs.shape[1] != len(self.class_names):
                raise ValueError(f"{inputs.shape} to {outputs.shape}")
        except (ValueError, KeyError, TypeError, RecursionError, IndexError) as error:
            raise InputError(f"{path}: metadata that do not fit it ({error!r}); export it again") from error

    def probabilities(self, images: Iterable[Image.Image]) -> NDArray[np.float32]:
        """Probability of every class for every RGB image, ``(images, classes)``."""
        batch = np.stack([preprocess(image, self.preprocessing) for image in images])
        logits = self.session.run([self.output], {self.input: batch})[0]
        exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
        return exponents / exponents.sum(axis=1, keepdims=True)

    def predict(self, images: Sequence[Image.Image], top_k: int = 5) -> list[list[Prediction]]:
        """The most probable classes of each RGB image, best first."""
        if not images:
            return []
        probabilities = self.probabilities(images)
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
        return [
            [Prediction(self.class_names[i], float(row[i])) for i in order]
            for row, order in zip(probabilities, best.tolist(), strict=True)
        ]


def preprocess(image: Image.Image, settings: Preprocessing) -> NDArray[np.float32]:
    """RGB image of any size to ``(3, height, width)``: pixel by pixel ``convit.data.evaluation_transform``.

    It is scaled until it just covers ``image_size / crop_pct``, the centre is cut out, and every channel becomes
    ``(value / 255 - mean) / std``.
    """
    height, width = settings.image_size
    image = _without_far_ends(image, 8 * max(height, width) / min(height, width))
    target = math.floor(height / settings.crop_pct), math.floor(width / settings.crop_pct)
    if target[0] == target[1]:
        short, long = min(image.size), max(image.size)
        sides = target[0], int(target[0] * long / short)
        size = sides if image.width <= image.height else sides[::-1]
    else:
        ratio = min(image.height / target[0], image.width / target[1])
        size = round(image.width / ratio), round(image.height / ratio)
    image = image.resize(size, Image.Resampling[settings.interpolation.upper()])
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    pixels = np.asarray(image.crop((left, top, left + width, top + height)), dtype=np.float32) / np.float32(255)
    normal = (pixels - np.asarray(settings.mean, np.float32)) / np.asarray(settings.std, np.float32)
    return np.ascontiguousarray(normal.transpose(2, 0, 1))


def _without_far_ends(image: Image.Image, limit: float) -> Image.Image:
    """A very long image without its ends, which the crop drops anyway; scaled up, they would take gigabytes."""
    width, height = image.size
    longest = math.ceil(limit * min(width, height))
    if max(width, height) <= longest:
        return image
    left, top = max(width - longest, 0) // 2, max(height - longest, 0) // 2
    return image.crop((left, top, left + min(width, longest), top + min(height, longest)))


def _session(path: Path) -> Any:
    # Without it onnxruntime 1.31 gives the machine a number, in ~/.cache/Microsoft; a user's own value stays.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(f'{path}: onnxruntime is not installed, expected: pip install "convit[export]"') from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised as well
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has exceptions of its own, without a common class
        state = "an empty file" if path.stat().st_size == 0 else "not an ONNX file, or a damaged or truncated one"
        detail = " ".join(str(error).split()).rpartition("failed:")[2][:160]
        raise InputError(f"{path}: {state} ({detail}); expected a file of 'convit export'") from error


def _preprocessing(entries: dict[str, Any]) -> Preprocessing:
    fitting: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entries.items()}
    settings = Preprocessing(**fitting)
    sides = [type(side) is int and side > 0 for side in settings.image_size]
    channels = [float(value) for value in (*settings.mean, *settings.std)]
    if sides != [True, True] or len(channels) != 6 or not 0 < settings.crop_pct <= 1:
        raise ValueError(f"preprocessing {entries}")
    Image.Resampling[settings.interpolation.upper()]
    return settings


# -- the command line: the form of 'convit predict RUN', without the libraries that it is made with --------------------


def main(arguments: Sequence[str]) -> int:
    """Predicts and prints; returns the exit status."""
    try:
        _run(_parse(arguments))
    except InputError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail("interrupted", 128 + signal.SIGINT)
    except BrokenPipeError:  # the reader, such as head, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno not in DISK_FAULTS:
            raise
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror}; expected a place with room that can be written to")
    return 0


def _fail(message: str, status: int = 2) -> int:
    print(f"convit predict: {' '.join(message.split())}", file=sys.stderr)
    return status


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see 'convit predict MODEL.onnx --help'")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="convit predict",
        description="Classify pictures with a file of 'convit export', on onnxruntime: PyTorch is not needed.",
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL.onnx", type=Path, help="a file of 'convit export --format onnx'")
    parser.add_argument("images", metavar="IMAGE|FOLDER", type=Path, nargs="*", help="pictures, or folders of pictures")
    parser.add_argument("--top-k", metavar="N", default="5", help="how many classes to give for each picture [5]")
    parser.add_argument("--csv", metavar="FILE", type=Path, help="write a table to this file")
    parser.add_argument("--json", metavar="FILE", help="print one JSON document, or write it to this .json file")
    parser.add_argument("--device", metavar="cpu", default="auto", help="an .onnx file is computed on the CPU")
    parser.add_argument("--skip-bad", action="store_true", help="go on past files that do not decode; each is named")
    options, unknown = parser.parse_known_intermixed_args(_with_json_value(arguments))
    if unknown:
        known = ("--top-k", "--csv", "--json", "--device", "--skip-bad")
        parser.error(f"unknown option or argument {unknown[0]!r}{nearest(unknown[0], known)}")
    if not is_onnx(str(options.model)):
        raise InputError(f"{options.model}: not an .onnx file; expected MODEL.onnx first, then pictures or folders")
    if not options.images:
        raise InputError("images: got none, expected at least one picture or folder")
    if options.device not in ("auto", "cpu"):
        raise InputError(f"device: got {options.device!r}, expected cpu: an .onnx file is computed there")
    try:
        options.top_k = int(options.top_k)
    except ValueError:
        parser.error(f"--top-k: got {options.top_k}, expected a number")
    if options.top_k < 1:
        raise InputError(f"top_k: got {options.top_k}, expected at least 1")
    return options


def _with_json_value(arguments: Sequence[str]) -> list[str]:
    """``--json`` alone means standard output; only a name that ends in ``.json`` (or ``-``) is its file."""
    out = []
    for argument, following in zip(arguments, (*arguments[1:], ""), strict=True):
        bare = argument == "--json" and not (following.endswith(".json") or following == "-")
        out.append("--json=-" if bare else argument)
    return out


def _run(options: argparse.Namespace) -> None:
    classifier = OnnxClassifier(options.model)
    paths = list(pictures(options.images))
    results: list[tuple[Path, list[Prediction]]] = []
    for start in range(0, len(paths), BATCH):
        readable, images = [], []
        for path in paths[start : start + BATCH]:
            try:
                images.append(read_image(path))
                readable.append(path)
            except UnreadableImageError as error:
                if not options.skip_bad:
                    raise InputError(f"{error}; mend it, or leave such files out with --skip-bad") from error
                print(f"left out: {error}", file=sys.stderr)
        results += zip(readable, classifier.predict(images, options.top_k), strict=True)
    if options.csv:
        write_csv(results, options.csv)
    if options.json:
        document = [
            {"image": str(path), "predictions": [{"class": p.class_name, "probability": p.probability} for p in best]}
            for path, best in results
        ]
        text = json.dumps(document, indent=1, ensure_ascii=False)
        if options.json == "-":
            print(text)
            sys.stdout.flush()
            return
        Path(options.json).write_text(text + "\n", encoding="utf-8")
    show(results)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
