"""Which folds a task has, and which runner drives them: the one list that live services and replay share."""

from __future__ import annotations

from collections.abc import Sequence

from streams.features import FeatureFold
from streams.fold import Fold
from streams.outcomes import OutcomeWindows
from streams.policy import RetrainReactor
from streams.scoring import Scoring
from streams.task import Task


def worker_folds(tasks: Sequence[Task], partitions: int) -> list[Fold]:
    """Driven by the batch runner: features, outcome windows. (Input windows: `streams.window_worker`.)"""
    return [
        fold
        for task in tasks
        for fold in (
            FeatureFold(task, partitions),
            OutcomeWindows(task, partitions),
        )
    ]


def control_folds(tasks: Sequence[Task], partitions: int) -> list[Fold]:
    """Low rate, driven by the Faust runner: scoring and the retrain policy."""
    return [fold for task in tasks for fold in (Scoring(task, partitions), RetrainReactor(task))]
