"""How often each monitor cries although nothing changed, beside the level that it states."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import beta as beta_distribution

from benchmarks.monitors.null_streams import (
    KINDS,
    POLICY,
    SCORES,
    Array,
    Stream,
    draw,
    texts_of,
)
from models.gates import log_loss
from streams.drift import Yardstick, compare
from streams.expectations import QualityPolicy
from streams.outcome_sums import Outcomes, add_up
from streams.performance import change_detected, measure
from streams.quality import share_checks, volume_checks
from streams.reference import build_reference, histogram_with_missing, label_column
from streams.task import LABEL, DriftPolicy, Numeric, RetrainPolicy, Task
from streams.window_bins import ModelBins

SIZES = (50, 100, 200, 500, 1_000, 2_000, 5_000)
QUICK_SIZES = (50, 500)
STREAMS, QUICK_STREAMS = 1_000, 100
REFERENCE_ROWS = 6_000
MOST_WINDOWS, FEWEST_WINDOWS = 40, 14
TESTED = 2
"""Windows after the reference, of each stream, that are judged."""
RECENT_ROWS = 200
RECENT_WINDOWS = 7
"""What a model's expected log-loss is measured on: a week of days, and never fewer rows than that."""
LIVES = 40
"""Windows of a version that Page-Hinkley watches."""
CONFIDENCE = 0.99
_LEVEL = DriftPolicy(alpha=POLICY.alpha)
QUALITY = QualityPolicy()
AS_SHIPPED = Task("calm", (Numeric("x"),), "late", drift=_LEVEL)
CHANCE_ALONE = replace(AS_SHIPPED, retrain=RetrainPolicy(max_log_loss_ratio=1.0))


@dataclass(frozen=True)
class Rate:
    """`alarms` in `windows` of `size` rows, of a monitor that states `level`."""

    monitor: str
    size: int
    alarms: int
    windows: int
    level: float

    @property
    def interval(self) -> tuple[float, float]:
        """Clopper & Pearson (1934) at CONFIDENCE."""
        tail = (1 - CONFIDENCE) / 2
        k, n = self.alarms, self.windows
        low = beta_distribution.ppf(tail, k, n - k + 1) if k else 0.0
        high = beta_distribution.ppf(1 - tail, k + 1, n - k) if k < n else 1.0
        return float(low), float(high)

    @property
    def holds(self) -> bool:
        """False if the rate is above the level beyond doubt."""
        return self.interval[0] <= self.level


def measured(streams: int, sizes: Sequence[int], processes: int) -> Iterator[list[Rate]]:
    """The rates of all monitors, one list for each size."""
    jobs = [
        (size, range(at, min(at + 25, streams))) for size in sizes for at in range(0, streams, 25)
    ]
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(min(processes, os.cpu_count() or 1), context) as pool:
        found = pool.map(_batch, jobs)
        for size in sizes:
            alarms: Counter[str] = Counter()
            windows: Counter[str] = Counter()
            for _ in range(0, streams, 25):
                more, judged = next(found)
                alarms += more
                windows += judged
            yield [
                Rate(monitor, size, alarms[monitor], count, POLICY.alpha)
                for monitor, count in windows.items()
            ]


def _batch(job: tuple[int, range]) -> tuple[Counter[str], Counter[str]]:
    size, seeds = job
    alarms: Counter[str] = Counter()
    windows: Counter[str] = Counter()
    for seed in seeds:
        for monitor, alarm in one_stream(size, seed):
            windows[monitor] += 1
            alarms[monitor] += alarm
    return alarms, windows


