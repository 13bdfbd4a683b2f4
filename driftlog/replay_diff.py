"""What differs between two counterfactual replays that were written to the log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.catalogue import COUNTERFACTUALS, REPLAYS
from schemas.event import Event
from streams.replay import Reader

OWN = frozenset(("event_id", "replay_id", "caused_by"))
"""Fields that say which replay it was, not what it found."""


class NoSuchReplay(ValueError):
    """No finished replay goes by that name; the message lists those that there are."""


@dataclass(slots=True)
class Written:
    """A replay as it stands in the log; `findings`: (type, what about) -> the event."""

    started: Mapping[str, Any]
    finished: bool = False
    findings: dict[tuple[str, str], Event] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return str(self.started["replay_id"])


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing on which two replays do not agree; `one` or `other` is None where it is missing."""

    what: tuple[str, str]
    one: Event | None
    other: Event | None

    @property
    def fields(self) -> dict[str, tuple[Any, Any]]:
        """field -> its two values; empty if the whole finding is missing on a side."""
        if self.one is None or self.other is None:
            return {}
        one, other = self.one.data, self.other.data
        return {
            name: (one[name], other[name])
            for name in one
            if name not in OWN and one[name] != other[name]
        }

    @property
    def event(self) -> Event:
        found = self.one or self.other
        assert found is not None
        return found

    @property
    def place(self) -> str:
        """The logged record that it is about, e.g. 'flights.predictions[2]@81'."""
        data = self.event.data
        if data["logged_topic"] is None:
            return "no record"
        return f"{data['logged_topic']}[{data['logged_partition']}]@{data['logged_offset']}"

    def to_json(self) -> dict[str, Any]:
        return {
            "type": self.what[0],
            "about": self.what[1],
            "event_time": self.event.time,
            "at": self.place,
            "only_in": None if self.one and self.other else ("first" if self.one else "second"),
            "fields": {name: list(pair) for name, pair in self.fields.items()},
        }


def find_replays(read: Reader, names: Sequence[str]) -> list[Written]:
    """The finished replays whose ids begin with `names`, with their findings; raises NoSuchReplay."""
    known: dict[str, Written] = {}
    for event in read([REPLAYS]):
        if event.type == "ReplayStarted":
            known.setdefault(event.id, Written(event.data))
        elif event.data["replay_id"] in known:
            known[event.data["replay_id"]].finished = True
    chosen = [_chosen(known, name) for name in names]
    for event in read([COUNTERFACTUALS]):
        data = event.data
        about = data.get("prediction_id") or data["decision_id"]
        for written in {id(each): each for each in chosen}.values():
            if data["replay_id"] == written.id:
                written.findings.setdefault((event.type, about), event)
    return chosen


def _chosen(known: Mapping[str, Written], name: str) -> Written:
    found = [written for key, written in known.items() if key.startswith(name)]
    if len(found) == 1 and found[0].finished:
        return found[0]
    if len(found) == 1:
        raise NoSuchReplay(f"replay {name} was not finished: run it again with --write")
    listed = ", ".join(
        f"{key[:8]} ({written.started['kind']} of {written.started['task']})"
        for key, written in known.items()
    )
    said = f"{len(found)} replays begin with {name!r}" if found else f"there is no replay {name!r}"
    raise NoSuchReplay(f"{said}; there are: {listed or 'none, --write keeps one'}")


def differences(one: Written, other: Written) -> Iterator[Difference]:
    """In the order of event time, then of the log."""
    keys = {**one.findings, **other.findings}
    for what in sorted(keys, key=lambda key: _order(keys[key])):
        found = Difference(what, one.findings.get(what), other.findings.get(what))
        if found.one is None or found.other is None or found.fields:
            yield found


def _order(event: Event) -> tuple[Any, ...]:
    data = event.data
    place = data["logged_topic"], data["logged_partition"], data["logged_offset"]
    return event.time, *(("", -1, -1) if place[0] is None else place), event.type, event.id
