"""Equal rows are scored once: those of one batch, and those that a batch before had.

A score depends on the version and the encoded row alone, to the bit (see `models.scorer`): what is kept is
what the model would say again. It pays only for a model that takes much longer than to look a row up.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.encoder import Encoder

WORTH_S = 300e-6
"""A row that takes the model so long is worth a look: over a hundred times what one costs, so that looks pay
from one repeated row in a hundred on (`python -m benchmarks.score_cache`)."""
PROBES = 4
"""Rows that tell how long one takes, and how often they are tried: a busy machine only makes it longer."""


class RowScorer(Protocol):
    """What is asked here of `models.scorer.Scorer`."""

    @property
    def encoder(self) -> Encoder: ...

    def score_matrix(self, matrix: NDArray[np.float32]) -> NDArray[np.float64]: ...


class CachedScorer:
    """A scorer of one version that knows the last `entries` different rows. Thread-safe.

    `count` hears of each batch: rows that were not scored, rows that were.
    """

    def __init__(self, scorer: RowScorer, entries: int, count: Callable[[int, int], None]) -> None:
        self._scorer = scorer
        self._entries = entries
        self._count = count
        self._kept: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()

    def score(self, vectors: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
        """As `Scorer.score`."""
        matrix = self._scorer.encoder.encode(vectors)
        keys = _keys(matrix)
        scores, new = self._look_up(keys)
        if new:
            found = self._scorer.score_matrix(matrix[list(new.values())])
            made = dict(zip(new, found.tolist(), strict=True))
            scores |= made
            self._keep(made)
        self._count(len(keys) - len(new), len(new))
        return np.array([scores[key] for key in keys], dtype=np.float64)

    def forget(self) -> None:
        """The version answers no more."""
        with self._lock:
            self._kept.clear()

    def _look_up(self, keys: Sequence[bytes]) -> tuple[dict[bytes, float], dict[bytes, int]]:
        """The scores that are known, and where the first of each row stands that is not."""
        scores: dict[bytes, float] = {}
        new: dict[bytes, int] = {}
        with self._lock:
            for place, key in enumerate(keys):
                if key in scores or key in new:
                    continue
                score = self._kept.get(key)
                if score is None:
                    new[key] = place
                else:
                    self._kept.move_to_end(key)
                    scores[key] = score
        return scores, new

    def _keep(self, scores: Mapping[bytes, float]) -> None:
        with self._lock:
            self._kept.update(scores)
            while len(self._kept) > self._entries:
                self._kept.popitem(last=False)


def row_seconds(scorer: RowScorer, clock: Callable[[], float] = time.perf_counter) -> float:
    """How long a row takes the model in a small batch, s, without encoding it."""
    matrix = scorer.encoder.encode([{}] * PROBES)
    taken = []
    for _ in range(PROBES):
        began = clock()
        scorer.score_matrix(matrix)
        taken.append(clock() - began)
    return min(taken) / PROBES


def _keys(matrix: NDArray[np.float32]) -> list[bytes]:
    """What stands for the bytes of each row: an entry is as small for an image as for a number."""
    width, raw = matrix.shape[1] * matrix.itemsize, memoryview(matrix.tobytes())
    starts = range(0, len(raw), width)
    return [blake2b(raw[at : at + width], digest_size=16).digest() for at in starts]
