"""Keeps a live `View` up to date: system events are decoded, task topics only counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Self

from confluent_kafka import KafkaException

from driftlog.live import View
from infra.lifecycle import status
from infra.settings import Settings
from schemas.catalogue import COUNTERFACTUALS, STATE_HASHES, system_topics
from schemas.event import Event
from streams import log
from streams.log import LogUnavailable, connect_codec
from streams.task import Task

COUNT_SECONDS = 1.0


class Watcher:
    """A context manager; `view` may be drawn at any time from any thread."""

    def __init__(self, settings: Settings, tasks: Sequence[Task]) -> None:
        self.view = View()
        self._settings = settings
        self._tasks = tasks
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._events, self._counts)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=5)

    def _events(self) -> None:
        codec = connect_codec(self._settings, self._tasks)
        quiet = {STATE_HASHES, COUNTERFACTUALS}  # many, and no news of the live system
        topics = [topic.name for topic in system_topics() if topic.name not in quiet]
        for items in log.follow(self._settings.bootstrap, codec, topics, from_start=True):
            for item in items:
                if isinstance(item, Event):
                    self.view.see(item)
            if self._stop.is_set():
                return

    def _counts(self) -> None:
        consumer = log.make_consumer(self._settings.bootstrap)
        names = [topic.name for task in self._tasks for topic in task.topics()]
        counted_at = time.monotonic()
        try:
            while not self._stop.wait(COUNT_SECONDS):
                states = {item.name: item.state for item in status(self._settings)}
                self.view.services = states
                try:
                    ends = log.end_offsets(consumer, log.partitions_of(consumer, names))
                except (LogUnavailable, KafkaException):
                    continue  # a broker is away: the picture stands still for a moment
                counts: dict[str, int] = {}
                for (topic, _), end in ends.items():
                    counts[topic] = counts.get(topic, 0) + end
                now = time.monotonic()
                self.view.count(counts, now - counted_at)
                counted_at = now
        finally:
            consumer.close()
