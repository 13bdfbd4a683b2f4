"""The registry's part of the log: its fold, kept up to date, and appends that survive the log's absences."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import structlog

from models.event_time import event_time_now, newest_predictions
from models.registry import Registry, RegistryState
from schemas.codec import Codec
from schemas.event import Event
from streams import log
from streams.fold import Fold, Projector
from streams.task import Task

T = TypeVar("T")

logger = structlog.get_logger()
RETRY_S = 0.5
APPEND_S = 10.0


class Stopped(BaseException):
    """The service was told to stop. No Exception: whoever catches those must not take it for a failure."""


class RegistryLog:
    """Reads every event of the registry's topics from the start, in this process alone.

    No consumer group, so nothing can rebalance however long a training takes; which requests are still to
    be answered follows from the events themselves.
    """

    def __init__(
        self, bootstrap: str, codec: Codec, stop: threading.Event, more: Sequence[Fold] = ()
    ) -> None:
        """`more`: folds that are kept up to date beside the registry."""
        self._bootstrap = bootstrap
        self._codec = codec
        self._stop = stop
        self._projector = Projector([Registry(), *more])
        self._consumer = log.make_consumer(bootstrap)
        self._partitions: list[log.Partition] = []
        self._writer = log.LogWriter(bootstrap, codec, APPEND_S)

    @property
    def state(self) -> RegistryState:
        """The fold as of the last `catch_up`."""
        state: RegistryState = self._projector.states["registry"]
        return state

    def state_of(self, fold: str) -> Any:
        """One of the other folds, as of the last `catch_up`."""
        return self._projector.states[fold]

    def catch_up(self) -> None:
        """Fold all that the log holds now; waits for it while it is away, raises Stopped if told to stop."""
        self._patiently(self._read_on)

    def say(self, *events: Event) -> None:
        """Append, one after the other, then `catch_up`: of two events with one id the log's first counts."""
        for event in events:
            self._patiently(partial(self._writer.append, [event]))
        self.catch_up()

    def end_offsets(self, topics: Sequence[str]) -> log.Offsets:
        """The next offset of each partition of `topics`; waits like `catch_up`."""
        return self._patiently(lambda: log.end_offsets(self._consumer, self._find(topics)))

    def event_time(self, task: Task, now_ms: int) -> int:
        """Event time (ms) of `task` at wall clock `now_ms`, see `event_time_now`; waits like `catch_up`."""
        newest = self._patiently(lambda: newest_predictions(self._bootstrap, self._codec, task))
        return event_time_now(newest, now_ms)

    def close(self) -> None:
        self._consumer.close()

    def _read_on(self) -> None:
        if not self._partitions:
            self._partitions = self._find(self._projector.topics)
        ends = log.end_offsets(self._consumer, self._partitions)
        begins = self._projector.offsets
        if all(begins.get(key, 0) >= end for key, end in ends.items()):
            return
        topics = self._projector.topics
        self._projector.feed(
            log.read(self._bootstrap, self._codec, topics, to=ends, start=dict(begins))
        )
        for (topic, partition), end in ends.items():
            self._projector.skip_to(topic, partition, end)

    def _find(self, topics: Sequence[str]) -> list[log.Partition]:
        found = log.partitions_of(self._consumer, topics)
        missing = set(topics) - {topic for topic, _ in found}
        if missing:  # a broker that has not heard of a new topic yet
            raise log.LogUnavailable(f"there is no topic {', '.join(sorted(missing))}")
        return found

    def _patiently(self, step: Callable[[], T]) -> T:
        while True:
            try:
                return step()
            except log.LogUnavailable as error:
                logger.warning("the log is away, trying again", reason=str(error))
                if self._stop.wait(RETRY_S):
                    raise Stopped from error
