"""What serving counts, in Prometheus' text format."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0)


class Metrics:
    """One set of metrics with its own registry, so that two services in one process do not mix."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "driftlog_serving_requests", "Requests.", ["route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "driftlog_serving_request_seconds",
            "Time to answer, from the first byte of the body to the answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.append_seconds = Histogram(
            "driftlog_serving_append_seconds",
            "Time until the log acknowledged the events of a request.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.predictions = Counter(
            "driftlog_serving_predictions",
            "Predictions answered.",
            ["task", "model_version"],
            registry=registry,
        )
        self.labels = Counter(
            "driftlog_serving_labels", "Labels accepted.", ["task"], registry=registry
        )
        self.swaps = Counter(
            "driftlog_serving_swaps", "Champions put in service.", ["task"], registry=registry
        )
        self.refused = Counter(
            "driftlog_serving_refused_artifacts",
            "Champions whose artifact was refused.",
            ["task"],
            registry=registry,
        )
        self.errors = Counter(
            "driftlog_serving_errors",
            "Requests not served, by cause.",
            ["cause"],
            registry=registry,
        )
        self.without_features = Counter(
            "driftlog_serving_requests_without_online_features",
            "Requests served with missing rates and observations: the online store was away.",
            registry=registry,
        )
        self.producers_replaced = Gauge(
            "driftlog_serving_producers_replaced",
            "Kafka producers given up since the start.",
            registry=registry,
        )

    def text(self) -> bytes:
        return generate_latest(self.registry)