def one_stream(n: int, seed: int) -> Iterator[tuple[str, bool]]:
    """(monitor, whether it cried) for every window of one stream that a monitor judges."""
    rng = np.random.default_rng([seed, n])
    kind = list(SCORES)[seed % len(SCORES)]
    known = min(MOST_WINDOWS, max(FEWEST_WINDOWS, REFERENCE_ROWS // n))
    stream = draw(rng, n, known + TESTED, SCORES[kind])
    reference = reference_of(stream, known)
    yield from _inputs(stream, reference, known)
    yield from _volumes(rng, n)
    yield from _losses(rng, n, SCORES[kind], f"log-loss, {kind} scores")


def reference_of(stream: Stream, windows: int) -> list[dict[str, Any]]:
    """The product's reference of the first `windows` windows."""
    rows = stream.windows < windows
    columns = {
        name: texts_of(name)[values[rows]] if KINDS[name] == "string" else values[rows]
        for name, values in stream.columns.items()
    }
    return build_reference(
        columns,
        KINDS,  # type: ignore[arg-type]
        stream.scores[rows],  # type: ignore[arg-type]
        stream.windows[rows].tolist(),
        POLICY,
        stream.labels[rows],
    )


def sketches(
    stream: Stream, reference: Sequence[Mapping[str, Any]], since: int, count: int
) -> list[list[dict[str, Any]]]:
    """`ColumnSketch`es of `count` windows from window `since` on, as the window worker counts them."""
    bins = ModelBins(reference)
    rows = (stream.windows >= since) & (stream.windows < since + count)
    data = {f"features.{name}": values[rows] for name, values in stream.columns.items()}
    data["score"] = stream.scores[rows]
    texts = {f"features.{n}": list(texts_of(n)) for n, k in KINDS.items() if k == "string"}
    tallies = [bins.tallies() for _ in range(count)]
    bins.add(tallies, data, texts, (stream.windows[rows] - since).astype(np.int32))
    return [bins.describe(tally) for tally in tallies]


def _inputs(
    stream: Stream, reference: list[dict[str, Any]], known: int
) -> Iterator[tuple[str, bool]]:
    label = label_column(reference)
    assert label is not None
    inputs = [column for column in reference if column is not label]
    together = len(reference)
    alone = [Yardstick([column], 1, POLICY) for column in inputs]
    family = Yardstick(inputs, together, POLICY)
    truth = Yardstick([label], 1, POLICY), Yardstick([label], together, POLICY)
    for at, sketch in enumerate(sketches(stream, reference, known, TESTED)):
        histograms = [histogram_with_missing(column) for column in sketch]
        ones = compare([(y, [h]) for y, h in zip(alone, histograms, strict=True)], POLICY)
        for column, (drift,) in zip(inputs, ones, strict=True):
            yield f"PSI: {_named(column)}", drift.drifted
        labels = stream.labels[stream.windows == known + at]
        counts = [*np.bincount(labels, minlength=2).tolist(), 0]
        (by_itself,), (among_all,) = compare([(y, [counts]) for y in truth], POLICY)
        yield f"PSI: {LABEL}", by_itself.drifted
        everything = [*compare([(family, histograms)], POLICY)[0], among_all]
        yield "drift, all columns together", any(drift.drifted for drift in everything)
        pairs = zip(inputs, sketch, strict=True)
        failures = [share_checks(r, c, len(inputs), POLICY, QUALITY) for r, c in pairs]
        yield "quality, all shares together", any(failures)


def _named(column: Mapping[str, Any]) -> str:
    return f"{column['name']} (derived)" if column.get("inputs") else str(column["name"])


def _volumes(rng: np.random.Generator, n: int) -> Iterator[tuple[str, bool]]:
    volumes = rng.poisson(n, 8)
    for at in (6, 7):
        usual = float(np.median(volumes[at - 6 : at]))
        (check,) = volume_checks(int(volumes[at]), usual, None, QUALITY)
        yield "quality, volume", not check.passed


def _losses(
    rng: np.random.Generator, n: int, beta: tuple[float, float], name: str
) -> Iterator[tuple[str, bool]]:
    """Windows of a model that is as good as ever; what is expected of it was measured on a few rows."""
    recent = max(RECENT_ROWS, RECENT_WINDOWS * n)
    scores = rng.beta(*beta, recent).clip(0.001, 0.999)
    expected = log_loss((rng.random(recent) < scores).astype(int), scores)
    strict, shipped = [], []
    for _ in range(LIVES):
        scores = rng.beta(*beta, n).clip(0.001, 0.999)
        sketch = outcomes(scores, (rng.random(n) < scores).astype(np.int64))
        strict.append(measure(sketch, expected, CHANCE_ALONE, recent))
        shipped.append(measure(sketch, expected, AS_SHIPPED, recent))
    for one in strict[:TESTED]:
        yield name, one.degraded
    pressures = [one.pressure for one in shipped]
    for end in range(LIVES // 4, LIVES + 1, LIVES // 4):
        yield "Page-Hinkley on the log-loss", change_detected(pressures[:end])  # type: ignore[arg-type]


def outcomes(scores: Array, labels: Array) -> dict[str, Any]:
    """The 'outcomes' SketchTaken of a window, as the outcome worker adds it up."""
    counts, sums = np.zeros((2, 50), np.int64), np.zeros(3, np.int64)
    add_up(scores, labels, counts, sums)
    made = Outcomes(len(scores))
    made.add_all(counts, sums)
    return {
        "columns": [{"name": f"score|{k}", "counts": made.scores[k]} for k in (0, 1)],
        "totals": {
            "log_loss": made.log_loss,
            "brier": made.brier,
            "score": made.score,
            "positives": int(labels.sum()),
        },
    }
