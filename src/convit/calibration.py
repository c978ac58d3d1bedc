"""Calibrated probabilities: a temperature that is fitted on validation images, as a model's config.json has it.

``softmax(logits / T)`` in place of ``softmax(logits)`` changes no ranking, only how sure the model is (Guo et al., *On
Calibration of Modern Neural Networks*, 2017). On NumPy alone, so that an exported file needs no PyTorch.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from convit.errors import InputError, brief
from convit.files import fingerprint

LOWEST, HIGHEST = 0.05, 20.0
"""The temperatures that a model may have."""
PRIOR = 4.0
"""How strongly the fit holds on to a temperature of 1: as the prior that ln T is 0 with a standard deviation of 1 / 2.
A hundred images outweigh it, three do not."""
FEW = 100
"""Of fewer validation images the temperature is uncertain, and said to be."""
NOT_CALIBRATED = "not calibrated: the model has no temperature fitted on validation images"
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """How the probabilities of a model were calibrated; stored beside its weights.

    Raises:
        InputError: a value of a wrong type or out of its range.
    """

    temperature: float
    """T > 0: the probabilities are ``softmax(logits / T)``. Above 1 the model was too sure, below 1 not sure enough."""
    images: int
    """The number of validation images that T was fitted on."""

    def __post_init__(self) -> None:
        number = isinstance(self.temperature, int | float) and not isinstance(self.temperature, bool)
        if not number or not LOWEST <= self.temperature <= HIGHEST:
            raise InputError(
                f"calibration: temperature: got {brief(self.temperature)}, expected a number from {LOWEST} to "
                f"{HIGHEST:g}"
            )
        if type(self.images) is not int or not 1 <= self.images < 2**63:
            raise InputError(f"calibration: images: got {brief(self.images)}, expected a whole number of at least 1")

    def __str__(self) -> str:
        few = "; few, so T is held near 1" if self.images < FEW else ""
        return f"calibrated with temperature {self.temperature:.3f}, fitted on {self.images} validation images{few}"

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: object) -> Self:
        """The inverse of :meth:`to_dict`. Raises :class:`InputError` for other keys or a wrong value.

        >>> Calibration.from_dict({"temperature": 1.5, "images": 300})
        Calibration(temperature=1.5, images=300)
        """
        known = list(cls.__dataclass_fields__)
        if not isinstance(values, Mapping) or sorted(map(str, values)) != sorted(known):
            raise InputError(f"calibration: got {brief(values)}, expected the keys {', '.join(known)}")
        return cls(**values)


def checksum_with(calibration: Calibration, weights: str) -> str:
    """The checksum of a calibration and of the weights that it is of; ``weights`` is theirs.

    It is not in the file of the weights: a run writes its weights first, and once more when they are calibrated. At
    whatever moment that is interrupted, the two files fit.
    """
    return fingerprint([calibration.to_dict(), weights])


def entry_of(calibration: Calibration, weights: str) -> dict[str, Any]:
    """The entry ``calibration`` of a config.json, for weights of this checksum."""
    return calibration.to_dict() | {"checksum": checksum_with(calibration, weights)}


def of_entry(values: object) -> tuple[Calibration, str]:
    """The inverse of :func:`entry_of`: the calibration, and its :func:`checksum_with`.

    Raises:
        InputError: values of something else.
    """
    if not isinstance(values, Mapping) or not isinstance(values.get("checksum"), str):
        raise InputError(f"calibration: got {brief(values)}, expected values with a checksum")
    plain = {key: value for key, value in values.items() if key != "checksum"}
    return Calibration.from_dict(plain), values["checksum"]


def fit_temperature(logits: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]]) -> Calibration:
    """The temperature at which the labels of validation images are most likely, held near 1 where they say little.

    With ``b = 1 / T`` it minimises, over b, ::

        sum_i -log softmax(b z_i)[y_i]  +  k (b - 1 - ln b),    k = PRIOR

    The first part is the negative log likelihood of the labels; the second is a Gamma prior of b with its mode at 1.
    Both are convex in b, so there is one minimum; bisection of the derivative finds it, the same bits each time. The
    prior bounds T where the likelihood does not: a model that is right on all images is likeliest at T = 0.

    Args:
        logits: ``z``, ``(N, classes)``, finite; N of at least 1.
        targets: ``y``, ``(N,)``.

    Raises:
        ValueError: no images, or shapes that do not fit.

    >>> z = np.array([[4.0, 0.0]] * 300)
    >>> y = np.array([0] * 219 + [1] * 81)  # 73% right, where the logits say 98%
    >>> fit_temperature(z, y).temperature
    3.834699
    """
    if logits.ndim != 2 or targets.shape != logits.shape[:1] or not len(targets):
        raise ValueError(f"logits: got {logits.shape} and targets {targets.shape}, expected (N, classes) and (N,)")
    low, high = math.log(1 / HIGHEST), math.log(1 / LOWEST)
    for _ in range(40):
        middle = (low + high) / 2
        b = math.exp(middle)
        if _slope(logits, targets, b) + PRIOR * (1 - 1 / b) < 0:
            low = middle
        else:
            high = middle
    return Calibration(temperature=round(math.exp(-(low + high) / 2), 6), images=len(targets))


def _slope(logits: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]], b: float) -> float:
    """The derivative of the negative log likelihood by b: the sum of ``E_p[z] - z_y``, p = softmax(b z)."""
    total, rows = 0.0, max(1, _CHUNK // logits.shape[1])
    for start in range(0, len(logits), rows):
        z = logits[start : start + rows].astype(np.float64)
        z -= z.max(axis=1, keepdims=True)
        p = np.exp(b * z)
        of_target = z[np.arange(len(z)), targets[start : start + rows]]
        total += float(((p * z).sum(axis=1) / p.sum(axis=1) - of_target).sum())
    return total
