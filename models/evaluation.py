"""A version on rows that no version learned from: intervals, calibration, slices, fairness. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import fairness, gates
from models.calibration import calibration
from models.dataset import Dataset, golden_rows
from models.evidence import MOST_SLICES
from models.intervals import block_interval, blocks_of
from models.scorer import Scorer
from streams.task import FAIRNESS_METRICS, Category, Task

LEAST_SLICE = 50
"""Rows of a slice that is shown."""


def held_out(task: Task, sets: Sequence[Dataset]) -> Dataset | None:
    """The golden rows of these snapshots, each once, by time; None without any."""
    golden = [rows.where(golden_rows(rows.ids, task.gate.golden_share)) for rows in sets]
    golden = [rows for rows in golden if len(rows)]
    if not golden:
        return None
    merged = Dataset(
        np.concatenate([rows.ids for rows in golden]),
        np.concatenate([rows.times for rows in golden]),
        np.concatenate([rows.labels for rows in golden]),
        np.concatenate([rows.label_times for rows in golden]),
        {name: np.concatenate([rows.columns[name] for rows in golden]) for name in task.vector},
    )
    first = np.sort(np.unique(merged.ids.astype(str), return_index=True)[1])
    once = np.zeros(len(merged), dtype=np.bool_)
    once[first] = True
    found = merged.where(once)
    order = np.argsort(found.times, kind="stable")
    return Dataset(
        *(found.ids[order], found.times[order], found.labels[order], found.label_times[order]),
        {name: values[order] for name, values in found.columns.items()},
    )


def evaluate(task: Task, scorer: Scorer, rows: Dataset, by: Sequence[str] = ()) -> dict[str, Any]:
    """Plain data. `by`: categories to look into; default: those of the gate policy, or else all."""
    scores = scorer.score_columns(rows.columns, len(rows))
    names = list(by) or list(task.gate.slices)
    names = names or [f.name for f in task.features if isinstance(f, Category)]
    told = calibration(rows.labels, scores)
    assert told is not None, "there are rows"
    return {
        "rows": len(rows),
        "positives": rows.positives,
        "from_time": int(rows.times.min()),
        "to_time": int(rows.times.max()),
        "metrics": {**_losses(task, rows, scores), **_others(rows, scores)},
        "calibration": {
            "error": told.error,
            "by_chance": told.by_chance,
            "slope": told.slope,
            "intercept": told.intercept,
            "bins": [
                {
                    "from": b.low,
                    "rows": b.count,
                    "mean_score": round(b.mean_score, 6),
                    "positive_rate": round(b.positive_rate, 6),
                }
                for b in told.bins
            ],
        },
        "slices": [each for name in names for each in _slices(task, rows, scores, name)],
        "fairness": [_groups(task, rows, scores, name) for name in _grouped(task, by)],
    }


def _losses(task: Task, rows: Dataset, scores: NDArray[np.float64]) -> dict[str, Any]:
    """Log-loss with its interval over blocks of time (null where there are too few)."""
    losses = gates.losses(rows.labels, scores)
    interval = block_interval(losses, blocks_of(rows.times, task.window_ms))
    confidence = task.gate.confidence
    return {
        "log_loss": round(float(losses.mean()), 9),
        "log_loss_low": interval.low(confidence) if interval else None,
        "log_loss_high": interval.high(confidence) if interval else None,
    }


def _others(rows: Dataset, scores: NDArray[np.float64]) -> dict[str, float]:
    return {"brier": gates.brier(rows.labels, scores), "auc": gates.auc(rows.labels, scores)}


def _slices(
    task: Task, rows: Dataset, scores: NDArray[np.float64], column: str
) -> list[dict[str, Any]]:
    values = rows.columns[column]
    known = np.array([value for value in values if value is not None], dtype=str)
    names, counts = np.unique(known, return_counts=True)
    order = np.lexsort((names, -counts))[:MOST_SLICES]
    found = []
    for name in names[order][counts[order] >= LEAST_SLICE].tolist():
        mask = values == name
        part = rows.where(mask)
        about = {"feature": column, "value": name, "rows": len(part)}
        rate = round(part.positives / len(part), 6)
        found.append({**about, "positive_rate": rate, **_losses(task, part, scores[mask])})
    return found


def _grouped(task: Task, by: Sequence[str]) -> list[str]:
    policy = task.gate.fairness
    return [policy.group] if policy is not None else list(by)


def _groups(task: Task, rows: Dataset, scores: NDArray[np.float64], column: str) -> dict[str, Any]:
    policy = task.gate.fairness
    least = policy.min_rows if policy is not None else LEAST_SLICE
    large = fairness.large_groups(rows.columns[column], least)
    groups = rows.columns[column][large]
    labels, decided = rows.labels[large], scores[large] >= task.decision_threshold
    gaps = {f"{name}_gap": fairness.gap(name, labels, decided, groups) for name in FAIRNESS_METRICS}
    by_group = fairness.by_group(labels, decided, groups) if len(labels) else {}
    return {"feature": column, **gaps, "groups": by_group}
