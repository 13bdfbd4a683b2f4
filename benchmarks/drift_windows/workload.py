"""The workload: predictions of two models with a drift planted half way, and the scores they must give.

Everything follows from a seed and a number of events; fewer events are a prefix of more, but for the
drift. Event times are in order per partition but for a little disorder within the allowed lateness; after
the last event, each partition gets one that comes much later, so that every window closes by event time
alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.reference import bin_index, psi
from streams.reference import build_reference
from streams.task import DriftPolicy

TASK = "bench"
FEATURES = tuple(f"x{number}" for number in range(8))
COLUMNS = (*FEATURES, "score")
MODELS = ("bench-1", "bench-2")
WINDOW_MS = 10_000
LATENESS_MS = 5_000
EVENTS_PER_WINDOW = 20_000
BINS = 20
NULL_SHARE = 0.001
DRIFTING = 3
"""The feature whose mean moves by `DRIFT` from the middle of the events on."""
DRIFT = 0.5
START_MS = 1_767_225_600_000
"""2026-01-01, a multiple of the window."""
CLOSING_MS = 600_000
"""The closing event of a partition comes this much after the last window's end."""
_REFERENCE_ROWS = 200_000
_OUT_OF_ORDER_SHARE = 0.05
_OUT_OF_ORDER_MS = 2_000
_BLOCK = 1 << 16

Key = tuple[str, int, str]
"""(model version, window start in ms, column)"""


@dataclass(frozen=True)
class Workload:
    """`n` events in the order of their production; arrays of shape (n,) or (n, 2), (n, features).

    `events` of them count; the rest are the closing ones, one for each of `partitions` partitions.
    """

    events: int
    partitions: int
    partition: NDArray[np.int32]
    ids: NDArray[np.uint64]
    """The 128 bits of each event's UUID, high half first."""
    time: NDArray[np.int64]
    model: NDArray[np.int64]
    """Index into MODELS."""
    score: NDArray[np.float64]
    label: NDArray[np.int64]
    features: NDArray[np.float64]
    """NaN stands for null."""

    def __len__(self) -> int:
        return len(self.time)

    @property
    def windows(self) -> int:
        return -(-self.events // EVENTS_PER_WINDOW)

    @property
    def ends(self) -> list[int]:
        """Number of records of each partition."""
        return np.bincount(self.partition, minlength=self.partitions).tolist()

    @cached_property
    def truth(self) -> dict[Key, float]:
        """The score of each column of each window of each model, from the arrays themselves."""
        columns = reference()
        window = (self.time[: self.events] - START_MS) // WINDOW_MS
        group = self.model[: self.events] * self.windows + window
        scores = {}
        for place, column in enumerate(columns):
            values = self.features[:, place] if place < len(FEATURES) else self.score
            index = bin_index(values[: self.events], column["edges"])
            index[index < 0] = BINS
            counts = np.bincount(
                group * (BINS + 1) + index, minlength=len(MODELS) * self.windows * (BINS + 1)
            ).reshape(len(MODELS), self.windows, BINS + 1)
            whole = [*column["counts"], column["missing"]]
            for number, model in enumerate(MODELS):
                for at in range(self.windows):
                    key = model, START_MS + at * WINDOW_MS, str(column["name"])
                    scores[key] = psi(counts[number, at], whole)
        return scores


def make(events: int, partitions: int = 4, seed: int = 20) -> Workload:
    """`events` events over `partitions` partitions, and the closing ones."""
    blocks = [
        _block(number, partitions, seed) for number in range(-(-events // _BLOCK))
    ]  # a block depends on its number only: fewer events are a prefix of more
    partition, ids, late, model, score, label, features = (
        np.concatenate(parts)[:events] for parts in zip(*blocks, strict=True)
    )
    time = START_MS + np.arange(events) * WINDOW_MS // EVENTS_PER_WINDOW
    time = np.maximum(time - late, START_MS)
    features[events // 2 :, DRIFTING] += DRIFT
    last = START_MS + -(-events // EVENTS_PER_WINDOW) * WINDOW_MS + CLOSING_MS
    return Workload(
        events,
        partitions,
        np.append(partition, np.arange(partitions, dtype=np.int32)),
        np.append(ids, np.arange(2 * partitions, dtype=np.uint64).reshape(-1, 2), axis=0),
        np.append(time, np.full(partitions, last)),
        np.append(model, np.zeros(partitions, np.int64)),
        np.append(score, np.full(partitions, 0.5)),
        np.append(label, np.zeros(partitions, np.int64)),
        np.append(features, np.zeros((partitions, len(FEATURES))), axis=0),
    )


def _block(number: int, partitions: int, seed: int) -> tuple[NDArray[Any], ...]:
    rng = np.random.default_rng((seed, number))
    features, score = _values(rng, _BLOCK)
    features[rng.random(features.shape) < NULL_SHARE] = np.nan
    late = rng.integers(1, _OUT_OF_ORDER_MS, _BLOCK) * (rng.random(_BLOCK) < _OUT_OF_ORDER_SHARE)
    ids = rng.integers(0, 1 << 64, (_BLOCK, 2), np.uint64)
    ids[:, 0] = (ids[:, 0] & np.uint64(0xFFFFFFFFFFFF0FFF)) | np.uint64(0x4000)
    ids[:, 1] = (ids[:, 1] & np.uint64((1 << 62) - 1)) | np.uint64(1 << 63)
    return (
        rng.integers(0, partitions, _BLOCK, np.int32),
        ids,
        late,
        rng.integers(0, len(MODELS), _BLOCK),
        score,
        (score > 0.5).astype(np.int64),
        features,
    )


def _values(rng: np.random.Generator, rows: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    features = rng.standard_normal((rows, len(FEATURES)))
    score = 1 / (1 + np.exp(-features @ np.linspace(-0.4, 0.6, len(FEATURES))))
    return features, score


def reference() -> list[dict[str, Any]]:
    """`ReferenceColumn`s of COLUMNS, frozen: both models were trained on the same rows."""
    rng = np.random.default_rng(19)
    features, score = _values(rng, _REFERENCE_ROWS)
    features[rng.random(features.shape) < NULL_SHARE] = np.nan
    return build_reference(
        dict(zip(FEATURES, features.T, strict=True)),
        dict.fromkeys(FEATURES, "double"),
        score,
        np.zeros(_REFERENCE_ROWS, np.int64),
        DriftPolicy(bins=BINS),
    )


def differences(
    found: dict[Key, float], truth: dict[Key, float], tolerance: float = 1e-9
) -> list[str]:
    """What is missing or differs by more than `tolerance`, one line each; later windows are not looked at."""
    lines = []
    for key, value in truth.items():
        if key not in found:
            lines.append(f"{key}: missing")
        elif not abs(found[key] - value) <= tolerance:
            lines.append(f"{key}: {found[key]!r}, not {value!r}")
    last = max((start for _, start, _ in truth), default=0)
    lines += [f"{key}: not asked for" for key in found.keys() - truth if key[1] <= last]
    return lines
