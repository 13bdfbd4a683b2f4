"""How long two models take for the same rows, measured turn by turn, so that both meet the same noise."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

ROWS = 256
REPEATS = 31
WARM_UP = 3

Clock = Callable[[], int]
"""Nanoseconds; best those of the scoring thread alone (`time.thread_time_ns`), which stand still while
something else has the processor."""


class Scores(Protocol):
    def score_columns(self, columns: Mapping[str, Any], count: int) -> NDArray[np.float64]: ...


def latencies(
    challenger: Scores, champion: Scores, columns: Mapping[str, NDArray[Any]], clock: Clock
) -> tuple[float, float]:
    """Microseconds a row of both: medians of REPEATS batches of ROWS rows (the given ones, over again).

    The two take turns and swap places each time: whatever slows this machine slows both, and a pause of one
    batch does not move a median.
    """
    count = len(next(iter(columns.values())))
    picked = np.resize(np.arange(count), ROWS)
    batch = {name: values[picked] for name, values in columns.items()}
    taken: tuple[list[int], list[int]] = ([], [])
    models = challenger, champion
    for turn in range(WARM_UP + REPEATS):
        for which in (0, 1) if turn % 2 else (1, 0):
            began = clock()
            models[which].score_columns(batch, ROWS)
            if turn >= WARM_UP:
                taken[which].append(clock() - began)
    one, other = (statistics.median(times) / ROWS / 1000 for times in taken)
    return round(one, 4), round(other, 4)
