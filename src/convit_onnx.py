"""An exported classifier on onnxruntime, numpy and Pillow, as ``convit predict MODEL.onnx IMAGE|FOLDER...`` has it.

Outside the package, whose import takes PyTorch and seconds.
"""

import json
import math
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import convit_launcher

_alone = "convit" not in sys.modules
convit_launcher.put_off_package()

from convit.errors import InputError, one_line  # noqa: E402

if _alone:  # whoever imports the package after this gets all of it
    del sys.modules["convit.errors"], sys.modules["convit"]

FORMAT = "1"


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
        detail = one_line(error, 1000).rpartition("failed:")[2][:160]
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
