"""docs/events.md, written from the catalogue and the schemas: every topic, type and field."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from schemas.catalogue import DLQ_SUFFIX, Schema, Topic, system_topics, task_topics
from schemas.compatibility import DEFAULT_LEVEL
from schemas.safety import full_name
from schemas.union import NAMED

INTRO = f"""\
# Events

This page is generated from `schemas/`: `driftlog schemas docs` writes it anew.

Every event is one Avro record in Confluent's wire format: a zero byte, the schema's id in four bytes,
the body. A topic's schema is the subject `<topic>-value` of the registry; a topic that carries several
types has their union. Subjects are `{DEFAULT_LEVEL}`: a field may be added or removed only if it has a
default, so that old and new code read the log from its first offset.

Records are keyed by the field that the topic names, so all events about one key are in order. Headers
follow CloudEvents' Kafka binding and W3C `traceparent`. What could not be read stands, as it came, on
`<topic>{DLQ_SUFFIX}`. Times are milliseconds since the epoch, UTC. Every event begins with the same three
fields, which the tables below leave out:

"""

TASK_TOPICS = """\
## Topics of a task

Their schemas are derived from the Task's features; each topic has as many partitions as the setting
`DRIFTLOG_PARTITIONS` says."""

SYSTEM_TOPICS = """\
## Topics of the system

One partition each, so that each has a total order."""

ENVELOPE = 3
_HEAD = "| field | type | default | meaning |\n|---|---|---|---|"


def events_page() -> str:
    """The whole page; the same schemas give the same text."""
    of_a_task = task_topics(
        "<task>",
        {"<numeric feature>": "double", "<category feature>": "string"},
        ["<value>"],
        private=["<personal field>"],
    )
    envelope = of_a_task[0].schemas[0]["fields"][:ENVELOPE]
    parts = [
        INTRO + _table(envelope, "driftlog"),
        _contents([*of_a_task, *system_topics()]),
        TASK_TOPICS,
        *map(_section, of_a_task),
        SYSTEM_TOPICS,
        *map(_section, system_topics()),
    ]
    return "\n\n".join(parts) + "\n"


def _contents(topics: Sequence[Topic]) -> str:
    rows = [
        f"| `{topic.name}` | `{topic.key}` | {', '.join(one['name'] for one in topic.schemas)} |"
        for topic in topics
    ]
    return "\n".join(["| topic | key | events |", "|---|---|---|", *rows])


def _section(topic: Topic) -> str:
    parts = [f"### `{topic.name}`\n\nKey: `{topic.key}`. Subject: `{topic.subject}`."]
    for schema in topic.schemas:
        fields = schema["fields"][ENVELOPE:]
        parts.append(f"**{schema['name']}**: {_cell(schema.get('doc', ''))}")
        parts.append(_table(fields, schema.get("namespace", "")))
    return "\n\n".join(parts)


def _table(fields: Iterable[Schema], namespace: str) -> str:
    return "\n".join([_HEAD, *_rows(fields, "", namespace, {})])


def _rows(
    fields: Iterable[Schema], path: str, namespace: str, known: dict[str, Schema]
) -> Iterator[str]:
    for field in fields:
        name = f"{path}{field['name']}"
        kind, steps, record = _kind(field["type"], namespace, known)
        default = f"`{json.dumps(field['default'])}`" if "default" in field else ""
        yield f"| `{name}` | {_cell(kind)} | {default} | {_cell(field.get('doc', ''))} |"
        if record is not None:
            inner = full_name(record, namespace)[1]
            yield from _rows(record["fields"], f"{name}{steps}.", inner, known)


def _kind(schema: Any, namespace: str, known: dict[str, Schema]) -> tuple[str, str, Schema | None]:
    """(type in words, path steps to what is inside, the record inside or None)."""
    if isinstance(schema, str):
        full = schema if "." in schema or not namespace else f"{namespace}.{schema}"
        found = known.get(full)
        return found["name"] if found else schema, "", found
    if isinstance(schema, list):
        kinds = [_kind(branch, namespace, known) for branch in schema if branch != "null"]
        words = " or ".join(kind for kind, _, _ in kinds)
        steps, inside = next(((step, one) for _, step, one in kinds if one), ("", None))
        return (f"{words}, or null" if "null" in schema else words), steps, inside
    kind = schema["type"]
    if kind in {"array", "map"}:
        part, step = ("items", "[]") if kind == "array" else ("values", "{}")
        inner, steps, inside = _kind(schema[part], namespace, known)
        return f"{kind} of {inner}", step + steps, inside
    if kind in NAMED:
        known[full_name(schema, namespace)[0]] = schema
        words = schema["name"] if kind != "enum" else f"one of {', '.join(schema['symbols'])}"
        return words, "", schema if "fields" in schema else None
    if schema.get("logicalType") == "timestamp-millis":
        return "timestamp (ms)", "", None
    return _kind(kind, namespace, known)


def _cell(text: Any) -> str:
    """Text that neither ends a table's cell nor opens a tag."""
    return str(text).replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
