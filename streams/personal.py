"""What a request says about a person: recorded encrypted, never seen by a model (docs/security.md)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MAX_LENGTH = 256
LONGEST = 4_096
PERSON = "person"
"""Field of a prediction: the pseudonym of the person whom it is about."""
PREFIX = "personal_"
"""Begins the fields of a prediction that hold what is encrypted."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")


@dataclass(frozen=True, slots=True)
class Personal:
    """`subject` names the person in each request; `fields` are further texts about the person.

    All of them are sent beside the features and none is one: predictions hold them encrypted under a key
    of that person, and the subject as a pseudonym that the same key makes. `driftlog erase` destroys the key.
    `plain_subject`: the subject identifies nobody by itself and is a Category of the task; it stands
    in the features as they are. Texts have at most `max_length` characters.
    """

    subject: str = ""
    fields: tuple[str, ...] = ()
    plain_subject: bool = False
    max_length: int = MAX_LENGTH

    @property
    def sealed(self) -> tuple[str, ...]:
        """What is encrypted: the subject, unless it is plain, and the fields."""
        return self.fields if self.plain_subject else (self.subject, *self.fields)

    @property
    def columns(self) -> dict[str, str]:
        """Encrypted field -> the field of PredictionMade that holds it."""
        return {name: PREFIX + name for name in self.sealed}


def sealed_fields(data: Mapping[str, Any]) -> dict[str, str | None]:
    """Personal field -> what a prediction with these fields holds in its place."""
    found = {name: value for name, value in data.items() if name.startswith(PREFIX)}
    return {name.removeprefix(PREFIX): value for name, value in found.items()}


def problem_of(personal: object, kinds: Mapping[str, str], reserved: frozenset[str]) -> str | None:
    """What is wrong with the declaration in a task whose features have these `kinds`; None if nothing is."""
    if not isinstance(personal, Personal):
        return f"{personal!r} is no Personal(...)"
    return next(_problems(personal, kinds, reserved), None)


def _problems(
    personal: Personal, kinds: Mapping[str, str], reserved: frozenset[str]
) -> Iterator[str]:
    """The first is worth saying; those after it may follow from it."""
    letters: object = personal.fields
    if not isinstance(letters, tuple):  # a forgotten comma: it would be read letter by letter
        yield f"fields={letters!r} is no tuple: write ('name',)"
    if not personal.subject:
        yield "no subject: say which field of a request names the person, e.g. subject='customer_id'"
    if personal.plain_subject and kinds.get(personal.subject) != "string":
        yield (
            f"plain_subject: {personal.subject!r} is no Category of the task: leave plain_subject"
            " out, and the log has a pseudonym in its place"
        )
    if not personal.sealed:
        yield "nothing to encrypt: plain_subject needs fields"
    for name in personal.sealed:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            yield f"name {name!r}: use a-z, 0-9 and _"
        elif name in reserved:
            yield f"name {name!r} is reserved"
        elif (personal.subject, *personal.fields).count(name) > 1:
            yield f"{name!r} is declared twice"
        elif name in kinds:
            instead = ", or say plain_subject=True" if name == personal.subject else ""
            yield (
                f"{name!r} is a feature, and features stand in the log as they are; no model sees a"
                f" personal field: take it out of the features{instead}"
            )
    if type(personal.max_length) is not int or not 1 <= personal.max_length <= LONGEST:
        yield f"max_length={personal.max_length!r}: must be 1 to {LONGEST}"
