"""An exported classifier on onnxruntime, numpy and Pillow, as ``convit predict MODEL.onnx IMAGE|FOLDER...`` has it.

Outside the package, whose import takes PyTorch and seconds.
"""

import json
import os
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convit_light import light_modules

with light_modules():
    from convit.errors import InputError, one_line
    from convit.files import kind_of
    from convit.prediction import Prediction, ranked
    from convit.preprocess import Preprocess, prepared

FORMAT = "1"


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
            raise InputError(f"{path}: {kind_of(self.path)}; expected a file of 'convit export'")
        self.session = _session(self.path)
        facts = self.session.get_modelmeta().custom_metadata_map
        if facts.get("convit_format") != FORMAT:
            found = f"format {facts['convit_format']!r}" if "convit_format" in facts else "no convit metadata in it"
            raise InputError(f"{path}: {found}; expected a file that 'convit export' of this version wrote")
        try:
            self.class_names = tuple(str(name) for name in json.loads(facts["class_names"]))
            self.preprocess = Preprocess.from_dict(json.loads(facts["preprocessing"]))
            self.model_name = facts["model_name"]
            (inputs,), (outputs,) = self.session.get_inputs(), self.session.get_outputs()
            self.input, self.output = inputs.name, outputs.name
            self.one_at_a_time = inputs.shape[0] == 1
            wanted = [3, *self.preprocess.image_size]
            fits = all(isinstance(a, str) or a == b for a, b in zip(inputs.shape[1:], wanted, strict=True))
            if not fits or outputs.shape[1] != len(self.class_names):
                raise ValueError(f"{inputs.shape} to {outputs.shape}")
        except (ValueError, KeyError, TypeError, RecursionError, IndexError) as error:
            raise InputError(f"{path}: metadata that do not fit it ({error!r}); export it again") from error

    def probabilities(self, images: Iterable[Image.Image]) -> NDArray[np.float32]:
        """Probability of every class for every upright image, ``(images, classes)``; of one image at least."""
        batch = np.stack([prepared(image, self.preprocess) for image in images])
        parts = np.split(batch, len(batch)) if self.one_at_a_time else [batch]
        logits = np.concatenate([self.session.run([self.output], {self.input: part})[0] for part in parts])
        exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
        return exponents / exponents.sum(axis=1, keepdims=True)

    def predict(self, images: Iterable[Image.Image], top_k: int = 5) -> list[list[Prediction]]:
        """The most probable classes of each upright image, best first."""
        rest = iter(images)
        first = next(rest, None)
        return [] if first is None else ranked(self.probabilities(chain([first], rest)), self.class_names, top_k)


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
