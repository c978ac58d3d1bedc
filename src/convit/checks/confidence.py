"""Confident learning: which labels are probably wrong (Northcutt, Jiang and Chuang, JAIR 2021, sections 3.1 and 3.2).

    t_j     = mean of p_j(x) over the images with label j          how sure the model is of class j where j is given
    C[i, j] = images with label i for which j is the likeliest of the classes k with p_k(x) >= t_k
    Q[i, j] = C[i, j] / sum_j C[i, j] * (images with label i), over all images: the joint distribution of given and
              true labels

p are predictions of models that did not learn from the image: out-of-fold ones. What is off the diagonal of C are the
labels in doubt. Pruned by noise rate: for each i != j the ``n Q[i, j]`` images with label i and the largest
``p_j - p_i`` (the paper's PBNR). An image is reported if both agree on it and j is more probable than i, ranked by
``p_j - p_i``.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Doubt:
    """A label that is probably wrong."""

    image: int
    suggested: int
    """The class that is more probable."""
    given_probability: float
    """Of the label."""
    suggested_probability: float

    @property
    def margin(self) -> float:
        """How much more probable the suggested class is, -1 to 1."""
        return self.suggested_probability - self.given_probability


def confident_joint(probabilities: NDArray[np.float64], targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """(classes, classes) C, see above; and a class that has no image has no threshold, and is never confident.

    Args:
        probabilities: (N, classes) of out-of-fold predictions.
        targets: (N,) labels.

    >>> sure = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.05, 0.95]])
    >>> confident_joint(sure, np.array([0, 0, 1, 1, 0])).tolist()
    [[2, 1], [0, 1]]
    """
    confident = _confident(probabilities, targets)
    classes = probabilities.shape[1]
    known = confident >= 0
    cells = np.bincount(targets[known] * classes + confident[known], minlength=classes**2)
    return cells.reshape(classes, classes).astype(np.int64)


def joint(counts: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """(classes, classes) Q from C and from how many images each label has; a class that is in no row of C is trusted.

    >>> joint(np.array([[8, 2], [0, 5]]), np.array([20, 20])).tolist()
    [[0.4, 0.1], [0.0, 0.5]]
    """
    rows = counts.astype(np.float64)
    empty = rows.sum(axis=1) == 0
    rows[empty, empty] = 1
    out = rows / rows.sum(axis=1, keepdims=True) * labels[:, None]
    return np.asarray(out / out.sum())


def doubts(probabilities: NDArray[np.float64], targets: NDArray[np.int64]) -> list[Doubt]:
    """The labels that are probably wrong, the surest first; images are numbered by row.

    Args:
        probabilities: (N, classes) of out-of-fold predictions.
        targets: (N,) labels.
    """
    if not len(targets):
        return []
    labels = np.bincount(targets, minlength=probabilities.shape[1])
    wanted = np.rint(joint(confident_joint(probabilities, targets), labels) * len(targets)).astype(np.int64)
    confident = _confident(probabilities, targets)
    found = []
    for i, j in np.argwhere(wanted > 0).tolist():
        if i == j:
            continue
        of_label = np.flatnonzero(targets == i)
        margin = probabilities[of_label, j] - probabilities[of_label, i]
        order = np.argsort(-margin, kind="stable")[: wanted[i, j]]
        found += [
            Doubt(int(x), j, float(probabilities[x, i]), float(probabilities[x, j]))
            for x in of_label[order].tolist()
            if confident[x] == j and probabilities[x, j] > probabilities[x, i]
        ]
    return sorted(found, key=lambda doubt: (-doubt.margin, doubt.image))


def _confident(probabilities: NDArray[np.float64], targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) the class that an image is confidently of; -1 where it is of none."""
    labels = np.bincount(targets, minlength=probabilities.shape[1])
    sums = np.zeros(probabilities.shape[1])
    np.add.at(sums, targets, probabilities[np.arange(len(targets)), targets])
    thresholds = np.where(labels > 0, sums / np.maximum(labels, 1), np.inf)
    reached = np.where(probabilities >= thresholds, probabilities, -1.0)
    best = reached.argmax(axis=1)
    return np.where(reached.max(axis=1) >= 0, best, -1)
