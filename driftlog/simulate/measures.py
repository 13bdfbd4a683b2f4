"""What a policy was worth: loss and regret, how soon it saw a change, its false alarms, its effort."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from driftlog.simulate.history import UNLABELLED, History
from driftlog.simulate.loop import Run
from models.gates import log_loss
from streams.task import DAY_MS, Task

CLAIMS = frozenset(("drift", "performance", "adwin", "evidently"))
"""Triggers that say that something changed; a calendar, growth or a follow-up says no such thing."""


@dataclass(frozen=True)
class Measures:
    """One policy over one history.

    `regret`: mean log-loss above that of the best policy compared. `delay_days`: mean of event time from a
    change to the next request; `found` of `changes` had one before the next change. `false_alarms`:
    requests that claim a change when none began in the training time before them; None where changes are
    not known. `labels`: distinct ones that some training read.
    """

    policy: str
    rows: int
    log_loss: float
    regret: float
    delay_days: float | None
    found: int
    changes: int
    false_alarms: int | None
    retrains: int
    promotions: int
    labels: int


def judged_rows(history: History, runs: Sequence[Run]) -> NDArray[np.bool_]:
    """Rows that count: labelled, and answered by a trained model in every run."""
    rows: NDArray[np.bool_] = history.data.labels != UNLABELLED
    for run in runs:
        rows = rows & ~np.isnan(run.scores)
    return rows


def measure(
    task: Task,
    history: History,
    runs: Sequence[Run],
    changes: Sequence[int] = (),
    spread_ms: int = 0,
    but: Sequence[str] = (),
) -> list[Measures]:
    """Measures of each run. `changes`: when the world changes (ms), each over `spread_ms`.

    `but`: policies that no other is held against (an oracle's).
    """
    rows = judged_rows(history, runs)
    labels = history.data.labels[rows]
    losses = [log_loss(labels, run.scores[rows]) for run in runs]
    best = min(
        (loss for run, loss in zip(runs, losses, strict=True) if run.name not in but),
        default=min(losses),
    )
    memory = task.recipe.training_days * DAY_MS + spread_ms
    end = int(history.data.times[-1]) + 1
    made = []
    for run, loss in zip(runs, losses, strict=True):
        delays = _delays(run, changes, end)
        made.append(
            Measures(
                policy=run.name,
                rows=int(rows.sum()),
                log_loss=loss,
                regret=loss - best,
                delay_days=statistics.fmean(delays) / DAY_MS if delays else None,
                found=len(delays),
                changes=len(changes),
                false_alarms=_false_alarms(run, changes, memory) if changes else None,
                retrains=len(run.retrains),
                promotions=sum(retrain.promoted for retrain in run.retrains),
                labels=int(run.read.sum()),
            )
        )
    return made


def _delays(run: Run, changes: Sequence[int], end: int) -> list[int]:
    times = [retrain.time for retrain in run.retrains]
    found = []
    for change, until in pairwise([*changes, end]):
        after = [time - change for time in times if change <= time < until]
        found += after[:1]
    return found


def _false_alarms(run: Run, changes: Sequence[int], memory: int) -> int:
    claims = [retrain.time for retrain in run.retrains if retrain.trigger in CLAIMS]
    return sum(not any(change <= time < change + memory for change in changes) for time in claims)


def daily_loss(
    history: History, run: Run, rows: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Event days (ms at their start) and the mean log-loss of each."""
    days = history.data.times[rows] // DAY_MS
    labels, scores = history.data.labels[rows], run.scores[rows]
    known = np.unique(days)
    losses = [log_loss(labels[days == day], scores[days == day]) for day in known]
    return known * DAY_MS, np.array(losses)
