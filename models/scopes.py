"""Which rows a challenger learns from: all of its training time, or those since the world changed (pure).

A training set that spans a change teaches two worlds at once, and a calendar's models are such a mixture for
as long as the training time is. Few rows of the new world are often worth more, and soon; but not always: the
change may be small, passed, or none. So nobody assumes it: fits on each are made without the newest rows, and
these choose (the window size of Klinkenberg & Joachims, Detecting Concept Drift with Support Vector Machines,
ICML 2000). Fewer rows must be better beyond chance; else all of them are the better bet.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models import gates
from models.dataset import Dataset

SURE = statistics.NormalDist().inv_cdf(0.99)
"""One-sided: so sure must the newest rows be that fewer rows teach more."""
ALL_ROWS, SHORTER, SINCE = "all_rows_log_loss", "shorter_log_loss", "trained_since"


@dataclass(frozen=True, slots=True)
class Scope:
    """Mean log-losses on the same held-out rows: of the fit on all rows, and of the best on fewer.

    `chosen`: the rows to learn from, None for all; `since` (ms): when the fewer begin; `cut` (ms): when the
    held-out rows do.
    """

    chosen: Dataset | None
    all_rows: float
    shorter: float
    rows: int
    since: int
    cut: int

    @property
    def measured(self) -> dict[str, float]:
        """What ModelRegistered keeps of it; when the rows begin (ms) only if fewer were chosen."""
        found = {ALL_ROWS: self.all_rows, SHORTER: self.shorter}
        return found | ({SINCE: float(self.since)} if self.chosen is not None else {})

    @property
    def words(self) -> str:
        """E.g. 'learned from the newest 1,012 rows: log-loss 0.4101 (0.6512 from all rows)'."""
        newest = f"the newest {self.rows:,} rows"
        if self.chosen is not None:
            return (
                f"learned from {newest}: log-loss {self.shorter:.4f} ({self.all_rows:.4f} from all)"
            )
        return f"learned from all rows: log-loss {self.all_rows:.4f} ({self.shorter:.4f} from {newest})"


def shorter(training: Dataset, since: Iterable[int], least: int) -> list[Dataset]:
    """The rows since each time, most rows first; not those that are all rows or fewer than `least`."""
    found = [training.where(training.times >= time) for time in sorted(set(since))]
    return [rows for rows in found if least <= len(rows) < len(training)]


def choose(
    labels: NDArray[np.integer],
    scored: Sequence[NDArray[np.float64]],
    tried: Sequence[Dataset],
    cut: int,
) -> Scope:
    """`labels`: of the held-out rows, at least one; `scored`: their scores by the fit on all rows, then by
    those on each of `tried`.
    """
    losses = [gates.losses(labels, scores) for scores in scored]
    means = [float(each.mean()) for each in losses]
    best = min(range(1, len(means)), key=lambda place: (means[place], place))
    gain = losses[0] - losses[best]
    spread = float(gain.std()) / math.sqrt(len(gain))
    rows = tried[best - 1]
    return Scope(
        chosen=rows if gain.mean() > SURE * spread else None,
        all_rows=round(means[0], gates.DECIMALS),
        shorter=round(means[best], gates.DECIMALS),
        rows=len(rows),
        since=int(rows.times.min()),
        cut=cut,
    )
