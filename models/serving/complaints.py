"""Requests that were not served, counted and logged: an outage fails all alike, one line a second says it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import structlog

from models.serving.metrics import Metrics

logger = structlog.get_logger()

LOG_EVERY_S = 1.0


@dataclass(slots=True)
class Complaints:
    """One per face; a line a second for each kind of cause."""

    metrics: Metrics
    _logged_at: dict[str, float] = field(default_factory=dict)

    def note(self, where: str, error: BaseException) -> None:
        """`where`: the path or method that was asked."""
        cause = type(error).__name__
        self.metrics.errors.labels(cause).inc()
        now = time.monotonic()
        if now - self._logged_at.get(cause, -math.inf) > LOG_EVERY_S:
            self._logged_at[cause] = now
            logger.warning("request not served", path=where, reason=str(error))
