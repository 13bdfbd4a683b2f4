"""What is measured before a decision, as the log keeps it: enough to judge again (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.intervals import Interval

RECENT, GOLDEN = "recent_log_loss", "golden_log_loss"
UNLABELLED = "missing_labels"
CALIBRATION = "calibration_error"
SLICE, FAIRNESS = "slice.", "fairness."
LATENCY, BYTES = "latency_us", "bytes"
RECORDED_CONFIDENCE = 0.95
"""Of the bounds in the log; another confidence follows from them and the number of blocks."""


@dataclass(frozen=True, slots=True)
class Measure:
    """The challenger's `value` and the champion's (`baseline`) on the same `count` rows; less is better.

    `difference`: the interval of challenger - champion, where rows can tell one. `maturity`: share of the
    rows' labels that was known (None: unknown).
    """

    name: str
    value: float
    baseline: float | None
    count: int
    difference: Interval | None = None
    maturity: float | None = None

    def judged(self, threshold: float, passed: bool) -> dict[str, Any]:
        """A GateResult."""
        return {**self.record(), "threshold": threshold, "passed": passed}

    def record(self) -> dict[str, Any]:
        """A Measured: what was not judged."""
        found = self.difference
        return {
            "name": self.name,
            "value": self.value,
            "baseline": self.baseline,
            "count": self.count,
            "low": found.low(RECORDED_CONFIDENCE) if found else None,
            "high": found.high(RECORDED_CONFIDENCE) if found else None,
            "confidence": RECORDED_CONFIDENCE if found else 0.0,
            "blocks": found.blocks if found else 0,
            "maturity": self.maturity,
        }

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Measure:
        """What a GateResult or a Measured was made from."""
        low, high, blocks = record.get("low"), record.get("high"), record.get("blocks", 0)
        known = low is not None and high is not None and blocks > 1
        return cls(
            record["name"],
            record["value"],
            record["baseline"],
            record["count"],
            Interval.of_bounds(low, high, record["confidence"], blocks) if known else None,  # type: ignore[arg-type]
            record.get("maturity"),
        )
