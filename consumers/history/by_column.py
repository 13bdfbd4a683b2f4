"""Records as Arrow blocks without a Python object per event, for topics whose events are plain.

The same rows as `blocks.EventBlocks` makes of the events, an order of magnitude faster. What is not plain, or
not what it should be, is left to the row codec, which knows what to say about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from consumers.history.blocks import MS, UnfitEvent, arrow_type
from consumers.history.columns import Column, kind, record_columns, split_optional
from consumers.history.record import Part
from schemas.catalogue import Schema, Topic
from schemas.codec import Codec
from schemas.columnar import Kind, Records, is_null
from schemas.columnar.decoder import ColumnDecoder

LEAST = 64
"""Fewer records of a partition are quicker one by one."""
_KINDS: dict[str, Kind] = {
    "string": "text",
    "enum": "text",
    "double": "double",
    "float": "double",
    "int": "long",
    "long": "long",
    "boolean": "long",
}


@dataclass(frozen=True, slots=True)
class Leaf:
    """A column of the table, the field it comes from, and whether that may be null."""

    column: Column
    kind: Kind
    type: pa.DataType
    optional: bool

    @property
    def path(self) -> str:
        return ".".join(self.column.path)


def plain_leaves(schema: Schema) -> list[Leaf] | None:
    """All of a record type's leaf fields; None if one of them is no plain column (a list, a nullable int)."""
    leaves = []
    for column in record_columns(schema):
        type_, optional = _field(schema, column.path)
        wanted = _KINDS.get(kind(type_))
        if wanted is None or (wanted == "long" and optional):
            return None
        leaves.append(Leaf(column, wanted, arrow_type(type_), optional))
    return leaves


def _field(schema: Schema, path: Sequence[str]) -> tuple[Any, bool]:
    """(type of the field at a path, whether it or a record around it may be null)."""
    at: Any = schema
    optional = False
    for name in path:
        types = {field["name"]: field["type"] for field in at["fields"]}
        at, may_be_null = split_optional(types[name])
        optional |= may_be_null
    return at, optional


class ColumnBlocks:
    """Turns the records of one topic into tables; see `of`."""

    def __init__(self, codec: Codec, topic: Topic, leaves: Sequence[Leaf]) -> None:
        self._type = str(topic.schemas[0]["name"])
        self._leaves = leaves
        projection = {leaf.path: leaf.kind for leaf in leaves}
        self._decoder = ColumnDecoder(codec, topic.name, self._type, projection)

    @classmethod
    def of(cls, codec: Codec, topic: Topic) -> ColumnBlocks | None:
        """None unless the topic has one type of event, and that a plain one."""
        leaves = plain_leaves(topic.schemas[0]) if len(topic.schemas) == 1 else None
        return None if leaves is None else cls(codec, topic, leaves)

    def table(self, part: Part) -> tuple[pa.Table, list[int]]:
        """(rows, indices of the records that are none of them).

        Raises RegistryUnavailable, UnfitEvent or ArrowException: then nothing is said about any of them.
        """
        columns, bad = self._decoder.decode(
            Records.of(part.topic, part.partition, part.values, part.offsets, part.recorded_ms)
        )
        n = len(columns)
        arrays = {leaf.column.name: _array(leaf, columns.data[leaf.path]) for leaf in self._leaves}
        arrays["_type"] = pa.repeat(pa.scalar(self._type), n)
        arrays["_topic"] = pa.repeat(pa.scalar(part.topic), n)
        arrays["_partition"] = pa.array(np.full(n, part.partition, np.int32))
        arrays["_offset"] = pa.array(columns.offset)
        arrays["_recorded_at"] = pa.array(columns.recorded).cast(MS)
        return pa.table(arrays), [one.index for one in bad]


def _array(leaf: Leaf, values: Any) -> pa.Array:
    if leaf.kind == "double":
        found = pa.array(values, mask=_nulls(values))
    else:
        found = values if leaf.kind == "text" else pa.array(values)
    if found.null_count and not leaf.optional:
        raise UnfitEvent(f"{leaf.path} is missing")
    return found if found.type == leaf.type else found.cast(leaf.type)


def _nulls(values: NDArray[np.float64]) -> NDArray[np.bool_] | None:
    mask = is_null(values)
    return mask if mask.any() else None
