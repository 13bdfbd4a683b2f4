"""What the trainer tells Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.5, 1, 2, 5, 10, 20, 60, 120, 300, 900, 3600)


class TrainerMetrics:
    """Written by the trainer, read by `/metrics`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.pending = Gauge(
            "driftlog_trainer_pending_requests",
            "Retrain requests without an outcome.",
            registry=self.registry,
        )
        self._running = Gauge(
            "driftlog_trainer_training",
            "1 while a model is being trained.",
            ("task",),
            registry=self.registry,
        )
        self._answered = Counter(
            "driftlog_trainer_requests",
            "Requests answered since the start.",
            ("task", "outcome"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "driftlog_trainer_request_seconds",
            "Time from taking up a request to its outcome.",
            ("task",),
            registry=self.registry,
            buckets=_SECONDS,
        )

    def answered(self, task: str, outcome: str, seconds: float) -> None:
        """`outcome` is the type of the event that ended the request."""
        self._answered.labels(task, outcome).inc()
        self._seconds.labels(task).observe(seconds)

    @contextmanager
    def training(self, task: str) -> Iterator[None]:
        self._running.labels(task).set(1)
        try:
            yield
        finally:
            self._running.labels(task).set(0)
