"""Runs a task's source through everything that its moments meet when the system is up, without the system.

The same parsers as serving's, the same feature fold as the worker's, the same codec and derived schemas.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from driftlog.task_settings import Problem
from models.serving.instances import InstanceParser, InvalidRequest, parse_labels
from schemas.catalogue import features_topic, predictions_topic
from schemas.codec import Codec, check_finite
from schemas.errors import InvalidEvent
from schemas.event import Event, derive
from streams.features import FeatureFold, FeatureState, assemble
from streams.task import Ask, Moment, Observation, Observed, Task, Truth

SECONDS_BEFORE = 100_000_000_000
"""A time below (March 1973 in ms) is most likely given in seconds."""

_VARYING = re.compile(r"'[^']*'|[-+]?[0-9][-+.e0-9]*")
"""What differs between two cases of the same problem: quoted text and numbers."""


@dataclass
class Checked:
    """What the source gave; times in ms."""

    asks: int = 0
    truths: int = 0
    observations: int = 0
    positives: int = 0
    late: int = 0
    """Labels that came after the task's label_delay_hours: they do not count."""
    first_ms: int = 0
    last_ms: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def moments(self) -> int:
        return self.asks + self.truths + self.observations


def check_moments(task: Task, limit: int, now_ms: int) -> Checked:
    """Take the first `limit` moments twice, and check each; whatever the source raises passes through.

    `now_ms`: the present, as moments may not lie in the future.
    """
    assert task.source is not None
    checker = _Checker(task, now_ms)
    seen: list[str] = []
    for moment in islice(_started(task), limit):
        checker.see(moment)
        seen.append(repr(moment))
    for number, again in enumerate(islice(_started(task), limit), 1):
        if number > len(seen) or seen[number - 1] != repr(again):
            checker.problem(
                *("source", f"gives another moment {number} when it is called again:"),
                "a restart must repeat the same ids, times and values (use a fixed seed)",
            )
            break
    return checker.finish()


def _started(task: Task) -> Iterator[Moment]:
    assert task.source is not None
    moments: object = task.source()
    if not hasattr(moments, "__iter__"):
        raise TypeError(f"source() must return an iterator of moments, not {moments!r}")
    return iter(moments)


