"""The personal part of a prediction, read by those who have the keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from driftlog.event_index import NoSuchEvent
from models.personal.cipher import Place
from models.personal.errors import KeysUnavailable
from models.personal.keystore import KeyStore
from schemas.catalogue import PRIVACY, predictions_topic
from schemas.event import Event, derive
from streams.personal import PERSON, sealed_fields
from streams.task import Task

ERASED = "[erased]"


@dataclass(frozen=True, slots=True)
class Revealed:
    """What a prediction says about a person; without texts if the person was erased."""

    task: str
    event_id: str
    person: str
    fields: Mapping[str, str | None]
    erased: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "event_id": self.event_id,
            "person": self.person,
            "erased": self.erased,
            "fields": dict(self.fields),
        }


def task_of(event: Event, tasks: Mapping[str, Task]) -> Task:
    """The task of a prediction about a person; raises NoSuchEvent."""
    for task in tasks.values():
        if event.topic == predictions_topic(task.name):
            if event.data.get(PERSON) is None:
                raise NoSuchEvent(f"prediction {event.id} says nothing about a person")
            return task
    raise NoSuchEvent(f"{event.id} is a {event.type}, not a prediction of a task of this instance")


def read(keys: KeyStore, task: Task, event: Event, was_erased: Callable[[str], bool]) -> Revealed:
    """Decrypt; raises KeysUnavailable, NotSealed. `was_erased`: whether the log says so of a pseudonym."""
    person, fields = str(event.data[PERSON]), sealed_fields(event.data)
    key = keys.of_person(person)
    if key is None:
        gone = any(one.person == person for one in keys.untold()) or was_erased(person)
        if not gone:
            raise KeysUnavailable(
                f"this key store has no key for person {person}: it was made with another one"
                " (DRIFTLOG_HOME), or its newest keys are lost"
            )
        return Revealed(task.name, event.id, person, dict.fromkeys(fields), erased=True)
    texts = {}
    for name, sealed in fields.items():
        place = Place(task.name, name, event.id)
        texts[name] = None if sealed is None else key.unseal(sealed, place)
    return Revealed(task.name, event.id, person, texts)


def revealed(found: Revealed, now_ms: int, actor: str, reason: str) -> Event:
    """The event that says who read it, and why."""
    return derive(
        *(PRIVACY, "PersonalDataRevealed", found.event_id, now_ms, actor),
        time=now_ms,
        caused_by=None,
        task=found.task,
        prediction_id=found.event_id,
        person=found.person,
        fields=[name for name, text in found.fields.items() if text is not None],
        actor=actor,
        reason=reason,
    )
