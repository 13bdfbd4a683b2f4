"""What the registry tells Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


@dataclass(slots=True)
class Seen:
    """How a request ended; whoever answers it may set the status."""

    status: int = 200


class RegistryMetrics:
    """Metrics of one registry, in a collector of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "driftlog_registry_requests",
            "Requests by operation and HTTP status.",
            ["method", "path", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "driftlog_registry_request_seconds",
            "Time to answer.",
            ["method", "path"],
            buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10),
            registry=self.registry,
        )

    def gauge(self, name: str, doc: str, read: Callable[[], float]) -> None:
        """A value that is read when Prometheus asks."""
        Gauge(f"driftlog_registry_{name}", doc, registry=self.registry).set_function(read)

    @contextmanager
    def request(self, method: str, path: str) -> Iterator[Seen]:
        """Count and time one request; an exception that sets no status counts as 500."""
        begun, seen = time.perf_counter(), Seen()
        try:
            yield seen
        except Exception:
            seen.status = seen.status if seen.status != 200 else 500
            raise
        finally:
            self._requests.labels(method, path, str(seen.status)).inc()
            self._seconds.labels(method, path).observe(time.perf_counter() - begun)
