"""The quarantine: which time spans of a task's predictions do not reach training, and why.

A window is in it while the newest statement about it (of any model version) failed a check whose severity is
'quarantine'; a restatement sets or lifts that. What a person says about a span holds over the checks,
whichever topic was read further: the last command about a moment counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from schemas.catalogue import QUALITY_COMMANDS, QUALITY_REPORTS
from schemas.event import Event
from streams.expectations import QUARANTINE
from streams.task import Task

SET, RELEASED = "QuarantineSet", "QuarantineReleased"


@dataclass(frozen=True, slots=True)
class Span:
    """Predictions with `from_time` <= event time < `to_time` (ms). `actor`: 'checks', or a person."""

    from_time: int
    to_time: int
    reason: str
    actor: str = "checks"
    event_id: str = ""
    """The event that put it there: a QualityChecked or a command."""


@dataclass(slots=True)
class QuarantineState:
    failed: dict[int, dict[str, tuple[int, Span]]] = field(default_factory=dict)
    """Window start -> model version -> revision of its newest statement, the span that it asks for."""
    commands: list[tuple[str, Span]] = field(default_factory=list)
    """(type, span) in the order of the log."""


class Quarantine:
    """Fold: QualityChecked + QuarantineSet + QuarantineReleased -> the spans in quarantine."""

    topics = (QUALITY_REPORTS, QUALITY_COMMANDS)

    def __init__(self, task: Task) -> None:
        self.task = task
        self.name = f"{task.name}.quality"

    def initial(self) -> QuarantineState:
        return QuarantineState()

    def apply(self, state: QuarantineState, batch: Sequence[Event]) -> QuarantineState:
        for event in batch:
            if event.data["task"] != self.task.name:
                continue
            if event.topic == QUALITY_COMMANDS:
                data = event.data
                span = Span(
                    data["from_time"], data["to_time"], data["reason"], data["actor"], event.id
                )
                state.commands.append((event.type, span))
            elif event.data.get("subject", "window") == "window":
                _checked(state, event)
        return state


def quarantined(state: QuarantineState) -> list[Span]:
    """The spans in quarantine, by time and without overlap."""
    found: list[Span] = []
    for start in sorted(state.failed):
        spans = [state.failed[start][version][1] for version in sorted(state.failed[start])]
        reasons = list(dict.fromkeys(span.reason for span in spans))
        first = spans[0]
        found.append(Span(start, first.to_time, "; ".join(reasons), first.actor, first.event_id))
    for type_, span in state.commands:
        found = without(found, [span])
        if type_ == SET:
            found.append(span)
    return sorted(found, key=lambda span: span.from_time)


def released(state: QuarantineState) -> list[Span]:
    """The spans of which a person said last that they may train, by time and without overlap."""
    found: list[Span] = []
    for type_, span in state.commands:
        found = without(found, [span])
        if type_ == RELEASED:
            found.append(span)
    return sorted(found, key=lambda span: span.from_time)


def without(spans: Iterable[Span], holes: Iterable[Span]) -> list[Span]:
    """What is left of `spans` when the time of `holes` is cut out of each."""
    left = list(spans)
    for hole in holes:
        cut: list[Span] = []
        for span in left:
            if span.to_time <= hole.from_time or hole.to_time <= span.from_time:
                cut.append(span)
                continue
            ends = ((span.from_time, hole.from_time), (hole.to_time, span.to_time))
            cut += [
                Span(start, end, span.reason, span.actor, span.event_id)
                for start, end in ends
                if start < end
            ]
        left = cut
    return left


def within(spans: Iterable[Span], from_time: int, to_time: int) -> list[Span]:
    """The parts of `spans` in [from_time, to_time)."""
    outside = (Span(-(2**62), from_time, ""), Span(to_time, 2**62, ""))
    return without(spans, outside)


def _checked(state: QuarantineState, event: Event) -> None:
    """Remember a failed window; forget it when a later statement about it passes."""
    data, start = event.data, event.data["window_start"]
    versions = state.failed.get(start, {})
    known = versions.get(data["model_version"])
    if known is not None and known[0] > data["revision"]:
        return
    if data.get("quarantined", False):
        span = Span(start, data["window_end"], _reason(event), event_id=event.id)
        state.failed.setdefault(start, {})[data["model_version"]] = data["revision"], span
    elif known is not None:
        del versions[data["model_version"]]
        if not versions:
            del state.failed[start]


def _reason(event: Event) -> str:
    """The failures that put the window there, in words."""
    failed = [check for check in event.data["checks"] if not check["passed"]]
    pairs = zip(failed, event.data["failures"], strict=False)
    return "; ".join(text for check, text in pairs if check["severity"] == QUARANTINE)
