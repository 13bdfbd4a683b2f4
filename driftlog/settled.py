"""How far each reader is behind the log, and waiting until none is."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence

from confluent_kafka import KafkaException

from infra.errors import InfraError
from infra.settings import HOST, Settings
from models.registry import Registry
from models.serving.guards.access import AccessKeys
from schemas.catalogue import predictions_topic
from streams import log
from streams.app import CONTROL_GROUP, WINDOWS_GROUP, WORKER_GROUP, outcomes_group
from streams.fold import Fold
from streams.folds import control_folds, outcome_folds, worker_folds
from streams.log import LogUnavailable
from streams.rollout_state import Rollouts
from streams.task import Task

Lags = dict[str, int]


def live_folds(settings: Settings, tasks: Sequence[Task]) -> dict[str, list[Fold]]:
    """The folds of live services, by consumer group (but for input windows)."""
    outcomes = {outcomes_group(task): outcome_folds([task], settings.partitions) for task in tasks}
    return {
        WORKER_GROUP: worker_folds(tasks, settings.partitions),
        **outcomes,
        CONTROL_GROUP: [
            *control_folds(tasks, settings.partitions),
            Registry(),
            Rollouts(),
            AccessKeys(),
        ],
    }


def lags(settings: Settings, tasks: Sequence[Task]) -> Lags:
    """Records that each reader has not finished; -1 where unknown."""
    found = {"history": history_lag(settings)}
    for group, driven in live_folds(settings, tasks).items():
        topics = sorted({topic for fold in driven for topic in fold.topics})
        found[group.removeprefix("driftlog-")] = _group_lag(settings, group, topics)
    predictions = [predictions_topic(task.name) for task in tasks]
    found["windows"] = _group_lag(settings, WINDOWS_GROUP, predictions)
    return found


def history_lag(settings: Settings) -> int:
    """End of the log minus what ClickHouse holds, over all topics; -1 if the history does not answer."""
    url = f"http://{HOST}:{settings.port(settings.history_base)}/lag"
    try:
        with urllib.request.urlopen(url, timeout=15) as answer:
            return int(json.load(answer)["lag"])
    except (urllib.error.URLError, OSError, ValueError, KeyError):
        return -1


def _group_lag(settings: Settings, group: str, topics: Sequence[str]) -> int:
    consumer = log.make_consumer(settings.bootstrap, group)
    try:
        partitions = log.partitions_of(consumer, topics)
        ends = log.end_offsets(consumer, partitions)
        committed = log.committed_offsets(consumer, partitions)
    except (LogUnavailable, KafkaException):
        return -1
    finally:
        consumer.close()
    return sum(max(0, end - committed[key]) for key, end in ends.items())


def wait_settled(
    settings: Settings,
    tasks: Sequence[Task],
    timeout_s: float = 120.0,
    on_wait: Callable[[Lags], None] = lambda lags: None,
) -> None:
    """Until every reader has finished the log as it stands; raises InfraError when the time is over."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = lags(settings, tasks)
        if not any(found.values()):
            return
        on_wait(found)
        if time.monotonic() > deadline:
            behind = ", ".join(f"{name} {lag}" for name, lag in found.items() if lag)
            raise InfraError(f"still behind the log after {timeout_s:.0f} s (records): {behind}")
        time.sleep(0.3)
