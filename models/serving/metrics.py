"""What serving counts, in Prometheus' text format."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0)


class Metrics:
    """One set of metrics with its own registry, so that two services in one process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "Requests.", "route", "status")
        self.seconds = self._seconds(
            "request_seconds", "Time to answer, from the request's head to the answer.", "route"
        )
        self.append_seconds = self._seconds(
            "append_seconds", "Time until the log acknowledged the events of a request."
        )
        self.predictions = self._counter(
            "predictions", "Predictions answered.", "task", "model_version"
        )
        self.batches = self._counter("batches", "Batches scored, of one or more requests.", "task")
        self.shadows = self._counter(
            "shadow_predictions", "Answers scored in the shadow.", "task", "model_version"
        )
        self.shadows_dropped = self._counter(
            "shadow_predictions_dropped", "Answers that no shadow had room or a log for.", "task"
        )
        self.routed = self._gauge(
            "rollout_share", "Share of the requests that the challenger answers.", "task"
        )
        self.labels = self._counter("labels", "Labels accepted.", "task")
        self.swaps = self._counter("swaps", "Champions put in service.", "task")
        self.refused = self._counter(
            "refused_artifacts", "Champions whose artifact was refused.", "task"
        )
        self.errors = self._counter("errors", "Requests not served, by cause.", "cause")
        self._cache_hits = self._counter(
            "cache_hits",
            "Rows that were not scored: an equal one was, by the same version, in this batch or before.",
            "task",
        )
        self._cache_misses = self._counter(
            "cache_misses", "Rows that were scored for want of an equal one.", "task"
        )
        self.without_features = self._counter(
            "requests_without_online_features",
            "Requests served with missing rates and observations: the online store was away.",
            "task",
        )
        self._model = self._gauge(
            "model_info", "1 for the version that answers for a task.", "task", "model_version"
        )
        self._model_since = self._gauge(
            "model_since_seconds", "Event time of the decision that installed it.", "task"
        )
        self._versions: dict[str, str] = {}
        self.log_up = self._gauge("log_up", "1 if the log acknowledges.")
        self.online_store_up = self._gauge(
            "online_store_up", "1 if the online feature store answered last time."
        )
        self.spool_events = self._gauge(
            "spool_events", "Answered events of this process that the log has not acknowledged yet."
        )
        self.spool_bytes = self._gauge(
            "spool_bytes", "The same in bytes, with what processes before it left behind."
        )
        self.spool_age = self._gauge(
            "spool_oldest_seconds", "How long the oldest of them waits, at most."
        )
        self.spool_refused = self._gauge(
            "spool_refused",
            "Writes that found the spool full or the disk failing, since the start.",
        )
        self.producers_replaced = self._gauge(
            "producers_replaced", "Kafka producers given up since the start."
        )

    def model(self, task: str, version: str, since_ms: int) -> None:
        """Note that `version` answers for `task` now."""
        before = self._versions.get(task)
        if before not in (None, version):
            self._model.remove(task, before)
        self._versions[task] = version
        self._model.labels(task, version).set(1)
        self._model_since.labels(task).set(since_ms / 1000)

    def cached(self, task: str, hits: int, misses: int) -> None:
        """Note what a batch found in the cache of its version."""
        self._cache_hits.labels(task).inc(hits)
        self._cache_misses.labels(task).inc(misses)

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def _counter(self, name: str, doc: str, *labels: str) -> Counter:
        return Counter(f"driftlog_serving_{name}", doc, labels, registry=self.registry)

    def _gauge(self, name: str, doc: str, *labels: str) -> Gauge:
        return Gauge(f"driftlog_serving_{name}", doc, labels, registry=self.registry)

    def _seconds(self, name: str, doc: str, *labels: str) -> Histogram:
        return Histogram(
            f"driftlog_serving_{name}", doc, labels, buckets=_SECONDS, registry=self.registry
        )
