"""What the registry decides: from its state and a request, the records to write, or a refusal. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from schemas.compatibility import LEVELS, InvalidSchema, incompatibilities, parse_avro
from schemas.registry import faults, store
from schemas.registry.canonical import canonical
from schemas.registry.records import (
    Record,
    config_record,
    delete_subject_record,
    dump,
    mode_record,
    schema_record,
    schema_tombstone,
)
from schemas.registry.store import State, Version
from schemas.safety import UnsafeSchema, check_safe, parse_text

SETTABLE_MODES = ("READWRITE", "READONLY")
MAX_SUBJECT_CHARS = 255


@dataclass(frozen=True, slots=True)
class Given:
    """A schema in a request: its JSON, the text to store, and what makes it the same as another."""

    schema: Any
    text: str
    form: str


def read_schema(body: Any) -> Given:
    """The schema of a request body; raises RegistryFault 42201 if it is none, or not a safe one."""
    text = body.get("schema") if isinstance(body, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise faults.invalid_schema('the body needs {"schema": "<Avro schema as text>"}')
    if (body.get("schemaType") or "AVRO") != "AVRO":
        raise faults.invalid_schema(f"type {body['schemaType']!r}; only AVRO is kept here")
    if body.get("references"):
        raise faults.invalid_schema("references to other subjects; put the types into the schema")
    try:
        schema = parse_text(text)
        check_safe(schema)
        parse_avro(schema)
    except (UnsafeSchema, InvalidSchema) as error:
        raise faults.invalid_schema(error) from error
    return Given(schema, dump(schema).decode(), canonical(schema))


def register(state: State, subject: str, given: Given) -> tuple[list[Record], Version]:
    """The version that holds the schema under `subject`, and the record that makes it so if it is new."""
    _check_subject(subject)
    known = store.find(state, subject, given.form)
    if known is not None:
        return [], known
    _check_writable(state, subject)
    why = check(state, subject, given)
    if why:
        raise faults.incompatible(subject, why)
    known_id = state.ids.get(given.form)
    schema_id = known_id if known_id is not None else state.last_id + 1
    text = given.text if known_id is None else state.texts[schema_id]
    number = store.next_version(state, subject)
    version = Version(subject, number, schema_id, text)
    return [schema_record(subject, number, schema_id, text)], version


def keep(state: State, subject: str, number: int) -> list[Record]:
    """The record of a version once more, so that no later one with the same key outlives it."""
    kept = state.subjects.get(subject, {}).get(number)
    if kept is None or kept.type != "AVRO":
        return []
    return [schema_record(subject, number, kept.id, kept.text, kept.deleted)]


def check(state: State, subject: str, given: Given, number: int | None = None) -> list[str]:
    """Why the schema may not follow under `subject`; only version `number` is asked if given."""
    level = store.level(state, subject)
    live = store.versions(state, subject)
    earlier = live if number is None else [version(state, subject, number)]
    schemas = []
    for one in earlier:
        try:
            schemas.append(parse_text(one.text))
        except UnsafeSchema as error:
            return [f"version {one.number} cannot be read ({error})"]
    try:
        return incompatibilities(level, given.schema, schemas)
    except InvalidSchema as error:
        return [f"an earlier version cannot be read ({error})"]


def version(state: State, subject: str, number: int | None, deleted: bool = False) -> Version:
    """A version of a subject, the newest if `number` is None; raises RegistryFault 40401 or 40402."""
    known = store.versions(state, subject, deleted)
    if not known:
        raise faults.no_subject(subject)
    if number is None:
        return known[-1]
    for one in known:
        if one.number == number:
            return one
    raise faults.no_version(number)


def delete_subject(state: State, subject: str, permanent: bool) -> tuple[list[Record], list[int]]:
    """Hide a subject; `permanent` removes a hidden one for good. Also the numbers of its versions."""
    _check_writable(state, subject)
    every = store.versions(state, subject, deleted=True)
    live = store.versions(state, subject)
    if not every:
        raise faults.no_subject(subject)
    if permanent:
        if live:
            raise faults.RegistryFault(
                40405,
                f"Subject '{subject}' was not deleted first before being permanently deleted",
            )
        return [schema_tombstone(subject, one.number) for one in every], _numbers(every)
    if not live:
        raise faults.RegistryFault(
            40404, f"Subject '{subject}' was soft deleted. Set permanent=true to delete permanently"
        )
    return [delete_subject_record(subject, live[-1].number)], _numbers(live)


def delete_version(
    state: State, subject: str, number: int | None, permanent: bool
) -> tuple[list[Record], int]:
    """Hide one version; `permanent` removes a hidden one for good."""
    _check_writable(state, subject)
    one = version(state, subject, number, deleted=number is not None)
    if permanent:
        if not one.deleted:
            raise faults.RegistryFault(
                40407,
                f"Subject '{subject}' Version {one.number} was not deleted first before being "
                "permanently deleted",
            )
        return [schema_tombstone(subject, one.number)], one.number
    if one.deleted:
        raise faults.RegistryFault(
            40406,
            f"Subject '{subject}' Version {one.number} was soft deleted. "
            "Set permanent=true to delete permanently",
        )
    return [schema_record(subject, one.number, one.id, one.text, deleted=True)], one.number


def set_level(subject: str | None, level: Any) -> list[Record]:
    """Set the compatibility level of a subject, or of all (None); raises RegistryFault 42203."""
    _check_subject(subject)
    if level not in LEVELS:
        raise faults.invalid_level(level, LEVELS)
    return [config_record(subject, level)]


def set_mode(subject: str | None, mode: Any) -> list[Record]:
    """Set the mode of a subject, or of all (None); raises RegistryFault 42204."""
    _check_subject(subject)
    if mode not in SETTABLE_MODES:
        raise faults.invalid_mode(mode, SETTABLE_MODES)
    return [mode_record(subject, mode)]


def _check_subject(subject: str | None) -> None:
    if subject is None:
        return
    if not subject or len(subject) > MAX_SUBJECT_CHARS or not subject.isprintable():
        raise faults.RegistryFault(
            42208,
            f"The specified subject {subject[:60]!r} is not a valid subject: "
            f"1 to {MAX_SUBJECT_CHARS} printable characters",
        )


def _check_writable(state: State, subject: str) -> None:
    if store.mode(state, subject).startswith("READONLY"):
        raise faults.RegistryFault(42205, f"Subject {subject} is in read-only mode")


def _numbers(versions: list[Version]) -> list[int]:
    return [one.number for one in versions]
