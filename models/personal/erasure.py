"""Erasing a person: the key is destroyed first, the log hears of it afterwards.

In the other order a crash in between would leave an event that says what is not so. The erasure is written
down in the transaction that destroys the key, and stays until the log has the event; whoever comes next
(`finish`) goes on where a crash has ended it. The event's id is derived from the pseudonym, so that a second
try adds the same fact.
"""

from __future__ import annotations

from collections.abc import Callable

from models.personal.keystore import Erasure, KeyStore
from schemas.catalogue import PRIVACY
from schemas.event import Event, derive


def event_of(erasure: Erasure) -> Event:
    """The SubjectErased of a key that was destroyed."""
    return derive(
        *(PRIVACY, "SubjectErased", erasure.person),
        time=erasure.event_time,
        caused_by=None,
        task=erasure.task,
        person=erasure.person,
        actor=erasure.actor,
        reason=erasure.reason,
    )


def finish(keys: KeyStore, append: Callable[[Event], None]) -> list[Event]:
    """What erasures still lack, this one's or an earlier one's; the events that the log has got by it.

    Raises KeysUnavailable and what `append` raises; then it is to be called again.
    """
    keys.scrub()
    said = []
    for erasure in keys.untold():
        event = event_of(erasure)
        append(event)
        keys.told(erasure.person)
        said.append(event)
    if said:
        keys.scrub()
    return said
