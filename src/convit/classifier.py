"""A model that knows what it was trained for: weights, preprocessing and class names in one object and one folder."""

import inspect
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import safetensors.torch
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from convit.data import Preprocess, evaluation_transform, read_image, to_rgb
from convit.errors import InputError
from convit.models import ConViT, create_model

WEIGHTS = "model.safetensors"
CONFIG = "config.json"


@dataclass(frozen=True, slots=True)
class Prediction:
    """One class and how probable the model finds it, 0 to 1."""

    class_name: str
    probability: float


class Classifier:
    """An image classifier: ``model`` + ``preprocess`` + ``class_names``.

    Args:
        model: gives logits ``(B, classes)``.
        preprocess: how an image becomes the model's input.
        class_names: the classes in the order of the logits.
        model_name: the name that :func:`convit.create_model` made the model by.
        model_args: the keywords that it was made with, besides ``num_classes``; JSON values only.

    Raises:
        InputError: as many class names as outputs are needed, each once.
    """

    def __init__(
        self,
        model: ConViT,
        preprocess: Preprocess,
        class_names: Sequence[str],
        *,
        model_name: str,
        model_args: dict[str, Any] | None = None,
    ) -> None:
        if len(class_names) != model.num_classes or len(set(class_names)) != len(class_names):
            raise InputError(
                f"class_names: got {len(set(class_names))} different ones, expected {model.num_classes}, one per output"
            )
        self.model = model
        self.preprocess = preprocess
        self.class_names = tuple(class_names)
        self.model_name = model_name
        self.model_args = dict(model_args or {})

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def to(self, device: torch.device | str) -> Self:
        """Moves the model."""
        self.model.to(device)
        return self

    @torch.inference_mode()
    def probabilities(self, images: Iterable[Image.Image | str | Path], batch_size: int = 32) -> Tensor:
        """Probability of every class for every image, ``(images, classes)``, fp32 on the CPU.

        Args:
            images: pictures, or paths of pictures, of any size and mode.
            batch_size: how many run at once.

        Raises:
            InputError: a file that is no image.
        """
        self.model.eval()
        transform = evaluation_transform(self.preprocess)
        out: list[Tensor] = []
        batch: list[Tensor] = []

        def run() -> None:
            logits = self.model(torch.stack(batch).to(self.device, next(self.model.parameters()).dtype))
            out.append(logits.float().softmax(dim=-1).cpu())
            batch.clear()

        for image in images:
            batch.append(transform(to_rgb(image) if isinstance(image, Image.Image) else read_image(Path(image))))
            if len(batch) == batch_size:
                run()
        if batch:
            run()
        return torch.cat(out) if out else torch.empty(0, len(self.class_names))

    def predict(
        self, images: Image.Image | str | Path | Iterable[Image.Image | str | Path], top_k: int = 5
    ) -> list[list[Prediction]]:
        """The most probable classes of each image, best first.

        Args:
            images: one picture or path, or several.
            top_k: how many classes to give; all of them if there are fewer.

        Returns:
            For each image a list of ``top_k`` :class:`Prediction`.

        Raises:
            InputError: ``top_k`` below 1, or a file that is no image.
        """
        if top_k < 1:
            raise InputError(f"top_k: got {top_k}, expected at least 1")
        several = [images] if isinstance(images, Image.Image | str | Path) else images
        best = self.probabilities(several).topk(min(top_k, len(self.class_names)), dim=-1)
        return [
            [Prediction(self.class_names[i], p) for i, p in zip(row.tolist(), values.tolist(), strict=True)]
            for row, values in zip(best.indices, best.values, strict=True)
        ]

    def save(self, folder: str | Path) -> None:
        """Writes ``model.safetensors`` and ``config.json`` into ``folder``; timm can read the latter too."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        height, width = self.preprocess.image_size
        preprocess = self.preprocess.to_dict()
        del preprocess["image_size"]
        config = {
            "architecture": self.model_name,
            "num_classes": len(self.class_names),
            "model_args": self.model_args,
            "pretrained_cfg": {
                "num_classes": len(self.class_names),
                "input_size": [self.model.in_chans, height, width],
                **preprocess,
                "label_names": list(self.class_names),
            },
        }
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.model.state_dict().items()}
        # One after the other into place, so that a kill never leaves half a file.
        for name, content in (
            (WEIGHTS, safetensors.torch.save(tensors, metadata={"format": "pt"})),
            (CONFIG, json.dumps(config, indent=2, ensure_ascii=False).encode()),
        ):
            temporary = folder / f".{name}.tmp"
            temporary.write_bytes(content)
            temporary.replace(folder / name)

    @classmethod
    def load(cls, folder: str | Path, device: torch.device | str = "cpu") -> Self:
        """Reads what :meth:`save` wrote. Nothing that the files name is imported, nothing in them is executed.

        Raises:
            InputError: not such a folder, or files that do not fit together.
        """
        folder = Path(folder)
        for name in (CONFIG, WEIGHTS):
            if not (folder / name).is_file():
                found = "no such folder" if not folder.is_dir() else f"no {name} in it"
                raise InputError(f"{folder}: {found}; expected a run folder of 'convit train'")
        name, classes, args, preprocess = _read_config(folder / CONFIG)
        try:
            model = create_model(name, num_classes=len(classes), **args)
            classifier = cls(model, preprocess, classes, model_name=name, model_args=args)
        except (TypeError, ValueError, RuntimeError, AssertionError) as error:
            raise InputError(f"{folder / CONFIG}: {error}") from error
        try:
            model.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS))
        except (SafetensorError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{folder / WEIGHTS}: not the weights of {name} in {CONFIG} ({reason})") from error
        return classifier.to(device)


def load(path: str | Path, device: torch.device | str = "cpu") -> Classifier:
    """The classifier of a run folder; see :meth:`Classifier.load`."""
    return Classifier.load(path, device)


def _read_config(path: Path) -> tuple[str, list[str], dict[str, Any], Preprocess]:
    """Model name, class names, model arguments and preprocessing of a ``config.json``."""
    try:
        config = json.loads(path.read_bytes())
        cfg = dict(config["pretrained_cfg"])
        classes = cfg.pop("label_names")
        preprocess = {key: value for key, value in cfg.items() if key not in ("num_classes", "input_size")}
        preprocess["image_size"] = cfg["input_size"][1:]
        name, args = config["architecture"], config["model_args"]
        if not (isinstance(name, str) and isinstance(args, dict) and isinstance(classes, list)):
            raise TypeError("an entry of the wrong type")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path}: not a model's configuration ({error!r}); expected what 'convit train' writes"
        ) from error
    unknown = set(args) - set(inspect.signature(ConViT).parameters)
    if unknown:
        raise InputError(f"{path}: unknown model_args {sorted(unknown)}; expected arguments of ConViT")
    try:
        return name, [str(label) for label in classes], args, Preprocess.from_dict(preprocess)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
