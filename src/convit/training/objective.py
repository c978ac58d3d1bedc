"""The loss of a step: mixed images, smoothed targets, class weights, cross-entropy."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from timm.data import Mixup
from torch import Tensor


def class_weights(counts: NDArray[np.int64]) -> Tensor:
    """(C,) float32: the weight of each class in the loss, ``n / (C' n_c)``, from the images ``n_c`` of each class.

    n is their sum, C' the number of classes that have any; a class without images has weight 0. Then all classes have
    the same total weight, and the mean weight of the images is 1.

    >>> class_weights(np.array([1, 3]))
    tensor([2.0000, 0.6667])
    """
    present = counts > 0
    weights = np.zeros(len(counts))
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return torch.from_numpy(weights).float()


class Objective:
    """Mixup or CutMix of a batch, and the loss of the model's logits for it.

    The loss of one image with targets ``t_c``, smoothed and mixed, and class weights ``w_c`` is
    ``- sum_c w_c t_c log p_c``.

    Args:
        classes: how many there are.
        mixup: alpha of mixup; 0 for none.
        cutmix: alpha of CutMix; 0 for none.
        mix_prob: probability that a batch is mixed.
        label_smoothing: part of the target that is spread over all classes.
        weights: (classes,) of :func:`class_weights`; None for 1 each.
    """

    def __init__(
        self,
        classes: int,
        *,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        mix_prob: float = 0.5,
        label_smoothing: float = 0.0,
        weights: Tensor | None = None,
    ) -> None:
        self.weights = weights
        self.smoothing = label_smoothing
        self.mixup: Mixup | None = None
        if mix_prob > 0 and (mixup > 0 or cutmix > 0):
            self.mixup = Mixup(
                mixup_alpha=mixup,
                cutmix_alpha=cutmix,
                prob=mix_prob,
                label_smoothing=label_smoothing,
                num_classes=classes,
            )
            self.smoothing = 0.0  # it is in the targets then

    def mix(self, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """A batch, ``(B, 3, H, W)`` and ``(B,)``, mixed with itself: its targets become ``(B, classes)``.

        It draws from NumPy's global generator: call it inside :func:`convit.data.seeded`.
        """
        return self.mixup(images, target) if self.mixup is not None else (images, target)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The sum of the losses of the images: ``(B, classes)`` and what :meth:`mix` gave, to a number in nats.

        A sum, so that a batch can be taken in parts.
        """
        return F.cross_entropy(logits, target, self.weights, label_smoothing=self.smoothing, reduction="sum")
