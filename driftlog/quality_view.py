"""What the log says about the quality of a task's data, made ready to be shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from schemas.catalogue import QUALITY_REPORTS
from schemas.event import Event
from streams.quarantine import QuarantineState, Span, quarantined, within

Key = tuple[str, str, int]
"""Subject, model version, start of the span."""


class Reports:
    """Fold: the newest QualityChecked about each window and training set of a task."""

    topics = (QUALITY_REPORTS,)

    def __init__(self, task: str) -> None:
        self.task = task
        self.name = f"{task}.quality_reports"

    def initial(self) -> dict[Key, dict[str, Any]]:
        return {}

    def apply(
        self, state: dict[Key, dict[str, Any]], batch: Sequence[Event]
    ) -> dict[Key, dict[str, Any]]:
        for event in batch:
            data = event.data
            if data["task"] != self.task:
                continue
            key = data["subject"], data["model_version"], data["window_start"]
            if key not in state or data["revision"] >= state[key]["revision"]:
                state[key] = dict(data)
        return state


def rows(
    reports: Mapping[Key, Mapping[str, Any]], quarantine: QuarantineState
) -> list[dict[str, Any]]:
    """One line per window and training set, by time; `in_quarantine`: any part of the window is now."""
    spans = quarantined(quarantine)
    found = []
    for data in sorted(reports.values(), key=lambda data: (data["window_end"], data["subject"])):
        about = ("subject", "model_version", "window_start", "window_end", "revision", "count")
        inside = within(spans, data["window_start"], data["window_end"])
        found.append(
            {name: data[name] for name in about}
            | {
                "passed": data["passed"],
                "failures": list(data["failures"]),
                "in_quarantine": data["subject"] == "window" and bool(inside),
                "event_id": data["event_id"],
            }
        )
    return found


def span_row(span: Span) -> dict[str, Any]:
    """A span in quarantine, and who put it there."""
    return {
        "from_time": span.from_time,
        "to_time": span.to_time,
        "actor": span.actor,
        "reason": span.reason,
        "event_id": span.event_id,
    }
