"""What a model knows of its own answers from validation images: a temperature, and thresholds, in its config.json.

``softmax(logits / T)`` in place of ``softmax(logits)`` changes no ranking, only how sure the model is (Guo et al., *On
Calibration of Modern Neural Networks*, 2017). On NumPy alone, so that an exported file needs no PyTorch.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
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
RATES = tuple(f"{percent / 100:.2f}" for percent in range(1, 51))
"""The rates of false alarms that a threshold is kept for: 1% to 50%."""
COVERAGES = tuple(f"{percent / 100:.2f}" for percent in range(50, 100))
"""The coverages of prediction sets that a threshold is kept for: 50% to 99%."""
NOT_CALIBRATED = (
    "not calibrated: no temperature was fitted to these answers on validation images (a mean of several runs or views "
    "has none of its own)"
)
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
    """The number of validation images that all of it is of."""
    reject_below: Mapping[str, float] = field(default_factory=dict)
    """Rate -> threshold: so many images like the validation images, ``"0.05"`` for 5%, have a score (:func:`scores`)
    below it. A rate that takes more images than there were is not in it."""
    in_set_from: Mapping[str, float] = field(default_factory=dict)
    """Coverage -> threshold: the classes with at least this probability hold the true one so often."""

    def __post_init__(self) -> None:
        number = isinstance(self.temperature, int | float) and not isinstance(self.temperature, bool)
        if not number or not LOWEST <= self.temperature <= HIGHEST:
            raise InputError(
                f"calibration: temperature: got {brief(self.temperature)}, expected a number from {LOWEST} to "
                f"{HIGHEST:g}"
            )
        if type(self.images) is not int or not 1 <= self.images < 2**63:
            raise InputError(f"calibration: images: got {brief(self.images)}, expected a whole number of at least 1")
        _check_thresholds("reject_below", self.reject_below, RATES, (-1e6, 1e6))
        _check_thresholds("in_set_from", self.in_set_from, COVERAGES, (0.0, 1.0))

    def __str__(self) -> str:
        few = "; few, so T is held near 1" if self.images < FEW else ""
        return f"calibrated with temperature {self.temperature:.3f}, fitted on {self.images} validation images{few}"

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    def reject_threshold(self, rate: float) -> float:
        """The score below which a picture is none of the classes, at a rate of false alarms (:data:`RATES`).

        Raises:
            InputError: another rate, or one that so few validation images cannot tell.
        """
        return _threshold("reject", self.reject_below, RATES, rate, self.images)

    def set_threshold(self, coverage: float) -> float:
        """The probability from which on a class is in the prediction set, at a coverage (:data:`COVERAGES`).

        Raises:
            InputError: another coverage, or one that so few validation images cannot tell.
        """
        return _threshold("coverage", self.in_set_from, COVERAGES, coverage, self.images)

    @classmethod
    def from_dict(cls, values: object) -> Self:
        """The inverse of :meth:`to_dict`. Raises :class:`InputError` for other keys or a wrong value.

        >>> calibration = Calibration(temperature=1.5, images=300)
        >>> Calibration.from_dict(calibration.to_dict()) == calibration
        True
        """
        known = [each.name for each in fields(cls)]
        if not isinstance(values, Mapping) or not {"temperature", "images"} <= {*values} <= {*known}:
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


def _check_thresholds(name: str, found: object, known: tuple[str, ...], within: tuple[float, float]) -> None:
    """Raises :class:`InputError` for what are no thresholds by rate or by coverage, or no more so after a change."""
    entries = list(found.items()) if isinstance(found, Mapping) else [("", None)]
    number = all(isinstance(value, int | float) and not isinstance(value, bool) for _, value in entries)
    if not number or any(key not in known for key, _ in entries):
        raise InputError(f"calibration: {name}: got {brief(found)}, expected numbers for {known[0]} to {known[-1]}")
    ordered = [value for _, value in sorted(entries)]
    ordered = ordered if name == "reject_below" else ordered[::-1]
    if not all(within[0] <= value <= within[1] for value in ordered) or ordered != sorted(ordered):
        raise InputError(
            f"calibration: {name}: got {brief(ordered)}, expected numbers in order, from {within[0]:g} to {within[1]:g}"
        )


def _threshold(option: str, found: Mapping[str, float], known: tuple[str, ...], asked: float, images: int) -> float:
    key = next((key for key in known if abs(float(key) - asked) < 1e-9), None)
    if key is None:
        raise InputError(f"{option}: got {asked:g}, expected {known[0]} to {known[-1]}, in steps of 0.01")
    if key not in found:
        there = sorted(found)
        nearest = "a model with more of them"
        if there:
            nearest = f"{there[0]} or more" if option == "reject" else f"{there[-1]} or less"
        raise InputError(f"{option}: got {asked:g}, which {images} validation images cannot tell; expected {nearest}")
    return found[key]


def probabilities_of(logits: NDArray[np.floating[Any]], temperature: float = 1.0) -> NDArray[np.float32]:
    """``softmax(logits / temperature)``, ``(N, classes)``, without overflow.

    >>> probabilities_of(np.array([[0.0, 1000.0]])).tolist()
    [[0.0, 1.0]]
    """
    z = np.asarray(logits, np.float32) / np.float32(temperature)
    exponents = np.exp(z - z.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def scores(logits: NDArray[np.floating[Any]], temperature: float = 1.0) -> NDArray[np.float64]:
    """How much each picture is like those that the model learned from, ``(N,)``: the largest ``logits / T``.

    Unlike the largest probability, it also falls where all logits are low (Hendrycks et al., *Scaling
    Out-of-Distribution Detection for Real-World Settings*, 2022). It needs nothing but logits, which every exported
    file gives.

    >>> scores(np.array([[1.0, 4.0], [0.5, 0.0]]), temperature=2.0).tolist()
    [2.0, 0.25]
    """
    found: NDArray[np.float64] = np.asarray(logits, np.float64).max(axis=1) / temperature
    return found


def lower_thresholds(values: NDArray[np.floating[Any]], rates: Mapping[str, float]) -> dict[str, float]:
    """By key, a threshold that another value of the same kind is below at most so often as the rate says.

    Of n values it is the k-th smallest with ``k = floor((n + 1) rate)``: a further value, exchangeable with them, is
    below it with probability ``k / (n + 1)`` at most (split conformal: Vovk et al., 2005). Keys with k = 0 are left
    out. It is rounded down, to five digits, so that another library's rounding does not put a value at the threshold on
    its other side.

    >>> lower_thresholds(np.arange(1.0, 21.0), {"a": 0.01, "b": 0.05, "c": 0.5})
    {'b': 0.9999, 'c': 9.999}
    """
    ordered = np.sort(np.asarray(values, np.float64))
    found = {}
    for key, rate in rates.items():
        k = math.floor((len(ordered) + 1) * rate + 1e-9)
        if k > 0:
            value = float(ordered[k - 1])
            unit = 10.0 ** (math.floor(math.log10(abs(value))) - 4) if value else 1.0
            found[key] = float(f"{(math.ceil(value / unit) - 1) * unit:.9g}") if value else 0.0
    return found


def calibrate(logits: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]]) -> Calibration:
    """All that is kept of validation images: the temperature, the thresholds of scores and of prediction sets.

    Args:
        logits: ``(N, classes)``, finite; N of at least 1.
        targets: the true classes, ``(N,)``.

    Raises:
        ValueError: no images, or shapes that do not fit.
    """
    temperature = fit_temperature(logits, targets)
    of_target = probabilities_of(logits, temperature)[np.arange(len(targets)), targets]
    return Calibration(
        temperature=temperature,
        images=len(targets),
        reject_below=lower_thresholds(scores(logits, temperature), {rate: float(rate) for rate in RATES}),
        in_set_from=lower_thresholds(of_target, {coverage: 1 - float(coverage) for coverage in COVERAGES}),
    )


def fit_temperature(logits: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]]) -> float:
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
    >>> fit_temperature(z, y)
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
    return round(math.exp(-(low + high) / 2), 6)


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
