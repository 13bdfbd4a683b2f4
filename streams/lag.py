"""How far a consumer is behind the log: in events, and in seconds of event time. Ends one that hangs."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import cache

import structlog
from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    KafkaError,
    Message,
    TopicPartition,
)
from prometheus_client import REGISTRY, CollectorRegistry, Gauge

from streams import log
from streams.log import LogUnavailable, Offsets, Partition

logger = structlog.get_logger()
STEPS_BACK = (1, 16, 256)
"""So far before an offset the record behind it is looked for: markers of transactions are no records."""
KNOWN = 10_000
"""Looked-up times that are kept at most."""
UNKNOWN = (float("nan"), float("nan"))
STALLED_SECONDS = 45.0
"""So long without progress, though there is something to read: it hangs."""


def _end_process() -> None:
    """The supervisor starts it anew."""
    os._exit(1)  # what hangs would not let it end otherwise


class LagMeter:
    """Keeps `driftlog_lag_events` and `driftlog_lag_event_seconds` of one consumer group, by topic.

    - events: offsets between what was processed and the partition's end, summed over partitions;
    - seconds: event time of the last record in the log minus that of the last record processed, never
      below 0, and 0 where nothing is left: of the partition that is worst off.

    The time of a record is its CloudEvents attribute `ce_time`, or Kafka's timestamp where it has none.
    Both records are looked up in the log: the consumer only says how far it is. NaN while no broker
    answers.

    A consumer that has something to read and stays where it is for `patience_s` hangs: `on_stalled` is
    called, which ends the process unless told otherwise.
    """

    def __init__(
        self,
        bootstrap: str,
        group: str,
        registry: CollectorRegistry = REGISTRY,
        interval_s: float = 1.0,
        on_stalled: Callable[[], None] = _end_process,
        patience_s: float = STALLED_SECONDS,
    ) -> None:
        self._group = group
        self._interval_s = interval_s
        self._on_stalled = on_stalled
        # Looks are counted, not seconds: a process that was frozen has not hung.
        self._patience = round(patience_s / interval_s)
        self._events, self._seconds = _gauges(registry)
        self._times = RecordTimes(bootstrap)
        self._positions: Offsets = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lag", daemon=True)
        self._thread.start()

    def observe(self, positions: Mapping[Partition, int]) -> None:
        """The next offset to be processed of every partition this consumer owns; costs a copy."""
        with self._lock:
            self._positions = dict(positions)

    def close(self) -> None:
        """Stop measuring; the gauges keep their last values."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        shown: set[str] = set()
        last: Offsets = {}
        still = 0
        while not self._stop.wait(self._interval_s):
            with self._lock:
                positions = self._positions
            topics = {topic for topic, _ in positions}
            for topic in shown - topics:  # its partitions went to another member
                self._events.remove(self._group, topic)
                self._seconds.remove(self._group, topic)
            shown = topics
            try:
                measured = measure(self._times, positions)
            except LogUnavailable as error:
                logger.warning("lag unknown", group=self._group, problem=str(error))
                measured = dict.fromkeys(topics, UNKNOWN)
            for topic, (events, seconds) in measured.items():
                self._events.labels(self._group, topic).set(events)
                self._seconds.labels(self._group, topic).set(seconds)
            behind = any(events > 0 for events, _ in measured.values())
            still = still + 1 if behind and positions == last else 0
            last = positions
            if still == self._patience:
                logger.error("no progress although there is something to read", group=self._group)
                self._on_stalled()
        self._times.close()


def measure(
    times: RecordTimes, positions: Mapping[Partition, int]
) -> dict[str, tuple[float, float]]:
    """Per topic: (events, seconds) that lie between `positions` and the ends; raises LogUnavailable."""
    ends = times.ends(positions)
    behind = {key: offset for key, offset in positions.items() if ends[key] > offset}
    newest = times.before({key: ends[key] for key in behind})
    reached = times.before(behind)
    events = dict.fromkeys((topic for topic, _ in positions), 0.0)
    seconds = dict.fromkeys(events, 0.0)
    for key, offset in behind.items():
        topic = key[0]
        events[topic] += ends[key] - offset
        if key in newest and key in reached:
            seconds[topic] = max(seconds[topic], newest[key] - reached[key])
    return {topic: (events[topic], seconds[topic]) for topic in events}


class RecordTimes:
    """Looks up ends of partitions and event times of single records."""

    def __init__(self, bootstrap: str) -> None:
        small = {"fetch.message.max.bytes": 1_024, "queued.min.messages": 1}
        self._consumer = log.make_consumer(bootstrap, "driftlog-lag", **small)
        self._known: dict[tuple[Partition, int], float] = {}

    def ends(self, partitions: Iterable[Partition]) -> Offsets:
        """The next offset to be written, per partition; raises LogUnavailable."""
        return log.end_offsets(self._consumer, list(partitions))

    def before(self, offsets: Mapping[Partition, int]) -> dict[Partition, float]:
        """Event time (seconds since the epoch) of the last record before an offset, or else of the first.

        A partition is left out if its last STEPS_BACK offsets hold no record. Raises LogUnavailable.
        """
        if len(self._known) > KNOWN:
            self._known.clear()
        for step in STEPS_BACK:
            left = {key: at for key, at in offsets.items() if (key, at) not in self._known}
            if left:
                self._look_up(left, step)
        return {k: self._known[k, at] for k, at in offsets.items() if (k, at) in self._known}

    def close(self) -> None:
        self._consumer.close()

    def _look_up(self, offsets: Offsets, step: int) -> None:
        starts = {key: max(0, at - step) for key, at in offsets.items()}
        self._consumer.assign([TopicPartition(*key, start) for key, start in starts.items()])
        last: dict[Partition, Message] = {}
        deadline = time.monotonic() + log.ELECTION_SECONDS
        open_ = set(offsets)
        while open_:
            message = self._consumer.poll(0.2)
            if message is None and time.monotonic() > deadline:
                raise LogUnavailable(f"no record came of {sorted(open_)}: do brokers answer?")
            key = (str(message.topic()), message.partition() or 0) if message is not None else None
            if message is None or key not in open_:
                continue
            error, at = message.error(), message.offset() or 0
            if error is None and (at < offsets[key] or (not starts[key] and key not in last)):
                last[key] = message
            # Anything else than a record before the offset, and the very last of these, ends the search.
            ended = error is not None and error.code() == KafkaError._PARTITION_EOF
            if ended or (error is None and at + 1 >= offsets[key]):
                open_.discard(key)
        self._consumer.unassign()
        self._known |= {(key, offsets[key]): event_seconds(m) for key, m in last.items()}


def event_seconds(message: Message) -> float:
    """When the event happened: `ce_time`, or Kafka's timestamp; seconds since the epoch."""
    stated = dict(message.headers() or []).get("ce_time")
    if isinstance(stated, bytes):
        with contextlib.suppress(ValueError):
            return datetime.fromisoformat(stated.decode()).timestamp()
    kind, stamp = message.timestamp()
    return 0.0 if kind == TIMESTAMP_NOT_AVAILABLE else stamp / 1000


@cache
def _gauges(registry: CollectorRegistry) -> tuple[Gauge, Gauge]:
    """A registry takes each name once, however many meters write to it."""
    labels = ("group", "topic")
    events = Gauge(
        "driftlog_lag_events",
        "Events in the log that are not processed yet.",
        labels,
        registry=registry,
    )
    seconds = Gauge(
        "driftlog_lag_event_seconds",
        "Event time of the log's last record less that of the last record processed.",
        labels,
        registry=registry,
    )
    return events, seconds
