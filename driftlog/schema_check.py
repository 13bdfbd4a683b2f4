"""May a schema follow those that events were written with? Asked of the registry, or of a file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from schemas.catalogue import Schema, Topic
from schemas.compatibility import DEFAULT_LEVEL, InvalidSchema, incompatibilities, parse_avro
from schemas.registry.client import RegistryClient
from schemas.safety import UnsafeSchema, check_safe


@dataclass(frozen=True, slots=True)
class Verdict:
    """`state`: 'unchanged', 'new' (no version yet), 'compatible' or 'refused' with its problems."""

    subject: str
    state: str
    problems: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def offline(name: str, new: Any, old: Any) -> Verdict:
    """Judge `new` after `old` under the default level, without a registry."""
    problems = _unusable(new)
    if not problems:
        try:
            problems = incompatibilities(DEFAULT_LEVEL, new, [old])
        except InvalidSchema as error:
            problems = [f"the older schema: {error}"]
    return _verdict(name, "compatible", problems)


def live(registry: RegistryClient, topic: Topic) -> Verdict:
    """Judge a topic's schema by its subject's versions and level; raises RegistryUnavailable."""
    try:
        schema = topic.value_schema
    except ValueError as error:
        return _verdict(topic.subject, "", [str(error)])
    problems = _unusable(schema)
    if problems:
        return _verdict(topic.subject, "", problems)
    if registry.look_up(topic.subject, schema) is not None:
        return _verdict(topic.subject, "unchanged", [])
    state = "compatible" if registry.versions(topic.subject) else "new"
    return _verdict(topic.subject, state, registry.compatible(topic.subject, schema))


def with_schema(topic: Topic, schema: Schema) -> Topic:
    """The topic with `schema` in the place of its record type of that name, or added to the others."""
    name = str(schema["name"]).rpartition(".")[2]
    known = [one["name"] for one in topic.schemas]
    if name not in known:
        return dataclasses.replace(topic, schemas=(*topic.schemas, schema))
    swapped = (schema if one["name"] == name else one for one in topic.schemas)
    return dataclasses.replace(topic, schemas=tuple(swapped))


def _unusable(schema: Any) -> list[str]:
    try:
        check_safe(schema)
        parse_avro(schema)
    except (UnsafeSchema, InvalidSchema) as error:
        return [str(error)]
    return []


def _verdict(subject: str, state: str, problems: list[str]) -> Verdict:
    return Verdict(subject, "refused" if problems else state, tuple(problems))
