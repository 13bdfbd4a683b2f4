"""What an outcome window counts: histograms of the score by label, and losses in fixed point.

One compiled function gives a row's losses to whoever adds them up, event by event or by columns: the
same bits in both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from infra.jit import compiled
from streams.store.hits import Integer

SCORE_BINS = 50
FIXED_POINT = 1_000_000
LEAST_SCORE = 1e-7
SUMS = 3
"""Log-loss, Brier score and score."""


@dataclass
class Outcomes:
    """Counts of one window; `scores[label][bin]`; sums in 1e-6."""

    count: int = 0
    scores: tuple[list[int], list[int]] = field(
        default_factory=lambda: ([0] * SCORE_BINS, [0] * SCORE_BINS)
    )
    log_loss: int = 0
    brier: int = 0
    score: int = 0

    @property
    def revision(self) -> int:
        """Predictions and labels known: it grows with the window.

        So, whatever was stated before a restart or in another order, the highest revision tells most.
        """
        return self.count + sum(map(sum, self.scores))

    def add(self, score: float, label: int) -> None:
        """One prediction and its label."""
        self.scores[label][int(score_bin(score))] += 1
        log_loss_, brier, score_ = losses(score, label)
        self.log_loss += int(log_loss_)
        self.brier += int(brier)
        self.score += int(score_)

    def add_all(self, counts: NDArray[np.int64], sums: NDArray[np.int64]) -> None:
        """Many: `counts[label, bin]` and the SUMS."""
        for mine, more in zip(self.scores, counts.tolist(), strict=True):
            mine[:] = map(sum, zip(mine, more, strict=True))
        self.log_loss += int(sums[0])
        self.brier += int(sums[1])
        self.score += int(sums[2])


def log_loss(score: float, label: int) -> float:
    """Negative log-likelihood in nats; the score is kept 1e-7 away from 0 and 1."""
    score = min(max(score, LEAST_SCORE), 1 - LEAST_SCORE)
    return -math.log(score if label else 1 - score)


@compiled
def score_bin(score: float) -> Integer:
    """0 .. SCORE_BINS - 1; a score outside [0, 1] is in the bin at its end."""
    return np.int64(min(max(score, 0.0), 1.0 - 0.5 / SCORE_BINS) * SCORE_BINS)


@compiled
def losses(score: float, label: int) -> tuple[Integer, Integer, Integer]:
    """Log-loss (see `log_loss`), Brier score and score, in units of 1e-6, rounded to even."""
    kept = min(max(score, LEAST_SCORE), 1 - LEAST_SCORE)
    within = min(max(score, 0.0), 1.0)
    miss = within - label
    return (
        np.int64(np.rint(-math.log(kept if label else 1 - kept) * FIXED_POINT)),
        np.int64(np.rint(miss * miss * FIXED_POINT)),
        np.int64(np.rint(within * FIXED_POINT)),
    )


@compiled
def add_up(
    score: NDArray[np.float64],
    label: NDArray[np.int64],
    counts: NDArray[np.int64],
    sums: NDArray[np.int64],
) -> None:
    """Add rows to `counts[label, bin]` and to the SUMS; any label but 0 is 1, no score is NaN."""
    for row in range(len(score)):
        positive = 1 if label[row] else 0
        one, two, three = losses(score[row], positive)
        counts[positive, score_bin(score[row])] += 1
        sums[0] += one
        sums[1] += two
        sums[2] += three
