"""Distillation: a model learns from the predictions of a teacher in addition to the labels.

As in DeiT (Touvron et al. 2021), with two differences. The ordinary head learns the teacher's predictions, on the class
token: there is no distillation token, so a distilled model has the same architecture as any other. And the soft loss is
the mean of Hinton's over images, while DeiT's code also divides by the number of classes. The paper's Table 4 uses hard
distillation for ConViT-S+.

The teacher gets the same images as the model, augmented, mixed and of the same size. If the teacher was trained with
another normalisation, and this is known, the pixels are converted to it.
"""

from collections.abc import Sequence
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convit.classifier_folder import CONFIG
from convit.classifier_loading import load
from convit.data import Preprocess
from convit.errors import InputError, nearest, one_line
from convit.hub import hub_faults
from convit.models.checkpoints import check_numbers
from convit.models.weight_files import read_weights
from convit.training.options import Asked


def hard_loss(logits: Tensor, teacher: Tensor) -> Tensor:
    """``- sum_i log p_i(argmax_c teacher_ic)``: the cross-entropy to the teacher's answer, a sum over images, in nats.

    Args:
        logits: (B, classes) of the model.
        teacher: (B, classes) of the teacher.

    >>> hard_loss(torch.zeros(1, 4), torch.tensor([[0.0, 9.0, 0.0, 0.0]])).exp()
    tensor(4.)
    """
    return F.cross_entropy(logits, teacher.argmax(dim=-1), reduction="sum")


def soft_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``T^2 sum_i KL(q_i || p_i)`` with ``q = softmax(teacher / T)`` and ``p = softmax(logits / T)``, in nats.

    The factor keeps the gradient of the same size whatever the temperature (Hinton et al. 2015).

    Args:
        logits: (B, classes) of the model.
        teacher: (B, classes) of the teacher.
        temperature: T, above 0.

    >>> soft_loss(torch.ones(1, 4), torch.zeros(1, 4), 3.0)
    tensor(0.)
    """
    ours, theirs = (F.log_softmax(x / temperature, dim=-1) for x in (logits, teacher))
    return temperature**2 * F.kl_div(ours, theirs, reduction="sum", log_target=True)


class Teacher(nn.Module):
    """A trained model that predicts the classes of another model on its images. It is not trained and draws nothing.

    Args:
        model: (B, 3, H, W), in its own normalisation, to (B, classes).
        about: what it is, for people.
        seen: the normalisation of the images that it is going to be given.
        own: that which it was trained with; None if it is not known, which is taken for the same.
        order: the position among its outputs of each class; None if they are in order.
    """

    scale: Tensor
    shift: Tensor
    order: Tensor | None

    def __init__(
        self,
        model: nn.Module,
        about: str,
        seen: Preprocess,
        own: Preprocess | None = None,
        order: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.about = about
        own = own or seen
        self.renormalise = (own.mean, own.std) != (seen.mean, seen.std)
        mean, std, own_mean, own_std = (
            torch.tensor(x, dtype=torch.float64).view(3, 1, 1) for x in (seen.mean, seen.std, own.mean, own.std)
        )
        self.register_buffer("scale", (std / own_std).float(), persistent=False)
        self.register_buffer("shift", ((mean - own_mean) / own_std).float(), persistent=False)
        self.register_buffer("order", None if order is None else torch.tensor(order), persistent=False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(B, classes) logits, in fp32."""
        if self.renormalise:
            images = images * self.scale + self.shift
        logits: Tensor = self.model(images).float()
        return logits if self.order is None else logits[:, self.order]


class Distiller:
    """Adds what a teacher says to a loss.

    Args:
        teacher: (B, 3, H, W) to (B, classes).
        kind: which loss, ``"hard"`` or ``"soft"``.
        alpha: its part of the whole, 0 to 1.
        temperature: of the soft loss, above 0.
    """

    def __init__(self, teacher: Teacher, kind: str = "hard", alpha: float = 0.5, temperature: float = 3.0) -> None:
        self.teacher, self.kind, self.alpha, self.temperature = teacher, kind, alpha, temperature

    @property
    def about(self) -> str:
        """What it does, for people."""
        soft = f", temperature {self.temperature:g}" if self.kind == "soft" else ""
        return f"distillation: {self.kind}, {self.alpha:g} of the loss{soft}, from {self.teacher.about}"

    def loss(self, loss: Tensor, logits: Tensor, answers: Tensor) -> Tensor:
        """``(1 - a) loss + a L``, with L the hard or the soft loss, as sums over the images.

        Args:
            loss: against the labels.
            logits: (B, classes) of the model, in fp32.
            answers: (B, classes) of the teacher.
        """
        hard = self.kind == "hard"
        told = hard_loss(logits, answers) if hard else soft_loss(logits, answers, self.temperature)
        return (1 - self.alpha) * loss + self.alpha * told


