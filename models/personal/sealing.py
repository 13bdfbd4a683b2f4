"""The personal part of requests, sealed: what predictions hold in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from models.personal.cipher import Place
from models.personal.keystore import KeyStore
from streams.personal import PERSON
from streams.task import Ask, Task

Sealed = Mapping[str, str | None]
"""Fields of a PredictionMade: the pseudonym, and each personal field encrypted."""


def seal_all(keys: KeyStore, task: Task, asks: Sequence[Ask]) -> list[Sealed]:
    """For each ask, in order; the key store is asked once. Raises KeysUnavailable."""
    personal = task.personal
    assert personal is not None
    nobody = dict.fromkeys((PERSON, *personal.columns.values()))
    subjects = {ask.instance[personal.subject] for ask in asks} - {None}
    found = keys.keys(task.name, sorted(subjects)) if subjects else {}
    made: list[Sealed] = []
    for ask in asks:
        subject = ask.instance[personal.subject]
        if subject is None:
            made.append(nobody)
            continue
        key = found[subject]
        one: dict[str, str | None] = {PERSON: key.person}
        for name, column in personal.columns.items():
            text = ask.instance[name]
            place = Place(task.name, name, ask.id)
            one[column] = None if text is None else key.seal(text, place)
        made.append(one)
    return made
