"""Events of one type as an Arrow table with the columns of their schema, also when there are none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from schemas.catalogue import Schema
from schemas.event import Event

_PLAIN = {
    "string": pa.string(),
    "long": pa.int64(),
    "int": pa.int32(),
    "double": pa.float64(),
    "float": pa.float32(),
    "boolean": pa.bool_(),
    "bytes": pa.binary(),
    "timestamp-millis": pa.timestamp("ms", tz="UTC"),
}


def event_table(schema: Schema, events: Iterable[Event]) -> pa.Table:
    """One row an event; times are timestamps in ms, UTC. Raises ValueError for an unknown Avro type."""
    rows = [dict(event.data) for event in events]
    return pa.Table.from_pylist(rows, schema=pa.schema(_fields(schema)))


def _fields(record: Schema) -> list[pa.Field]:
    return [pa.field(field["name"], _arrow(field["type"])) for field in record["fields"]]


def _arrow(kind: Any) -> pa.DataType:
    if isinstance(kind, list):
        (kind,) = (branch for branch in kind if branch != "null")
    name = kind if isinstance(kind, str) else kind.get("logicalType", kind["type"])
    if name in _PLAIN:
        return _PLAIN[name]
    if name == "record":
        return pa.struct(_fields(kind))
    if name == "array":
        return pa.list_(_arrow(kind["items"]))
    if name == "map":
        return pa.map_(pa.string(), _arrow(kind["values"]))
    raise ValueError(f"no Arrow type for the Avro type {name}")