def make_distiller(
    options: Asked, class_names: tuple[str, ...], preprocess: Preprocess, device: torch.device
) -> Distiller | None:
    """The teacher that the options name, on the device; None if they name none.

    Args:
        options: of the run.
        class_names: of the run, in the order of the model's outputs.
        preprocess: of the run: the size and the normalisation of the images.
        device: where to.

    Raises:
        InputError: no such model or file, weights that do not fit, other classes, or a model that cannot take the size.
    """
    if options.teacher is None and options.teacher_weights is None:
        return None
    teacher = _load(options, class_names, preprocess).to(device)
    height, width = preprocess.image_size
    try:
        shape = tuple(teacher(torch.zeros(2, 3, height, width, device=device)).shape)
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        raise InputError(
            f"teacher: {teacher.about} does not take images of {height} x {width} pixels ({one_line(error)}); expected "
            "one that does, such as a convolutional network, or another --image-size"
        ) from error
    if shape != (2, len(class_names)):
        raise InputError(f"teacher: got answers of shape {shape[1:]}, expected ({len(class_names)},), one per class")
    return Distiller(teacher, options.distillation, options.distillation_alpha, options.distillation_temperature)


def check_name(name: str) -> None:
    """Raises :class:`InputError` for a teacher that timm does not know."""
    known = timm.list_pretrained() if "." in name else timm.list_models()  # NAME.TAG names published weights
    if name not in known:
        raise InputError(f"teacher: got {name!r}, expected the name of a timm model{nearest(name, known)}")


def _load(options: Asked, class_names: tuple[str, ...], preprocess: Preprocess) -> Teacher:
    path = options.teacher_weights
    if path is not None and (path / CONFIG).is_file():
        return _of_run(path, options.teacher, class_names, preprocess)
    name = options.teacher
    if name is None:
        raise InputError(
            f"teacher-weights: got {path}, which does not say of which model; expected a run folder, or --teacher NAME"
        )
    check_name(name)
    if path is None:
        return _published(name, len(class_names), preprocess)
    model = timm.create_model(name, num_classes=len(class_names))
    weights, _ = read_weights(path)
    check_numbers(path, model.state_dict(), weights)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(
            f"{path}: not the weights of the teacher {name} with {len(class_names)} classes ({one_line(error)})"
        ) from error
    return Teacher(model, f"{name} with the weights {path}", preprocess)


def _of_run(path: Path, name: str | None, class_names: tuple[str, ...], preprocess: Preprocess) -> Teacher:
    """The best model of a run; its classes are matched by name."""
    known = load(path)
    if name not in (None, known.model_name):
        raise InputError(f"teacher: got {name}, expected {known.model_name}, which the run {path} trained")
    if set(known.class_names) != set(class_names):
        other = next(iter(sorted(set(known.class_names) ^ set(class_names))))
        raise InputError(
            f"teacher-weights: got {path} with {len(known.class_names)} classes, expected the {len(class_names)} of "
            f"the data by name; {other!r} is in one of them alone"
        )
    order = [known.class_names.index(one) for one in class_names]
    about = f"{known.model_name} of the run {path}"
    return Teacher(known.model, about, preprocess, known.preprocess, None if order == sorted(order) else order)


def _published(name: str, classes: int, preprocess: Preprocess) -> Teacher:
    """A model with timm's published weights, for data with the classes that those know, in their order."""
    cfg = timm.get_pretrained_cfg(name)
    if cfg is None or not cfg.has_weights:
        raise InputError(f"teacher: no weights are published for {name}; expected --teacher-weights FILE too")
    if cfg.num_classes != classes:
        raise InputError(
            f"teacher: the published weights of {name} know {cfg.num_classes} classes, the data has {classes}; "
            "expected --teacher-weights FILE of a teacher that learned these"
        )
    with hub_faults(f"teacher: could not fetch the weights of {name}", "--teacher-weights FILE"):
        model = timm.create_model(name, pretrained=True)
    own = Preprocess(image_size=preprocess.image_size, mean=tuple(cfg.mean), std=tuple(cfg.std))
    return Teacher(model, f"{name} with timm's published weights {cfg.tag or ''}".strip(), preprocess, own)