class _Checker:
    """The user's moments are `Any` here: their fields hold whatever the file put there."""

    def __init__(self, task: Task, now_ms: int) -> None:
        self._task = task
        self._now_ms = now_ms
        self._parser = InstanceParser(task)
        self._codec = Codec(_NoRegistry(), task.topics())
        self._fold = FeatureFold(task, partitions=1)
        self._state: FeatureState = self._fold.initial()
        self._entities = sorted({f.by for f in task.features if isinstance(f, Observed)})
        self._asked: dict[str, int] = {}
        self._labelled: set[str] = set()
        self._observed: set[tuple[str, str, int]] = set()
        self._found: dict[tuple[str, str], Problem] = {}
        self._number = 0
        self._result = Checked()

    def problem(self, where: str, what: str, advice: str = "") -> None:
        """Remember it; the same again is only counted."""
        key = where, _VARYING.sub("#", what)
        if key in self._found:
            self._found[key].times += 1
            return
        message = f"{what} {advice}".strip()
        self._found[key] = Problem(where, " ".join(message.split()), self._number or None)

    def see(self, moment: object) -> None:
        self._number += 1
        if not isinstance(moment, Ask | Truth | Observation):
            what = f"is a {type(moment).__name__}, not"
            self.problem("source", what, "Ask, Truth or Observation")
            return
        timed = self._timed(moment)
        check: Callable[[Any], None]
        if isinstance(moment, Ask):
            self._result.asks += 1
            check = self._ask
        elif isinstance(moment, Truth):
            self._result.truths += 1
            check = self._truth
        else:
            self._result.observations += 1
            check = self._observation
        if timed:
            check(moment)
        elif isinstance(moment, Ask) and isinstance(moment.id, str):
            self._asked.setdefault(moment.id, 0)  # its label is not to blame

    def _timed(self, moment: Any) -> bool:
        where, time = f"{type(moment).__name__}.time", moment.time
        if type(time) is not int:
            self.problem(
                where, f"is {_shown(time)};", "write milliseconds since the epoch as int(...)"
            )
            return False
        if time < SECONDS_BEFORE:
            advice = "give milliseconds since the epoch (seconds * 1000)"
            self.problem(where, f"{time} looks like seconds:", advice)
            return False
        if time < self._result.last_ms:
            what = f"{time} is before the moment ahead of it, {self._result.last_ms}:"
            self.problem(where, what, "give moments in time order, e.g. with heapq.merge(key=...)")
        self._result.first_ms = self._result.first_ms or time
        self._result.last_ms = max(self._result.last_ms, time)
        return True

    def _ask(self, ask: Any) -> None:
        if not isinstance(ask.instance, Mapping):
            return self.problem(
                "Ask.instance", f"is {_shown(ask.instance)}:", "give a dict of features"
            )
        if not isinstance(ask.id, str):
            return self.problem("Ask.id", f"is {_shown(ask.id)}:", "give text, as with str(...)")
        if ask.id in self._asked:
            self.problem(
                "Ask.id", f"{ask.id!r} was asked before:", "each question needs its own id"
            )
        self._asked[ask.id] = ask.time
        plain = {}
        for name, value in ask.instance.items():
            if wrong := _unsendable(value):
                return self.problem(f"Ask.instance.{name}", *wrong)
            plain[str(name)] = float(value) if isinstance(value, float) else value
        body = {"instances": [{**plain, "event_id": ask.id, "event_time": ask.time}]}
        try:
            [asked] = self._parser.parse(body, self._now_ms, str)
        except InvalidRequest as error:
            return self._refused(error, "instances[0]", "Ask.instance", "Ask")
        vector = assemble(self._task, asked.instance, asked.time, self._state.blob)
        event = Event(
            predictions_topic(self._task.name),
            "PredictionMade",
            {
                "event_id": ask.id,
                "event_time": ask.time,
                "caused_by": None,
                "model_version": "",
                "score": 0.5,
                "label": 0,
                "features": vector,
            },
        )
        return self._encode(event, "Ask")

    def _truth(self, truth: Any) -> None:
        label = {"prediction_id": truth.prediction_id, "label": truth.label}
        if type(truth.label) is not int:
            return self.problem(
                "Truth.label", f"is {_shown(truth.label)}:", "write 0 or 1 as int(...)"
            )
        try:
            [event] = parse_labels(
                self._task, {"labels": [{**label, "event_time": truth.time}]}, self._now_ms
            )
        except InvalidRequest as error:
            return self._refused(error, "labels[0]", "Truth", "Truth")
        asked = self._asked.get(truth.prediction_id)
        where = "Truth.prediction_id"
        if asked is None:
            what = f"no Ask with id {truth.prediction_id!r} came before:"
            self.problem(where, what, "a label belongs to an earlier question, by its id")
        elif truth.time < asked:
            self.problem(
                "Truth.time", f"{truth.time} is before its question:", "labels come after it"
            )
        if truth.prediction_id in self._labelled:
            self.problem(
                where, f"{truth.prediction_id!r} has a label already:", "the first one counts"
            )
        self._labelled.add(truth.prediction_id)
        self._result.positives += truth.label
        if asked and truth.time > asked + self._task.label_delay_ms:
            self._result.late += 1
        return self._encode(event, "Truth")

    def _observation(self, seen: Any) -> None:
        if seen.entity not in self._entities:
            known = ", ".join(self._entities) or "none: the task has no Observed feature"
            what = f"{seen.entity!r} is looked up by no Observed feature; they look up"
            return self.problem("Observation.entity", what, known)
        if not isinstance(seen.key, str) or not seen.key:
            return self.problem("Observation.key", f"is {_shown(seen.key)}:", "give text")
        if not isinstance(seen.values, Mapping):
            return self.problem("Observation.values", f"is {_shown(seen.values)}:", "give a dict")
        if (at := (seen.entity, seen.key, seen.time)) in self._observed:
            what = f"{seen.key!r} is observed twice at {seen.time}:"
            self.problem(
                "Observation.key", what, "one observation per key and time, with all values"
            )
        self._observed.add(at)
        for name, value in seen.values.items():
            if name not in self._task.observed_values:
                advice = f"leave it out or add a feature; used are {', '.join(self._task.observed_values)}"
                return self.problem(f"Observation.values.{name}", "is used by no feature:", advice)
            if wrong := _unsendable(value):
                return self.problem(f"Observation.values.{name}", *wrong)
        fields = {"entity": seen.entity, "key": seen.key, "values": dict(seen.values)}
        topic, cause = features_topic(self._task.name), (self._task.name, *at)
        event = derive(topic, "FeatureObserved", *cause, time=seen.time, caused_by=None, **fields)
        return self._encode(event, "Observation")

    def _encode(self, event: Event, kind: str) -> None:
        """As it would be written; then it counts in the features of what follows."""
        try:
            check_finite(event.data)
            self._codec.encode(event)
        except InvalidEvent as error:
            return self.problem(kind, f"does not fit the schema of {event.topic}:", str(error))
        self._fold.apply(self._state, [event])
        return None

    def _refused(self, error: InvalidRequest, loc: str, inside: str, kind: str) -> None:
        for each in error.errors:
            name = each.loc.removeprefix(loc).lstrip(".")
            envelope = name in ("event_id", "event_time")
            where = f"{kind}.{name.removeprefix('event_')}" if envelope else f"{inside}.{name}"
            message = each.message
            if message == "is missing":
                message += ": give None if it is unknown"
            self.problem(where, message)

    def finish(self) -> Checked:
        result = self._result
        result.problems = list(self._found.values())
        if not result.asks:
            result.problems.append(
                Problem("source", "it asks for no prediction: yield Ask moments")
            )
        if result.asks and not result.truths:
            result.notes.append("no label came yet: check more moments with --moments")
        elif result.truths and result.positives in (0, result.truths):
            result.notes.append(f"all {result.truths:,} labels are the same so far")
        if result.late:
            result.notes.append(
                f"{result.late:,} of {result.truths:,} labels came later than label_delay_hours"
                f" ({self._task.label_delay_hours} h) and do not count"
            )
        if self._entities and not result.observations:
            result.notes.append("no Observation came yet: the Observed features are empty so far")
        return result


class _NoRegistry:
    """Schemas need no number here."""

    def schema_id(self, subject: str, schema: Any) -> int:  # noqa: ARG002
        return 0

    def schema_by_id(self, schema_id: int) -> Any:
        raise KeyError(schema_id)


def _unsendable(value: object) -> tuple[str, str] | None:
    """What JSON has no word for, and what to do."""
    if isinstance(value, float):
        if math.isnan(value):
            return "is NaN:", "write None for a missing value"
        return ("is infinite:", "give a finite number") if math.isinf(value) else None
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return f"is {_shown(value)}:", "give a plain number, text or None, as with float(...)"
    return None


def _shown(value: object) -> str:
    kind = type(value)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    text = " ".join(repr(value).split())
    return f"{text[:60]} ({name})"
