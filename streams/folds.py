"""Which folds a task has, and which runner drives them: the one list that live services and replay share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from streams.estimation import Estimation
from streams.features import FeatureFold
from streams.fold import Fold
from streams.labelling import LabelRequests
from streams.outcomes import OutcomeWindows
from streams.policy import RetrainReactor
from streams.quarantine import Quarantine
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
    """Driven by the Faust runner: scoring, estimates without labels, policies, the quarantine.

    All but asking for labels, which is off unless a task wants it, read topics of a low rate alone.
    """
    return [fold for task in tasks for fold in _control(task, partitions)]


def _control(task: Task, partitions: int) -> Iterator[Fold]:
    yield Scoring(task, partitions)
    yield Estimation(task, partitions)
    yield RetrainReactor(task)
    yield Quarantine(task)
    if task.labelling is not None:
        yield LabelRequests(task, partitions)
