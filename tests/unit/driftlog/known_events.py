"""Events in a list, looked up as the history does it."""

from __future__ import annotations

from collections.abc import Iterable

from driftlog.causes import Wanted
from schemas.event import Event


class ListedEvents:
    """`driftlog.causes.Events` over a list in the order of the log."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.first: dict[str, Event] = {}
        for event in events:
            self.first.setdefault(event.id, event)
        self._topics: dict[str, list[Event]] = {}
        for event in self.first.values():
            self._topics.setdefault(event.topic, []).append(event)

    def by_id(self, event_id: str) -> Event | None:
        return self.first.get(event_id)

    def find(self, wanted: Wanted) -> list[Event]:
        found = [
            event
            for event in self._topics.get(wanted.topic, ())
            if wanted.type in ("", event.type)
            and all(event.data.get(name) == value for name, value in wanted.equals.items())
            and (wanted.since is None or event.time >= wanted.since)
            and (wanted.until is None or event.time <= wanted.until)
        ]
        found.sort(key=lambda event: event.time)
        return found if wanted.newest is None else found[-wanted.newest :]

    def count(self, wanted: Wanted) -> int:
        return len(self.find(wanted))

    def of_request(self, request_id: str) -> list[Event]:
        return [e for e in self.first.values() if e.data.get("request_id") == request_id]
