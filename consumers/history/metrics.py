"""What the history says about itself: Prometheus metrics, `/status` and `/lag`."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from consumers.history.record import Partition


class HistoryMetrics:
    """Written by the consumer thread and the HTTP handlers, read by `/metrics` and `/status`."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._lock = threading.Lock()
        self._places: dict[Partition, dict[str, int]] = {}
        self._state = "starting"
        self._problem = ""
        self._began = False
        self._lag = Gauge(
            "driftlog_history_lag_events",
            "Events in the log that the history has not stored yet.",
            ("topic", "partition"),
            registry=self._registry,
        )
        self._rows = Counter(
            "driftlog_history_rows",
            "Rows inserted, repeats included.",
            ("table",),
            registry=self._registry,
        )
        self._dead = Counter(
            "driftlog_history_dead_letters",
            "Records that could not be decoded.",
            ("topic",),
            registry=self._registry,
        )
        self._retries = Counter(
            "driftlog_history_retries",
            "Writes that failed and were made again.",
            registry=self._registry,
        )
        self._batch_seconds = Histogram(
            "driftlog_history_batch_seconds",
            "Time to decode and store one batch.",
            registry=self._registry,
        )
        self._query_seconds = Histogram(
            "driftlog_history_query_seconds",
            "Time of one query over HTTP.",
            ("outcome",),
            registry=self._registry,
        )

    def state(self, state: str, problem: str = "") -> None:
        """`state` is starting, waiting, running, failed or stopped; `problem` says why in one line."""
        with self._lock:
            self._state, self._problem = state, problem
            self._began = self._began or state == "running"

    @property
    def ready(self) -> bool:
        """Queries are answered and the log is being read; a consumer that waits for a broker still is."""
        with self._lock:
            return self._began and self._state in ("running", "waiting")

    def lag(self, ends: Mapping[Partition, int]) -> dict[str, Any]:
        """The `/lag` document: how much of the log up to `ends` is stored."""
        topics: dict[str, dict[str, int]] = {}
        with self._lock:
            for partition, end in sorted(ends.items()):
                stored = self._places.get(partition, {}).get("stored", 0)
                topic = topics.setdefault(partition[0], {"end": 0, "stored": 0, "lag": 0})
                topic["end"] += end
                topic["stored"] += stored
                topic["lag"] += max(0, end - stored)
            lag = sum(topic["lag"] for topic in topics.values())
            return {
                "caught_up": lag == 0 and self._began,
                "lag": lag,
                "state": self._state,
                "problem": self._problem,
                "topics": topics,
            }

    def stored(self, partition: Partition, next_offset: int, end: int) -> None:
        """`end` is the partition's high watermark; negative if it is not known yet."""
        lag = max(0, end - next_offset) if end >= 0 else 0
        with self._lock:
            self._places[partition] = {"stored": next_offset, "end": end, "lag": lag}
        self._lag.labels(partition[0], str(partition[1])).set(lag)

    def wrote(self, table: str, rows: int) -> None:
        self._rows.labels(table).inc(rows)

    def dead_letters(self, topic: str, count: int) -> None:
        self._dead.labels(topic).inc(count)

    def retried(self) -> None:
        self._retries.inc()

    def batch_took(self, seconds: float) -> None:
        self._batch_seconds.observe(seconds)

    def query_took(self, seconds: float, outcome: str) -> None:
        self._query_seconds.labels(outcome).observe(seconds)

    def status(self) -> dict[str, Any]:
        """The `/status` document."""
        with self._lock:
            partitions = [
                {"topic": topic, "partition": partition, **places}
                for (topic, partition), places in sorted(self._places.items())
            ]
            return {
                "service": "history",
                "state": self._state,
                "problem": self._problem,
                "lag": sum(place["lag"] for place in self._places.values()),
                "stored": sum(place["stored"] for place in self._places.values()),
                "partitions": partitions,
            }

    def exposition(self) -> bytes:
        """Prometheus text format."""
        return generate_latest(self._registry)
