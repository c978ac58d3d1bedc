"""A model with its preprocessing and class names, in one object and one folder.

Longer than other files: all that one does with a trained model is a method of one class, most of it docstrings.
"""

import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from convit import files, hub
from convit.answers import Answer, answers, thresholds
from convit.calibration import Calibration, entry_of
from convit.classifier_config import fingerprint_of_config
from convit.classifier_folder import CONFIG, WEIGHTS
from convit.data import Preprocess, evaluation_transform
from convit.data.images import Encoded, Picture, as_rgb, is_file
from convit.errors import InputError, brief, is_whole
from convit.layers import GatedPositionalSelfAttention
from convit.model_card import MARKER, Described, TrainingFacts, model_card
from convit.models import ConViT
from convit.models.average import Average, AverageOf, Mirrored
from convit.models.seal import checksum_in, sealed
from convit.models.stem import patch_grid
from convit.models.unchanged import check_unchanged
from convit.prediction import Prediction, check_class_names, ranked

CARD = "README.md"


class Classifier:
    """An image classifier: ``model`` + ``preprocess`` + ``class_names``.

    Args:
        model: gives logits ``(B, classes)``.
        preprocess: how an image becomes the model's input.
        class_names: the classes in the order of the logits.
        model_name: the model's name for :func:`convit.create_model`.
        model_args: the keywords that it was made with, besides ``num_classes``; JSON values only.
        training: how it was trained, for its model card.
        calibration: its temperature, which probabilities are computed with; None for 1, not calibrated.

    Raises:
        InputError: the number of class names is not that of the outputs, or a name is no text or there twice; a model
            that answers for every token, or that does not take images of this size.
    """

    def __init__(
        self,
        model: ConViT,
        preprocess: Preprocess,
        class_names: Sequence[str],
        *,
        model_name: str,
        model_args: dict[str, Any] | None = None,
        training: TrainingFacts | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        check_class_names(class_names, model.num_classes)
        if isinstance(model, ConViT):  # a study trains other models in its place
            check_input(model, preprocess)
        self.model = model
        self.preprocess = preprocess
        self.class_names = tuple(class_names)
        self.model_name = model_name
        self.model_args = dict(model_args or {})
        self.training = training
        self.calibration = calibration
        self.loaded: tuple[Calibration | None, str] = (None, "")
        """The calibration of the folder that it was loaded from, and the checksum of the weights that it is of, if
        they have one."""

    @property
    def temperature(self) -> float:
        """What logits are divided by before their softmax: that of :attr:`calibration`, or 1."""
        return 1.0 if self.calibration is None else self.calibration.temperature

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def to(self, device: torch.device | str) -> Self:
        """Moves the model."""
        self.model.to(device)
        return self

    @torch.inference_mode()
    def probabilities(self, images: Picture | Iterable[Picture], batch_size: int = 32) -> Tensor:
        """Probability of every class for every image, ``(images, classes)``, fp32 on the CPU; of one image a row.

        ``softmax(logits / T)``, T the :attr:`temperature`.

        Args:
            images: pictures, their paths, files open to read bytes, or arrays (:data:`Picture`), of any size and mode.
            batch_size: how many run at once.

        Raises:
            InputError: a file that is no image, an array of another form, or something else; a model whose answers are
                not finite.
        """
        return self._logits(images, batch_size).softmax(dim=-1)

    def _logits(self, images: Picture | Iterable[Picture], batch_size: int = 32) -> Tensor:
        """Logits divided by the :attr:`temperature`, ``(images, classes)``, fp32 on the CPU."""
        batch_size = _count("batch_size", batch_size)
        _, several = _as_several(images)
        training = [module for module in self.model.modules() if module.training]
        self.model.eval()
        try:
            return self._evaluated(several, batch_size)
        finally:
            for module in training:
                module.training = True

    def _evaluated(self, several: Iterable[Picture], batch_size: int) -> Tensor:
        """The same, of a model in evaluation mode."""
        transform = evaluation_transform(self.preprocess)
        out: list[Tensor] = []
        batch: list[Tensor] = []

        def run() -> None:
            logits = self.model(torch.stack(batch).to(self.device, next(self.model.parameters()).dtype))
            out.append((logits.float() / self.temperature).cpu())
            batch.clear()

        for image in several:
            batch.append(transform(as_rgb(image, self.preprocess.full_scale)))
            if len(batch) == batch_size:
                run()
        if batch:
            run()
        answers = torch.cat(out) if out else torch.empty(0, len(self.class_names))
        if not answers.isfinite().all():
            raise InputError(
                f"model: {self.model_name} answers with numbers that are not finite: its weights are damaged, or its "
                "training diverged; expected another one"
            )
        return answers

    @overload  # a text is an iterable of texts too
    def predict(self, images: Image.Image | str | os.PathLike[str] | Encoded, top_k: int = 5) -> list[Prediction]: ...  # type: ignore[overload-overlap]

    @overload
    def predict(self, images: Iterable[Picture], top_k: int = 5) -> list[list[Prediction]]: ...

    def predict(self, images: Picture | Iterable[Picture], top_k: int = 5) -> list[Prediction] | list[list[Prediction]]:
        """The most probable classes of an image, best first; of several images, such a list for each.

        Args:
            images: one picture, path, open file or array, or several (:data:`Picture`); an array ``(B, H, W, 3)`` is
                several.
            top_k: how many classes to give; all of them if there are fewer.

        Raises:
            InputError: ``top_k`` below 1, a file that is no image, or an array of another form.
        """
        top_k = _count("top_k", top_k)
        one, several = _as_several(images)
        best = ranked(self.probabilities(several).numpy(), self.class_names, top_k)
        return best[0] if one else best

    @torch.inference_mode()
    def answer(
        self,
        images: Picture | Iterable[Picture],
        top_k: int = 5,
        *,
        reject: float | None = None,
        coverage: float | None = None,
    ) -> list[Answer]:
        """For each image the most probable classes, and whether it is none of them, or which it could be.

        Args:
            images: one or several, as in :meth:`predict`; always a list is returned.
            top_k: how many classes to give.
            reject: the rate of false alarms, 0.01 to 0.5, in steps of 0.01: at most so many images of the model's
                classes are taken for none of them (:attr:`Answer.none_of_these`).
            coverage: 0.5 to 0.99, in steps of 0.01: so often :attr:`Answer.classes` has the true class.

        Raises:
            InputError: as :meth:`predict`; a model without calibration; or with too few validation images for this.
        """
        top_k, wanted = _count("top_k", top_k), thresholds(self.calibration, reject, coverage)
        return answers(self._logits(images).numpy(), self.class_names, top_k, wanted)

    def mirrored(self) -> "Classifier":
        """This one, looking at each image twice, as it is and mirrored; probabilities are the mean of both views.

        Twice the time. Its answers are not those that the calibration was fitted on: there is no ``reject`` and no
        ``coverage``. It has no folder of its own to be saved in.
        """
        made: Any = Mirrored(self.model, self.temperature)
        return Classifier(
            made.eval(), self.preprocess, self.class_names, model_name=self.model_name, model_args=self.model_args
        )

    def save(self, folder: str | Path) -> None:
        """Writes ``model.safetensors`` and ``config.json`` into ``folder``; timm can read the latter too.

        Raises:
            InputError: the model is not what its name and keywords make (a replaced module, a hook), so that
                :func:`convit.load` would give another one.
        """
        self.check_single()
        if isinstance(self.model, ConViT):  # a study trains other models in its place
            check_unchanged(self.model, self.model_name, self.model_args)
        self.write(folder)

    def write(self, folder: str | Path) -> None:
        """What :meth:`save` writes, of a model that is being trained: some of its modules may stand for others then."""
        if self.model.num_classes != len(self.class_names):
            raise InputError(
                f"class_names: got {len(self.class_names)} for a model of {self.model.num_classes} outputs, "
                "expected one per output"
            )
        preprocess = self.preprocess.to_dict()
        height, width = preprocess.pop("image_size")
        full_scale = preprocess.pop("full_scale")  # no word of timm's, which takes all of pretrained_cfg
        config = {
            "architecture": self.model_name,
            "num_classes": len(self.class_names),
            "model_args": self.model_args,
            "pretrained_cfg": {
                "num_classes": len(self.class_names),
                "input_size": [self.model.in_chans, height, width],
                **preprocess,
                "classifier": "head",  # for timm, which drops or adapts these for other classes and channels
                "first_conv": self.model.first_conv,
                "label_names": list(self.class_names),
            },
        }
        if full_scale is not None:
            config["full_scale"] = full_scale
        if self.training is not None:
            config["training"] = self.training.to_dict()
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.model.state_dict().items()}
        weights = sealed(tensors, fingerprint_of_config(config))
        calibration, checksum = self.loaded
        if calibration is not None and self.calibration is calibration and checksum not in ("", checksum_in(weights)):
            raise InputError(
                "calibration: got that of the weights that were loaded, which are others now (trained, or of another "
                "type); expected None, or one of these weights"
            )
        if self.calibration is not None:
            config["calibration"] = entry_of(self.calibration, checksum_in(weights))
        text = json.dumps(config, indent=2, ensure_ascii=False).encode()
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files.write(folder / WEIGHTS, weights)
        files.write(folder / CONFIG, text)

    def check_single(self) -> None:
        """Raises :class:`InputError` for the average of several models, which is no model of a name."""
        if isinstance(self.model, AverageOf):
            several = f"{len(self.model.models)} runs" if isinstance(self.model, Average) else "two views"
            raise InputError(
                f"model: got the average of {several}, expected one run and one view; 'convit export' writes the "
                "average as one file"
            )

    # -- sharing -----------------------------------------------------------------------------------------------------

    def card(self, repo_id: str | None = None, license: str | None = None) -> str:
        """The model card, a README.md: what the model is, how it was trained, what it scores and how to use it.

        Args:
            repo_id: ``owner/name`` of its repository on the Hub, for the example in it.
            license: such as ``"mit"``.
        """
        if repo_id is not None:
            hub.check_repo_id(repo_id)
        return model_card(self.described(), repo_id=repo_id, license=license)

    def described(self) -> Described:
        """What its card says of it."""
        self.check_single()
        model = self.model
        gpsa = sum(isinstance(module, GatedPositionalSelfAttention) for module in model.modules())
        parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        return Described(
            architecture=(
                f"a [ConViT](https://arxiv.org/abs/2103.10697) of {parameters:.2f} million parameters, "
                f"{len(model.blocks)} blocks of width {model.embed_dim} ({gpsa} of them with gated positional "
                f"self-attention) and patches of {model.patch_size} x {model.patch_size} pixels"
            ),
            class_names=self.class_names,
            image_size=self.preprocess.image_size,
            model_name=self.model_name,
            training=self.training,
            calibration=self.calibration,
        )

    def save_pretrained(self, folder: str | Path, *, card: str | None = None) -> None:
        """Writes what :meth:`save` writes, and a model card, ``README.md``: a folder to share.

        Args:
            folder: where to; made if need be.
            card: the text of the README.md; by default :meth:`card`, which only replaces a README.md that convit wrote.

        Raises:
            InputError: the folder has a README.md that convit did not write. Nothing is written then.
        """
        path = Path(folder) / CARD
        if card is None and path.exists() and MARKER.encode() not in files.read(path):
            raise InputError(f"{path}: exists and was not written by convit; expected a folder without, or card=TEXT")
        self.save(folder)
        files.write(path, (self.card() if card is None else card).encode())

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = False,
        token: str | None = None,
        commit_message: str = "Upload a convit classifier",
        card: str | None = None,
    ) -> str:
        """Uploads ``config.json``, ``model.safetensors`` and ``README.md`` to the Hugging Face Hub.

        Files of these names are replaced there (their history stays), others are left alone.

        Args:
            repo_id: ``owner/name``; the repository is made if need be.
            private: whether nobody else may see it.
            token: one that may write [that of ``hf auth login``, or ``HF_TOKEN``].
            commit_message: what the repository's history says.
            card: the text of the README.md [:meth:`card`].

        Returns:
            The repository's address.

        Raises:
            InputError: no token, no network, or the Hub refuses.
        """
        hub.check_repo_id(repo_id)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, card=self.card(repo_id) if card is None else card)
            return hub.upload(folder, repo_id, private=private, token=token, commit_message=commit_message)


