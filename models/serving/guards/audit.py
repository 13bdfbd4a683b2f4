"""Refusals, counted: one event a minute, caller and cause, so that a flood cannot fill the log. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from schemas.catalogue import AUDIT
from schemas.event import Event, derive

MINUTE_MS = 60_000
CALLERS = 50
"""So many (caller, task, cause) have lines of their own in a minute; the rest is counted together."""
OTHERS = "(others)"


@dataclass(frozen=True, slots=True, order=True)
class _Line:
    minute: int
    caller: str
    task: str
    cause: str


@dataclass(slots=True)
class Refusals:
    """What one process refused and has not said yet."""

    service: str
    """Names the process, so that replicas' events differ in id."""
    _counts: Counter[_Line] = field(default_factory=Counter)
    _lines: Counter[int] = field(default_factory=Counter)

    def note(self, now_ms: int, caller: str, task: str, cause: str) -> None:
        minute = now_ms - now_ms % MINUTE_MS
        line = _Line(minute, caller, task, cause)
        if line not in self._counts:
            if self._lines[minute] >= CALLERS:
                line = _Line(minute, OTHERS, "", cause)
            else:
                self._lines[minute] += 1
        self._counts[line] += 1

    def example(self) -> Event:
        """An event as they will be, to ask for its schema before the first is due."""
        return self._event(_Line(0, "", "", ""), 0)

    def due(self, now_ms: int | None) -> list[Event]:
        """RequestsRefused of every minute that is over (None: of all), in order; they are not said again."""
        lines = sorted(
            line for line in self._counts if now_ms is None or line.minute + MINUTE_MS <= now_ms
        )
        events = [self._event(line, self._counts.pop(line)) for line in lines]
        for line in lines:
            self._lines.pop(line.minute, None)
        return events

    def _event(self, line: _Line, count: int) -> Event:
        end = line.minute + MINUTE_MS
        who = (self.service, line.minute, line.caller, line.task, line.cause)
        return derive(
            *(AUDIT, "RequestsRefused", *who),
            time=end,
            caused_by=None,
            task=line.task,
            caller=line.caller,
            cause=line.cause,
            window_start=line.minute,
            window_end=end,
            count=count,
            service=self.service,
        )
