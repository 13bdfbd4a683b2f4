"""From JSON to what a task asks: instances and labels, each error with the field that it is about."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from schemas.catalogue import labels_topic
from schemas.event import Event, derived_id
from streams.personal import Personal
from streams.task import DAY_MS, Ask, Category, Task, Text

MAX_INSTANCES = 1_000
MAX_LABELS = 1_000
MAX_TEXT = 256
MAX_ID = 100
MAX_ERRORS = 50
MAX_NUMBER = 3.4028234663852886e38
"""Models compute in float32; a number beyond its range would turn into an infinity on the way."""
MAX_AHEAD_MS = DAY_MS
"""One event far in the future would push the watermark there and close every window before its time."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_MISSING = object()


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong, and where in the body: `instances[3].distance`."""

    loc: str
    message: str


class InvalidRequest(ValueError):
    """The body cannot be accepted; nothing of it was."""

    def __init__(self, errors: list[FieldError]) -> None:
        super().__init__("; ".join(f"{e.loc or 'the body'}: {e.message}" for e in errors[:3]))
        self.errors = errors


@dataclass(slots=True)
class _Errors:
    found: list[FieldError] = field(default_factory=list)
    more: int = 0

    def add(self, loc: str, message: str) -> None:
        if len(self.found) < MAX_ERRORS:
            self.found.append(FieldError(loc, message))
        else:
            self.more += 1

    def check(self) -> None:
        if self.more:
            self.found.append(FieldError("", f"and {self.more} more errors"))
        if self.found:
            raise InvalidRequest(self.found)


def longest_texts(task: Task) -> dict[str, int]:
    """Field of a request -> how many characters it may have, of those that are text."""
    longest = {f.name: MAX_TEXT for f in task.features if isinstance(f, Category)}
    longest |= {f.name: f.max_length for f in task.features if isinstance(f, Text)}
    return longest | {name: task.personal.max_length for name in task.private if task.personal}


class InstanceParser:
    """Checks the instances of one task. `parse` never raises anything but InvalidRequest."""

    def __init__(self, task: Task) -> None:
        self._task = task.name
        longest = longest_texts(task)
        self._personal = task.personal
        self._given = tuple((name, longest.get(name, 0)) for name in (*task.given, *task.private))
        self._names = frozenset(name for name, _ in self._given)
        self._computed = frozenset(f.name for f in task.features) - self._names

    def parse(self, body: object, now_ms: int, new_id: Callable[[], str]) -> list[Ask]:
        """`{"instances": [{feature: value, ...}, ...]}` -> what is asked; raises InvalidRequest.

        A number may be an integer (it becomes a float, as it comes back from the log), null is a missing
        value. `now_ms` and `new_id` fill in for an absent `event_time` and `event_id`.
        """
        raw = _items(body, "instances", MAX_INSTANCES)
        errors = _Errors()
        asks: list[Ask] = []
        for index, instance in enumerate(raw):
            if type(instance) is not dict:
                errors.add(f"instances[{index}]", f"must be an object, not {_kind(instance)}")
                continue
            values: dict[str, Any] = {}
            for name, longest in self._given:
                value = instance.get(name, _MISSING)
                if longest:
                    if type(value) is str and len(value) <= longest and value.isascii():
                        values[name] = value
                        continue
                elif type(value) is float and -MAX_NUMBER <= value <= MAX_NUMBER:
                    values[name] = value
                    continue
                values[name], problem = _text(value, longest) if longest else _number(value)
                if problem:
                    if self._personal and name in self._personal.sealed and value is not _MISSING:
                        problem = (
                            f"must be text of at most {longest} characters"  # without the value
                        )
                    errors.add(f"instances[{index}].{name}", problem)
            if self._personal:
                self._check_person(f"instances[{index}]", self._personal, instance, values, errors)
            time, event_id = now_ms, None
            if len(instance) > len(values) or self._names - instance.keys():
                time, event_id = self._extras(index, instance, now_ms, errors)
            asks.append(Ask(time, event_id or new_id(), values))
        _distinct("instances", [ask.id for ask in asks], errors)
        errors.check()
        return asks

    @staticmethod
    def _check_person(
        loc: str,
        personal: Personal,
        instance: Mapping[str, Any],
        values: Mapping[str, Any],
        errors: _Errors,
    ) -> None:
        name = personal.subject
        accepted = instance.get(name, _MISSING) is values[name]
        if accepted and (problem := nobodys(personal, values)):
            errors.add(f"{loc}.{name}", problem)

    def _extras(
        self, index: int, instance: Mapping[str, Any], now_ms: int, errors: _Errors
    ) -> tuple[int, str | None]:
        for name in instance.keys() - self._names - {"event_id", "event_time"}:
            if name in self._computed:
                why = "is computed by the feature store and must not be sent"
            else:
                known = ", ".join(given for given, _ in self._given)
                why = f"is no feature of task {self._task}, which takes {known}"
            errors.add(f"instances[{index}].{_shown(name)}", why)
        return _envelope(f"instances[{index}]", instance, now_ms, errors)


def nobodys(personal: Personal, values: Mapping[str, Any]) -> str:
    """What is wrong if an instance says something about a person and does not name one; or ""."""
    subject = values[personal.subject]
    if subject == "":
        return "names nobody: it is empty; null if nobody is known"
    if subject is None and any(values[name] is not None for name in personal.fields):
        return "must name the person whom the personal fields are about, not null"
    return ""


def parse_labels(task: Task, body: object, now_ms: int) -> list[Event]:
    """`{"labels": [{"prediction_id", "label"}, ...]}` -> LabelObserved events; raises InvalidRequest.

    The id of a label is derived from (prediction, label) unless given, so sending it again adds nothing.
    """
    topic = labels_topic(task.name)
    errors = _Errors()
    events: list[Event] = []
    for index, raw in enumerate(_items(body, "labels", MAX_LABELS)):
        loc = f"labels[{index}]"
        if type(raw) is not dict:
            errors.add(loc, f"must be an object, not {_kind(raw)}")
            continue
        for name in raw.keys() - {"prediction_id", "label", "event_id", "event_time"}:
            errors.add(f"{loc}.{_shown(name)}", "is unknown; a label has prediction_id and label")
        prediction_id, problem = _id(raw.get("prediction_id", _MISSING))
        if problem:
            errors.add(f"{loc}.prediction_id", problem)
        label = raw.get("label", _MISSING)
        if type(label) is not int or label not in (0, 1):
            errors.add(f"{loc}.label", f"must be 0 or 1, not {_kind(label)}")
        time, event_id = _envelope(loc, raw, now_ms, errors)
        data = {
            "event_id": event_id or derived_id("LabelObserved", prediction_id, label),
            "event_time": time,
            "caused_by": None,
            "prediction_id": prediction_id,
            "label": label,
        }
        events.append(Event(topic, "LabelObserved", data))
    errors.check()
    return events


def _items(body: object, name: str, limit: int) -> list[Any]:
    """The list that is the whole body but for its name."""
    if type(body) is not dict:
        message = f"must be an object with {name!r}, not {_kind(body)}"
        raise InvalidRequest([FieldError("", message)])
    errors = _Errors()
    for key in body.keys() - {name}:
        errors.add(_shown(key), f"is unknown; the body has {name!r} alone")
    items = body.get(name, _MISSING)
    if type(items) is not list:
        errors.add(name, f"must be a list, not {_kind(items)}")
        items = []
    elif not items:
        errors.add(name, "must not be empty")
    elif len(items) > limit:
        errors.add(name, f"has {len(items)} items, more than {limit}: send several requests")
    errors.check()
    return list(items)


def _envelope(
    loc: str, raw: Mapping[str, Any], now_ms: int, errors: _Errors
) -> tuple[int, str | None]:
    time, event_id = now_ms, None
    if "event_time" in raw:
        time, problem = event_time(raw["event_time"], now_ms)
        if problem:
            errors.add(f"{loc}.event_time", problem)
    if "event_id" in raw:
        event_id, problem = _id(raw["event_id"])
        if problem:
            errors.add(f"{loc}.event_id", problem)
    return time, event_id


def _distinct(name: str, ids: list[str], errors: _Errors) -> None:
    if len(set(ids)) == len(ids):
        return
    first: dict[str, int] = {}
    for index, event_id in enumerate(ids):
        if first.setdefault(event_id, index) != index:
            errors.add(
                f"{name}[{index}].event_id", f"is the same as that of {name}[{first[event_id]}]"
            )


def _number(value: object) -> tuple[float | None, str]:
    if value is None:
        return None, ""
    if type(value) is int or type(value) is float:
        if isinstance(value, float) and not math.isfinite(value):
            return None, "must be a finite number"
        if not -MAX_NUMBER <= value <= MAX_NUMBER:
            return None, "must lie within the range of a 32-bit float (3.4e38)"
        return float(value), ""
    return None, "is missing" if value is _MISSING else f"must be a number, not {_kind(value)}"


def _text(value: object, longest: int) -> tuple[str | None, str]:
    if value is None:
        return None, ""
    if type(value) is not str:
        return None, "is missing" if value is _MISSING else f"must be text, not {_kind(value)}"
    if len(value) > longest:
        return None, f"has {len(value)} characters, more than {longest}"
    return (value, "") if _is_unicode(value) else (None, "holds half a surrogate pair")


def _id(value: object) -> tuple[str, str]:
    if type(value) is not str:
        return "", "is missing" if value is _MISSING else f"must be text, not {_kind(value)}"
    if not 0 < len(value) <= MAX_ID:
        return "", f"must have 1 to {MAX_ID} characters, not {len(value)}"
    return (value, "") if _is_unicode(value) else ("", "holds half a surrogate pair")


def event_time(value: object, now_ms: int) -> tuple[int, str]:
    """From ms since the epoch or ISO 8601 (UTC if it names no zone) to ms; what is wrong with it, or ""."""
    if type(value) is int:
        time = value
    elif type(value) is str and len(value) <= 40:
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return 0, "is no ISO 8601 time such as 2013-07-01T12:00:00Z"
        zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        time = (zoned - _EPOCH) // _MILLISECOND
    else:
        return 0, f"must be milliseconds since the epoch or ISO 8601 text, not {_kind(value)}"
    if time < 0:
        return 0, "lies before 1970"
    if time > now_ms + MAX_AHEAD_MS:
        return 0, "lies more than a day in the future (integers are milliseconds)"
    return time, ""


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(value: object) -> str:
    """JSON's word for the type, or the value itself where that says more."""
    if value is _MISSING:
        return "missing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value:.6g}" if abs(value) < MAX_NUMBER else "a number"
    if isinstance(value, str):
        return "text"
    return "null" if value is None else "a list" if isinstance(value, list) else "an object"


def _shown(name: str) -> str:
    """A caller's field name, fit for an error message."""
    return name.encode("ascii", "backslashreplace").decode()[:80]
