"""What a network is trained to make small: log-loss, weighted by class, or focused on the hard rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.recipes.errors import CannotTrain

ClassWeight = str | tuple[float, float] | list[float] | None
"""None, 'balanced' (classes count alike, however rare), or the weights of (label 0, label 1)."""


def class_weights(given: ClassWeight, labels: NDArray[Any]) -> tuple[float, float]:
    """The weights of label 0 and label 1; raises CannotTrain for anything but a `ClassWeight`."""
    if given is None:
        return 1.0, 1.0
    if given == "balanced":
        positives = float(labels.sum())
        return len(labels) / (2 * (len(labels) - positives)), len(labels) / (2 * positives)
    if not isinstance(given, str) and len(given) == 2 and min(given) > 0:
        return float(given[0]), float(given[1])
    raise CannotTrain(f"class_weight={given!r}: say None, 'balanced' or (weight of 0, weight of 1)")


def margin_shift(weights: tuple[float, float]) -> float:
    """By how much class weights raise the best margin; taken off again, the score is a probability.

    Weighted log-loss is least where the odds are w1/w0 times the true ones (Elkan 2001).
    """
    return math.log(weights[1] / weights[0])


def focal_loss(margins: Any, labels: Any, weights: tuple[float, float], gamma: float) -> Any:
    """Mean of -w * (1 - P(label))^gamma * ln P(label) of torch tensors (n,) (Lin et al. 2017, eq. 4).

    `gamma` 0 is the weighted log-loss. A larger one cares less for rows that are right already; its
    scores lie nearer to 0.5 than the true probabilities.
    """
    from torch.nn import functional

    loss = functional.binary_cross_entropy_with_logits(margins, labels, reduction="none")
    if gamma:
        loss = (1 - (-loss).exp()) ** gamma * loss
    return (loss * (labels * weights[1] + (1 - labels) * weights[0])).mean()


def log_loss_of(margins: NDArray[np.float64], labels: NDArray[Any]) -> float:
    """Mean log-loss of margins (n,) of labels or of a teacher's scores (n,), in double precision."""
    return round(float((np.logaddexp(0.0, margins) - labels * margins).mean()), 6)
