"""Which folds a task has, and which runner drives them: the one list that live services and replay share."""

from __future__ import annotations

from collections.abc import Sequence

from streams.features import FeatureFold
from streams.fold import Fold
from streams.outcomes import OutcomeWindows
from streams.policy import RetrainReactor
from streams.rollout import RolloutReactor
from streams.scoring import Scoring
from streams.task import Task


def worker_folds(tasks: Sequence[Task], partitions: int) -> list[Fold]:
    """Driven by the batch runner. (Input windows: `streams.window_worker`.)

    Rollouts are weighed only for tasks whose policy asks for evidence: it costs a second join of labels.
    """
    features: list[Fold] = [FeatureFold(task, partitions) for task in tasks]
    weighed = [task for task in tasks if task.rollout.weighs_evidence]
    return features + [RolloutReactor(task, partitions) for task in weighed]


def outcome_folds(tasks: Sequence[Task], partitions: int) -> list[Fold]:
    """Driven by column (`streams.outcome_worker`), with the very states that these leave event by event."""
    return [OutcomeWindows(task, partitions) for task in tasks]


def control_folds(tasks: Sequence[Task], partitions: int) -> list[Fold]:
    """Low rate, driven by the Faust runner: scoring and the retrain policy."""
    return [fold for task in tasks for fold in (Scoring(task, partitions), RetrainReactor(task))]
