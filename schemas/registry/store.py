"""The registry's state as a fold over the records of `_schemas`: same records, same subjects and ids.

Ids are global; equal schemas (canonical form) have one id whatever the subject.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from schemas.compatibility import DEFAULT_LEVEL, LEVELS
from schemas.registry.canonical import canonical
from schemas.registry.records import Record, load
from schemas.safety import UnsafeSchema, check_safe, parse_text

MODES = ("READWRITE", "READONLY", "READONLY_OVERRIDE", "IMPORT")
DEFAULT_MODE = "READWRITE"
MAX_ID = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a subject."""

    subject: str
    number: int
    id: int
    text: str
    deleted: bool = False
    type: str = "AVRO"


@dataclass(slots=True)
class State:
    """Everything that the registry knows; `offset` is that of the next record (-1: nothing read)."""

    subjects: dict[str, dict[int, Version]] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)
    levels: dict[str | None, str] = field(default_factory=dict)
    modes: dict[str | None, str] = field(default_factory=dict)
    last_id: int = 0


def apply(state: State, record: Record) -> None:
    """Fold one record into `state`; what is not understood changes nothing."""
    key = load(record.key)
    kind = key.get("keytype") if key else None
    if key is None or not isinstance(key.get("subject"), (str, type(None))):
        return
    subject: str | None = key.get("subject")
    value = load(record.value)
    if kind == "CONFIG":
        _set(state.levels, subject, (value or {}).get("compatibilityLevel"), LEVELS)
    elif kind == "MODE":
        _set(state.modes, subject, (value or {}).get("mode"), MODES)
    elif kind == "DELETE_SUBJECT" and value and subject:
        _hide(state, subject, value.get("version"))
    elif kind == "SCHEMA" and subject:
        _schema(state, subject, key.get("version"), record.value is None, value)


def identity(text: str, kind: str = "AVRO") -> str:
    """What makes a schema text the same schema as another; unreadable texts are equal only verbatim."""
    if kind != "AVRO":
        return f"{kind} {text}"
    try:
        schema = parse_text(text)
        check_safe(schema)
        return canonical(schema)
    except (UnsafeSchema, KeyError, TypeError, AttributeError):
        return f"? {text}"


def versions(state: State, subject: str, deleted: bool = False) -> list[Version]:
    """The versions of a subject, oldest first; hidden ones only with `deleted`."""
    found = state.subjects.get(subject, {})
    return [found[number] for number in sorted(found) if deleted or not found[number].deleted]


def subjects(state: State, deleted: bool = False) -> list[str]:
    """Names of subjects that have a version."""
    return sorted(name for name in state.subjects if versions(state, name, deleted))


def find(state: State, subject: str, form: str, deleted: bool = False) -> Version | None:
    """The newest version of `subject` whose identity is `form`."""
    wanted = state.ids.get(form)
    for version in reversed(versions(state, subject, deleted)):
        if version.id == wanted or identity(version.text, version.type) == form:
            return version
    return None


def uses(state: State, schema_id: int, deleted: bool = False) -> Iterator[Version]:
    """Every version, of any subject, that has this id."""
    for name in sorted(state.subjects):
        yield from (v for v in versions(state, name, deleted) if v.id == schema_id)


def level(state: State, subject: str) -> str:
    """The compatibility level in force for a subject."""
    return state.levels.get(subject) or state.levels.get(None, DEFAULT_LEVEL)


def mode(state: State, subject: str) -> str:
    """The mode in force for a subject."""
    return state.modes.get(subject) or state.modes.get(None, DEFAULT_MODE)


def next_version(state: State, subject: str) -> int:
    """Numbers are not used again while any trace of the subject is left."""
    return max(state.subjects.get(subject, {}), default=0) + 1


def _schema(
    state: State, subject: str, number: Any, tombstone: bool, value: dict[str, Any] | None
) -> None:
    if type(number) is not int:
        return
    if tombstone:
        _forget(state, subject, number)
        return
    if value is None:
        return
    schema_id, text = value.get("id"), value.get("schema")
    if type(schema_id) is not int or not 0 < schema_id <= MAX_ID or not isinstance(text, str):
        return
    kind = str(value.get("schemaType") or "AVRO")
    deleted = value.get("deleted") is True
    version = Version(subject, number, schema_id, text, deleted, kind)
    if _taken(state, version):
        return
    state.subjects.setdefault(subject, {})[number] = version
    state.last_id = max(state.last_id, schema_id)
    state.texts.setdefault(schema_id, text)
    state.ids.setdefault(identity(text, kind), schema_id)


def _taken(state: State, version: Version) -> bool:
    """True if another schema has the id or the number already: of two registries, the first writer wins."""
    there = state.subjects.get(version.subject, {}).get(version.number)
    if there is not None and there.id != version.id:
        return True
    known = state.texts.get(version.id, version.text)
    return known != version.text and identity(known, version.type) != identity(
        version.text, version.type
    )


def _forget(state: State, subject: str, number: int) -> None:
    """Events that were written with the id may still be in the log, so its text stays readable."""
    numbers = state.subjects.get(subject, {})
    numbers.pop(number, None)
    if not numbers:
        state.subjects.pop(subject, None)


def _hide(state: State, subject: str, until: Any) -> None:
    numbers = state.subjects.get(subject, {})
    for number, version in numbers.items():
        if type(until) is int and number <= until and not version.deleted:
            numbers[number] = Version(subject, number, version.id, version.text, True, version.type)


def _set(settings: dict[str | None, str], subject: str | None, value: Any, known: Any) -> None:
    if value in known:
        settings[subject] = value
    elif value is None:
        settings.pop(subject, None)
