"""Why something is as it is: an event, what led to it, and so on back to what came from outside (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from driftlog.causes import Known, Link, links
from driftlog.words import describe, moment, personal
from schemas.event import Event
from streams.personal import PERSON

DEPTH = 64
"""A chain of causes is a dozen events long; a foreign producer may write a longer one."""
LISTED = 12
"""Causes of one role that are listed in words; the JSON has all."""
_ENVELOPE = frozenset(("event_id", "event_time", "caused_by"))


@dataclass(slots=True)
class Cause:
    """One event of the answer, and what led to it.

    `again`: it stands elsewhere in the tree, with its own causes.
    """

    event: Event
    role: str = ""
    again: bool = False
    explained: bool = False
    """Whether its own causes were looked up."""
    notes: list[tuple[str, str]] = field(default_factory=list)
    """(role, words) of causes that are no single events."""
    causes: list[Cause] = field(default_factory=list)

    def walk(self) -> Iterator[Cause]:
        yield self
        for cause in self.causes:
            yield from cause.walk()

    def to_json(self) -> dict[str, Any]:
        """Plain data, nested as the causes are; `numbers`: what the decision saw."""
        event = self.event
        return {
            "role": self.role or None,
            "event_id": event.id,
            "type": event.type,
            "topic": event.topic,
            "at": str(event.at) if event.at else None,
            "event_time": event.time,
            "words": describe(event),
            "numbers": numbers(event),
            "notes": [{"role": role, "words": words} for role, words in self.notes],
            "again": self.again,
            "causes": [cause.to_json() for cause in self.causes],
        }


def why(event: Event, known: Known) -> Cause:
    """The tree of causes of `event`. Each event is explained once, at the first place it is met."""
    root = Cause(event, explained=True)
    explained = {event.id}
    level = [root]
    for _ in range(DEPTH):
        below: list[Cause] = []
        for place in level:
            for link in links(place.event, known):
                below += _hang(place, link, explained)
        if not below:
            break
        level = below
    _without_repeats(root)
    return root


def _hang(place: Cause, link: Link, explained: set[str]) -> list[Cause]:
    """Put the causes of one role under `place`; gives those that are to be explained in turn."""
    if link.told:
        place.notes.append((link.role, link.told))
    further = []
    for event in link.events:
        cause = Cause(event, link.role)
        if link.further and event.id not in explained:
            explained.add(event.id)
            cause.explained = True
            further.append(cause)
        else:
            cause.again = event.id in explained
        place.causes.append(cause)
    return further


def _without_repeats(root: Cause) -> None:
    """Of a request's other events only those stay that the chain of causes did not pass."""
    chain = {cause.event.id for cause in root.walk() if cause.role != "of the same request"}
    for cause in root.walk():
        cause.causes = [
            below
            for below in cause.causes
            if below.role != "of the same request" or below.event.id not in chain
        ]


def numbers(event: Event) -> dict[str, Any]:
    """The numbers among an event's fields: `evidence.psi.size`, `metrics.auc`, `gate.NAME.value`."""
    found: dict[str, Any] = {}
    for name, value in event.data.items():
        if name in _ENVELOPE or name.endswith("_time"):
            continue
        if isinstance(value, bool | int | float):
            found[name] = value
        elif isinstance(value, Mapping):
            for key, number in value.items():
                if isinstance(number, bool | int | float):
                    found[f"{name}.{key}"] = number
        elif name == "gates":
            for gate in value:
                found |= {
                    f"gate.{gate['name']}.{key}": number
                    for key, number in gate.items()
                    if key != "name" and number is not None
                }
    return found


def headline(cause: Cause) -> str:
    """`ModelPromoted 5f1c0d2a  2024-02-01 12:00  loans-3 replaces loans-2: ...`."""
    event = cause.event
    where = f"  {event.at}" if event.at else ""
    role = f"{cause.role}: " if cause.role else ""
    words = describe(event)
    told = "  (told elsewhere)" if cause.again and cause.role == "caused by" else ""
    return f"{role}{event.type} {event.id[:8]}  {moment(event.time)}{where}  {words}{told}"


def details(event: Event) -> list[str]:
    """The numbers that a decision saw, line by line."""
    data = event.data
    lines = [_gate(gate) for gate in data.get("gates") or ()]
    for name in ("evidence", "metrics"):
        found = data.get(name)
        if isinstance(found, Mapping) and found:
            lines += _pairs(name, found)
    if event.type == "SnapshotTaken":
        span = f"{moment(data['from_time'])} to {moment(data['to_time'])}"
        lines.append(f"span: {span}; labels known before its end")
    elif event.type in ("TrainingStarted", "ModelRegistered"):
        lines.append(f"recipe: {data['recipe']} {data['parameters']}, seed {data['seed']}")
    elif event.type == "PredictionMade":
        lines += _pairs("features", data["features"])
        if PERSON in data:
            lines.append(f"personal: {personal(data)}")
    return lines


def _gate(gate: Mapping[str, Any]) -> str:
    baseline = gate.get("baseline")
    before = "" if baseline is None else f", champion {baseline:.4f}"
    passed = "passed" if gate["passed"] else "FAILED"
    return (
        f"gate {gate['name']}: {gate['value']:.4f} against {gate['threshold']:.4f}"
        f" ({gate['count']:,} rows{before}): {passed}"
    )


def _pairs(name: str, found: Mapping[str, Any]) -> list[str]:
    """`psi.x 0.41 > 0.18` where a value has its threshold beside it: one text, four pairs a line of it."""
    shown = []
    for key, value in found.items():
        if key.startswith("threshold."):
            continue
        limit = found.get(f"threshold.{key.removeprefix('psi.')}")
        beside = "" if limit is None else f" > {limit:.3g}"
        shown.append(f"{key} {_value(value)}{beside}")
    rows = [", ".join(shown[at : at + 4]) for at in range(0, len(shown), 4)]
    return [f"{name}: " + ",\n  ".join(rows)] if rows else []


def _value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def listed(causes: Iterable[Cause]) -> Iterator[tuple[Cause | None, str]]:
    """(cause, headline), the first LISTED of each role; then (None, how many more)."""
    counts: dict[str, int] = {}
    for cause in causes:
        counts[cause.role] = counts.get(cause.role, 0) + 1
        if counts[cause.role] <= LISTED:
            yield cause, headline(cause)
    for role, count in counts.items():
        if count > LISTED:
            yield None, f"{role}: {count - LISTED:,} more (--json has all)"
