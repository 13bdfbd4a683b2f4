"""Records as Arrow blocks without a Python object per event, for topics whose events are plain.

The same rows as `blocks.EventBlocks` makes of the events, an order of magnitude faster. What is not plain, or
not what it should be, is left to the row codec, which knows what to say about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from consumers.history.blocks import MS, UnfitEvent, arrow_type
from consumers.history.columns import Leaf, kind, leaves
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


def plain_leaves(schema: Schema) -> list[tuple[Leaf, Kind]] | None:
    """All of a record type's leaves; None if one of them is no plain column (a list, a nullable int)."""
    found = []
    for leaf in leaves(schema):
        wanted = _KINDS.get(kind(leaf.type))
        if wanted is None or (wanted == "long" and leaf.optional):
            return None
        found.append((leaf, wanted))
    return found


class ColumnBlocks:
    """Turns the records of one topic into tables; see `of`."""

    def __init__(self, codec: Codec, topic: Topic, plain: Sequence[tuple[Leaf, Kind]]) -> None:
        self._type = str(topic.schemas[0]["name"])
        self._leaves = [(".".join(leaf.path), leaf, arrow_type(leaf.type)) for leaf, _ in plain]
        projection = {".".join(leaf.path): wanted for leaf, wanted in plain}
        self._decoder = ColumnDecoder(codec, topic.name, self._type, projection)

    @classmethod
    def of(cls, codec: Codec, topic: Topic) -> ColumnBlocks | None:
        """None unless the topic has one type of event, and that a plain one."""
        plain = plain_leaves(topic.schemas[0]) if len(topic.schemas) == 1 else None
        return None if plain is None else cls(codec, topic, plain)

    def table(self, part: Part) -> tuple[pa.Table, list[int]]:
        """(rows, indices of the records that are none of them).

        Raises RegistryUnavailable, UnfitEvent or ArrowException: then nothing is said about any of them.
        """
        columns, bad = self._decoder.decode(
            Records.of(part.topic, part.partition, part.values, part.offsets, part.recorded_ms)
        )
        n = len(columns)
        arrays = {
            leaf.name: _array(leaf, type_, columns.data[path]) for path, leaf, type_ in self._leaves
        }
        arrays["_type"] = pa.repeat(pa.scalar(self._type), n)
        arrays["_topic"] = pa.repeat(pa.scalar(part.topic), n)
        arrays["_partition"] = pa.array(np.full(n, part.partition, np.int32))
        arrays["_offset"] = pa.array(columns.offset)
        arrays["_recorded_at"] = pa.array(columns.recorded).cast(MS)
        return pa.table(arrays), [one.index for one in bad]


def _array(leaf: Leaf, type_: pa.DataType, values: Any) -> pa.Array:
    if isinstance(values, pa.Array):
        found = values
    else:
        found = pa.array(values, mask=_nulls(values) if values.dtype.kind == "f" else None)
    if found.null_count and not leaf.optional:
        raise UnfitEvent(f"{leaf.name} is missing")
    return found if found.type == type_ else found.cast(type_)


def _nulls(values: NDArray[np.float64]) -> NDArray[np.bool_] | None:
    mask = is_null(values)
    return mask if mask.any() else None
