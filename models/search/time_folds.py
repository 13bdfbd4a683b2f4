"""Cross-validation that never looks ahead: each fold is judged by rows later than all it learned from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from models.dataset import Dataset


@dataclass(frozen=True, slots=True)
class Fold:
    """Masks over the rows: learned from, and judged by; `begins` (ms) is where the judging rows begin."""

    learn: NDArray[np.bool_]
    judge: NDArray[np.bool_]
    begins: int


def time_folds(rows: Dataset, count: int) -> Iterator[Fold]:
    """`count` folds over `count + 1` blocks of about equally many rows, in the order of event time.

    Fold i is judged by block i + 1, and learns from rows asked before it whose labels were known before it:
    a label that came later was not there when the model would have been trained.
    """
    edges = np.quantile(rows.times, np.linspace(0, 1, count + 2)[1:-1], method="inverted_cdf")
    limits = [*edges.astype(np.int64).tolist(), None]
    for begin, end in pairwise(limits):
        judge = rows.times >= begin
        if end is not None:
            judge &= rows.times < end
        learn = (rows.times < begin) & (rows.label_times < begin)
        yield Fold(learn, judge, int(begin))
