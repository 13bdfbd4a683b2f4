"""How far each reader is behind the log, and waiting until none is."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

from confluent_kafka import KafkaException

from infra.errors import InfraError
from infra.settings import HOST, Settings
from models.registry import Registry
from models.serving.guards.access import AccessKeys
from schemas.catalogue import predictions_topic
from streams import log, replay
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


def lags(settings: Settings, tasks: Sequence[Task], ends: log.Offsets) -> Lags:
    """Records up to `ends` that each reader has not finished; -1 where unknown."""
    found = {"history": history_lag(settings)}
    for group, driven in live_folds(settings, tasks).items():
        topics = {topic for fold in driven for topic in fold.topics}
        found[group.removeprefix("driftlog-")] = _group_lag(settings, group, topics, ends)
    predictions = {predictions_topic(task.name) for task in tasks}
    found["windows"] = _group_lag(settings, WINDOWS_GROUP, predictions, ends)
    return found


def history_lag(settings: Settings) -> int:
    """What ClickHouse lacks, over all topics, of what the log holds now; -1 if the history does not answer.

    It is given a second to get there: while events keep coming, it is always a little behind them.
    """
    url = f"http://{HOST}:{settings.port(settings.history_base)}/lag?wait=1"
    try:
        with urllib.request.urlopen(url, timeout=15) as answer:
            return int(json.load(answer)["lag"])
    except (urllib.error.URLError, OSError, ValueError, KeyError):
        return -1


def _group_lag(settings: Settings, group: str, topics: Collection[str], ends: log.Offsets) -> int:
    mine = {key: end for key, end in ends.items() if key[0] in topics}
    consumer = log.make_consumer(settings.bootstrap, group)
    try:
        committed = log.committed_offsets(consumer, list(mine))
    except KafkaException:
        return -1
    finally:
        consumer.close()
    return sum(max(0, end - committed[key]) for key, end in mine.items())


def wait_settled(
    settings: Settings,
    tasks: Sequence[Task],
    timeout_s: float = 120.0,
    on_wait: Callable[[Lags], None] = lambda lags: None,
    ends: log.Offsets | None = None,
) -> None:
    """Until every reader has finished the log up to `ends` (default: as it ends now), whatever else comes.

    Raises InfraError when the time is over.
    """
    deadline = time.monotonic() + timeout_s
    topics = [topic.name for topic in log.all_topics(settings, tasks)]
    while True:
        with suppress(LogUnavailable, KafkaException):
            ends = ends or replay.ends(settings.bootstrap, topics)
        found = lags(settings, tasks, ends) if ends else {"the log": -1}
        if not any(found.values()):
            return
        if ends:
            on_wait(found)
        if time.monotonic() > deadline:
            behind = ", ".join(f"{name} {lag}" for name, lag in found.items() if lag)
            raise InfraError(f"still behind the log after {timeout_s:.0f} s (records): {behind}")
        time.sleep(0.3)
