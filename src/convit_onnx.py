"""An exported classifier on onnxruntime, numpy and Pillow, as ``convit predict MODEL.onnx IMAGE|FOLDER...`` has it.

Imports nothing of PyTorch.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convit.answers import Answer, answers, thresholds
from convit.calibration import Calibration, probabilities_of
from convit.errors import InputError, brief, one_line
from convit.files import kind_of, parse_json
from convit.prediction import Prediction, check_class_names
from convit.preprocess import Preprocess, prepared

FORMAT = "1"
"""Of the metadata."""
NO_TELEMETRY = ("ORT_DISABLE_TELEMETRY", "1")
"""Without it onnxruntime 1.31 gives the machine a number, in ~/.cache/Microsoft; a user's own value stays."""
MOST_BYTES = 1 << 31
"""Of a file: Protocol Buffers have no more."""
CHECKSUM, NO_CHECKSUM = "sha256", "0" * 64
"""A name in the metadata, and its value while the checksum is computed over the whole file."""
_MARK = b"\n\x06sha256\x12@"
"""What is before the checksum: the name and the length of the value, as Protocol Buffers have them."""


def check_file(path: Path) -> None:
    """Raises :class:`InputError` where there is no file."""
    if not path.is_file():
        raise InputError(f"{path}: {kind_of(path)}; expected a file of 'convit export'")


class OnnxClassifier:
    """A file of ``convit export --format onnx``, on the CPU.

    Args:
        path: the file.

    Raises:
        InputError: no such file, not an ONNX file, or one that ``convit export`` did not write; no onnxruntime.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        check_file(self.path)
        self.session = _session(self.path)
        try:
            facts = self.session.get_modelmeta().custom_metadata_map
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: metadata that are no text; expected a file of 'convit export'") from error
        if facts.get("convit_format") != FORMAT:
            found = (
                f"format {brief(facts['convit_format'])}" if "convit_format" in facts else "no convit metadata in it"
            )
            raise InputError(f"{path}: {found}; expected a file that 'convit export' of this version wrote")
        try:
            names, preprocessing = parse_json(facts["class_names"]), parse_json(facts["preprocessing"])
            if not isinstance(names, list):
                raise ValueError(f"class_names: got {brief(names)}, expected a list of texts")
            if not isinstance(preprocessing, dict):
                raise ValueError(f"preprocessing: got {brief(preprocessing)}, expected an object")
            check_class_names(names, len(names))
            self.class_names = tuple(names)
            self.preprocess = Preprocess.from_dict(preprocessing)
            self.model_name = facts["model_name"]
            calibration = parse_json(facts.get("calibration", "null"))
            self.calibration = None if calibration is None else Calibration.from_dict(calibration)
            (inputs,), (outputs,) = self.session.get_inputs(), self.session.get_outputs()
            self.input, self.output = inputs.name, outputs.name
            self.one_at_a_time = inputs.shape[:1] == [1]
            _check_place(inputs, (3, *self.preprocess.image_size), one=self.one_at_a_time)
            _check_place(outputs, (len(self.class_names),), one=self.one_at_a_time)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: metadata that do not fit it ({one_line(error)}); export it again") from error

    def probabilities(self, images: Iterable[Image.Image]) -> NDArray[np.float32]:
        """Probability of every class for every upright image, ``(images, classes)``; of one image at least.

        The file's logits are divided by its temperature already.
        """
        return probabilities_of(self._logits(images))

    def answer(
        self,
        images: Iterable[Image.Image],
        top_k: int = 5,
        *,
        reject: float | None = None,
        coverage: float | None = None,
    ) -> list[Answer]:
        """An answer for each upright image, as :meth:`convit.classifier.Classifier.answer` gives it."""
        wanted, rest = thresholds(self.calibration, reject, coverage), iter(images)
        first = next(rest, None)
        return [] if first is None else answers(self._logits(chain([first], rest)), self.class_names, top_k, wanted)

    def _logits(self, images: Iterable[Image.Image]) -> NDArray[np.float32]:
        """``(images, classes)``, divided by the temperature; of one image at least."""
        batch = np.stack([prepared(image, self.preprocess) for image in images])
        parts = np.split(batch, len(batch)) if self.one_at_a_time else [batch]
        try:
            logits = np.concatenate([self.session.run([self.output], {self.input: part})[0] for part in parts])
        except Exception as error:  # onnxruntime has exceptions of its own, without a common class
            raise InputError(f"{self.path}: does not run ({_detail(error)}); export it again") from error
        if logits.shape != (len(batch), len(self.class_names)) or not np.isfinite(logits).all():
            found = f"of shape {logits.shape}" if np.isfinite(logits).all() else "that are not finite"
            raise InputError(f"{self.path}: answers {found}, expected a number for each class; export it again")
        finite: NDArray[np.float32] = logits
        return finite

    def predict(self, images: Iterable[Image.Image], top_k: int = 5) -> list[list[Prediction]]:
        """The most probable classes of each upright image, best first."""
        return [answer.predictions for answer in self.answer(images, top_k)]


def _check_place(place: Any, sizes: tuple[int, ...], *, one: bool) -> None:
    """Whether an input or output is a batch of floats of these sizes; a size may be open. one: a batch of one image.

    Raises:
        ValueError: it is not.
    """
    found, wanted = place.shape, (None, *sizes)
    fits = len(found) == len(wanted) and all(
        not isinstance(is_, int) or is_ == should for is_, should in zip(found[1:], wanted[1:], strict=True)
    )
    batch = isinstance(found[0], int) if found else True
    if place.type != "tensor(float)" or not fits or (batch and not (one and found[0] == 1)):
        said = f"{place.type} of {brief(found)}"
        raise ValueError(f"{brief(place.name)} is a {said}, expected a tensor(float) of ['batch', {sizes}]")


def _session(path: Path) -> Any:
    os.environ.setdefault(*NO_TELEMETRY)
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(f'{path}: onnxruntime is not installed, expected: pip install "convit[export]"') from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised as well
    if (size := path.stat().st_size) >= MOST_BYTES:
        raise InputError(f"{path}: {size} bytes, expected fewer than {MOST_BYTES}, as every ONNX file has")
    content = path.read_bytes()
    try:
        check_self_contained(content)
        check_whole(content)
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # onnxruntime has exceptions of its own, without a common class
        state = "not an ONNX file, or a damaged or truncated one" if content else "an empty file"
        raise InputError(f"{path}: {state} ({_detail(error)}); expected a file of 'convit export'") from error


def _detail(error: Exception) -> str:
    return one_line(error, 1000).rpartition("failed:")[2][:160]


def with_checksum(content: bytes) -> bytes:
    """An ONNX file that has :data:`NO_CHECKSUM` in its metadata, with its checksum there."""
    at = content.rfind(_MARK + NO_CHECKSUM.encode()) + len(_MARK)
    return content[:at] + hashlib.sha256(content).hexdigest().encode() + content[at + len(NO_CHECKSUM) :]


def check_whole(content: bytes) -> None:
    """Refuses an ONNX file that is not as it was written: one changed bit would give other answers unnoticed.

    Raises:
        InputError: it has the checksum of another content. A file without one is taken.
    """
    found = content.rfind(_MARK)
    at = found + len(_MARK)
    if found >= 0 and content != with_checksum(content[:at] + NO_CHECKSUM.encode() + content[at + len(NO_CHECKSUM) :]):
        raise InputError(
            "damaged, or changed by another program: not what was written (checksum); expected it as 'convit export' "
            f"wrote it, or without the entry {CHECKSUM!r} in its metadata"
        )


# -- what a file refers to ---------------------------------------------------------------------------------------------

_PARTS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
"""The parts of an ONNX file that can have tensors in them: by the numbers of onnx.proto's fields, the kind of part."""
_EXTERNAL_DATA, _DATA_LOCATION, _DEEPEST = 13, 14, 64


