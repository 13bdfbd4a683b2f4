"""Events as Arrow blocks in the shape of their table (pure)."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from consumers.history.columns import kind, record_columns, split_optional
from schemas.catalogue import Topic
from schemas.event import Event, Position

MS = pa.timestamp("ms", "UTC")
_PRIMITIVES: dict[str, pa.DataType] = {
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
    "bytes": pa.binary(),
    "enum": pa.string(),
    "fixed": pa.binary(),
}
_LOGICAL: dict[str, pa.DataType] = {
    "timestamp-millis": MS,
    "timestamp-micros": pa.timestamp("us", "UTC"),
    "date": pa.date32(),
}


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that cannot become an event: where it stands, its bytes, and why."""

    at: Position
    key: bytes | None
    value: bytes | None
    recorded_ms: int
    error: str
    message: str


def arrow_type(avro: Any) -> pa.DataType:
    """The Arrow type of an Avro type; times are integers in its logical unit, as the codec gives them."""
    inner, _ = split_optional(avro)
    match kind(inner):
        case "array":
            return pa.list_(arrow_type(inner["items"]))
        case "map":
            return pa.map_(pa.string(), arrow_type(inner["values"]))
        case "record":
            return pa.struct([(f["name"], arrow_type(f["type"])) for f in inner["fields"]])
    logical = inner.get("logicalType", "") if isinstance(inner, dict) else ""
    return _LOGICAL.get(logical) or _PRIMITIVES[kind(inner)]


class UnfitEvent(ValueError):
    """A value that the table needs is missing: the record was written with a schema that is not ours."""


class EventBlocks:
    """Turns the events of one topic into tables: a column a leaf field, as `tables.event_table` has them."""

    def __init__(self, topic: Topic) -> None:
        self._types = {str(schema["name"]): arrow_type(schema) for schema in topic.schemas}
        self._required = {
            str(schema["name"]): [
                column.name
                for column in record_columns(schema)
                if not column.type.startswith(("Array(", "Map(")) and "Nullable(" not in column.type
            ]
            for schema in topic.schemas
        }

    def knows(self, event_type: str) -> bool:
        return event_type in self._types

    def table(self, events: Sequence[Event]) -> pa.Table:
        """All events in one table; a column that a record type lacks is null there.

        Raises UnfitEvent, ArrowException, OverflowError or TypeError for values that fit no column.
        """
        by_type: dict[str, list[Event]] = {}
        for event in events:
            by_type.setdefault(event.type, []).append(event)
        tables = [self._one_type(name, of_type) for name, of_type in by_type.items()]
        if len(tables) == 1:
            return tables[0]
        return pa.concat_tables(tables, promote_options="permissive")

    def _one_type(self, name: str, events: list[Event]) -> pa.Table:
        structs = pa.array([event.data for event in events], type=self._types[name])
        columns = dict(_leaves(structs, ""))
        for column in self._required[name]:
            if columns[column].null_count:
                raise UnfitEvent(f"{name} without {column}")
        places = [event.at for event in events if event.at is not None]
        assert len(places) == len(events), "only events that were read from the log have a place"
        columns["_type"] = pa.repeat(pa.scalar(name), len(events))
        columns["_topic"] = pa.array([at.topic for at in places], pa.string())
        columns["_partition"] = pa.array([at.partition for at in places], pa.int32())
        columns["_offset"] = pa.array([at.offset for at in places], pa.int64())
        columns["_recorded_at"] = pa.array([event.recorded_ms for event in events], MS)
        return pa.table(columns)


def _leaves(structs: pa.StructArray, prefix: str) -> Iterable[tuple[str, pa.Array]]:
    for field, array in zip(structs.type, structs.flatten(), strict=True):
        if pa.types.is_struct(field.type):
            yield from _leaves(array, f"{prefix}{field.name}_")
        else:
            yield f"{prefix}{field.name}", array


def dead_letter_table(letters: Sequence[DeadLetter]) -> pa.Table:
    """Dead letters as rows of `tables.DEAD_LETTERS`."""
    return pa.table(
        {
            "_topic": pa.array([letter.at.topic for letter in letters], pa.string()),
            "_partition": pa.array([letter.at.partition for letter in letters], pa.int32()),
            "_offset": pa.array([letter.at.offset for letter in letters], pa.int64()),
            "_recorded_at": pa.array([letter.recorded_ms for letter in letters], MS),
            "error": pa.array([letter.error for letter in letters], pa.string()),
            "message": pa.array([letter.message for letter in letters], pa.string()),
            "key_base64": pa.array([_base64(letter.key) for letter in letters], pa.string()),
            "value_base64": pa.array([_base64(letter.value) for letter in letters], pa.string()),
        }
    )


def position_table(
    positions: Iterable[tuple[str, int, int]], topic_ids: dict[str, str]
) -> pa.Table:
    """(topic, partition, next offset) as rows of `tables.POSITIONS`."""
    rows = list(positions)
    return pa.table(
        {
            "topic": pa.array([topic for topic, _, _ in rows], pa.string()),
            "topic_id": pa.array([topic_ids[topic] for topic, _, _ in rows], pa.string()),
            "partition": pa.array([partition for _, partition, _ in rows], pa.int32()),
            "next_offset": pa.array([next_ for _, _, next_ in rows], pa.int64()),
        }
    )


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode("ascii")