def _count(name: str, value: Any) -> int:
    """A whole number from 1 on, Python's or NumPy's."""
    if not is_whole(value) or value < 1:
        raise InputError(f"{name}: got {brief(value)}, expected a whole number of at least 1")
    return int(value)


def _as_several(images: Any) -> tuple[bool, Iterable[Picture]]:
    """Whether it is one picture, and the pictures; raises :class:`InputError` for what is neither."""
    one_array = isinstance(images, np.ndarray) and images.ndim < 4
    if isinstance(images, Image.Image | str | os.PathLike | Encoded) or one_array or is_file(images):
        return True, [images]
    if isinstance(images, Tensor) or not isinstance(images, Iterable):
        hint = "; a tensor's .numpy() is an array" if isinstance(images, Tensor) else ""
        raise InputError(
            f"images: got a {type(images).__name__}, expected a picture, its path, its pixels, or several{hint}"
        )
    return False, images


def check_input(model: ConViT, preprocess: Preprocess) -> None:
    """Whether a model gives one answer for an image of this preprocessing.

    Raises:
        InputError: it does not.
    """
    if model.global_pool == "":
        raise InputError("model: got global_pool '', an answer for every token; expected 'token' or 'avg'")
    if model.in_chans != 3:
        raise InputError(f"model: got in_chans {model.in_chans}, expected 3: red, green, blue")
    patch_grid(*preprocess.image_size, model.patch_size)  # which refuses a size that the patch does not divide