def check_self_contained(content: bytes) -> None:
    """Refuses an ONNX file whose tensors lie in other files: they could be any on this machine.

    onnxruntime would open them as it loads the file, so the file is looked through before, as Protocol Buffers.

    Raises:
        InputError: data in another file; not the form of Protocol Buffers.
    """
    parts: list[tuple[str, int, int, int]] = [("model", 0, len(content), 0)]
    while parts:
        kind, begin, end, depth = parts.pop()
        if depth > _DEEPEST:
            raise InputError(f"parts within parts, more than {_DEEPEST}; expected a file of 'convit export'")
        for number, start, stop in _fields(content, begin, end):
            if kind == "tensor" and number in (_EXTERNAL_DATA, _DATA_LOCATION) and any(content[start:stop]):
                raise InputError("its weights are in another file, which is not read; expected all of them in it")
            if number in _PARTS[kind]:
                parts.append((_PARTS[kind][number], start, stop, depth + 1))


def _fields(content: bytes, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The number, the beginning and the end of each field of a message of Protocol Buffers.

    Raises:
        InputError: it has not their form.
    """
    at = begin
    while at < end:
        key, at = _varint(content, at, end)
        number, form = key >> 3, key & 7
        start = at
        if form == 0:
            _, at = _varint(content, at, end)
        elif form == 2:
            length, start = _varint(content, at, end)
            at = start + length
        else:
            at += {1: 8, 5: 4}.get(form, end + 1)  # groups are of no version of ONNX
        if at > end:
            raise InputError("not an ONNX file, or a damaged or truncated one; expected a file of 'convit export'")
        yield number, start, at


def _varint(content: bytes, at: int, end: int) -> tuple[int, int]:
    """A number in base 128, lowest digit first, and where it ends."""
    value = shift = 0
    while at < end and shift < 70:
        byte = content[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at
    return 0, end + 1
