"""What the columnar tests share: a registry that is a dict, and the row codec as the oracle of columns."""

from __future__ import annotations

import io
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import fastavro
import numpy as np

from schemas.catalogue import Topic
from schemas.codec import Codec, without
from schemas.columnar import Columns, Kind, Records
from schemas.columnar.columns import NULL_CODE, UNKNOWN_CODE
from schemas.columnar.decoder import Bad, ColumnDecoder
from schemas.columnar.identity import hashed
from schemas.errors import RegistryUnavailable, UndecodableEvent, UnknownSchema
from schemas.event import Position
from tests.unit.schemas.build import framed

TOPIC = "demo.things"


@dataclass
class DictRegistry:
    """Schemas by id; `down` makes it silent."""

    schemas: dict[int, Any] = field(default_factory=dict)
    down: bool = False

    def schema_by_id(self, schema_id: int) -> Any:
        if self.down:
            raise RegistryUnavailable("the registry is down")
        if schema_id not in self.schemas:
            raise UnknownSchema(f"no schema has the id {schema_id}")
        return self.schemas[schema_id]

    def schema_id(self, subject: str, schema: Any) -> int:
        raise AssertionError(f"{subject} is only read here")


@dataclass
class Case:
    """A catalogue with one topic, a registry of writers' schemas, a projection."""

    reader: Any
    projection: Mapping[str, Kind]
    writers: dict[int, Any]
    event_type: str = "Thing"
    capacity: int = 1_000

    def __post_init__(self) -> None:
        self.registry = DictRegistry(self.writers)
        known = self.reader if isinstance(self.reader, list) else [self.reader]
        self.codec = Codec(self.registry, [Topic(TOPIC, tuple(known))] if self.reader else [])
        self.decoder = ColumnDecoder(
            self.codec, TOPIC, self.event_type, self.projection, self.capacity
        )

    def write(self, schema_id: int, data: Any) -> bytes:
        """A payload as a foreign writer makes it; `data` is (name, record) for a union of records."""
        plain = without(self.writers[schema_id], frozenset({"logicalType"}))
        return encoded(schema_id, fastavro.parse_schema(plain, named_schemas={}), data)

    def decode(self, payloads: Sequence[bytes | None]) -> tuple[Columns, list[Bad]]:
        return self.decoder.decode(Records.of(TOPIC, 3, payloads))

    def agree(self, payloads: Sequence[bytes | None]) -> tuple[Columns, list[Bad]]:
        """Decode, and check every row, verdict and reason against the row codec."""
        columns, bad = self.decode(payloads)
        wanted = by_rows(self.codec, self.event_type, self.projection, payloads)
        assert {one.index: str(one.error) for one in bad} == wanted.bad
        assert [one.index for one in bad] == sorted(wanted.bad)
        assert columns.offset.tolist() == [offset for offset, _ in wanted.rows]
        assert columns.others.tolist() == wanted.others
        for path, kind in self.projection.items():
            texts = self.decoder.dictionaries[path].values if kind == "code" else []
            found = cells(columns.data[path], kind, texts)
            expected = [expectation(values[path], kind) for _, values in wanted.rows]
            assert found == expected, path
            if kind == "code" and len(texts) < self.capacity:
                assert set(texts) >= {text for text in expected if text is not None}
        return columns, bad


def encoded(schema_id: int, parsed: Any, data: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, parsed, data)
    return framed(schema_id, out.getvalue())


@dataclass
class Wanted:
    rows: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    others: list[int] = field(default_factory=list)
    bad: dict[int, str] = field(default_factory=dict)


def by_rows(
    codec: Codec, event_type: str, projection: Mapping[str, Kind], payloads: Sequence[bytes | None]
) -> Wanted:
    """What the row codec makes of each payload."""
    wanted = Wanted()
    for offset, payload in enumerate(payloads):
        try:
            event = codec.decode(Position(TOPIC, 3, offset), payload)
        except UndecodableEvent as error:
            wanted.bad[offset] = str(error)
            continue
        if event.type == event_type:
            wanted.rows.append((offset, {path: _at(event.data, path) for path in projection}))
        else:
            wanted.others.append(offset)
    return wanted


def expectation(value: Any, kind: Kind) -> Any:
    """A field's value as `cells` shows its column."""
    if kind == "double":
        return "nan" if value is None or math.isnan(value) else float(value)
    if kind == "long":
        return value or 0
    if kind == "id":
        return 0 if value is None else identity(value)
    return value


def identity(text: str) -> int:
    """128 bits of an id, the UUID part by Python's own parser."""
    try:
        if str(uuid.UUID(text)) == text:
            return uuid.UUID(text).int
    except ValueError:
        pass
    held = np.frombuffer(text.encode() + b"\0", np.uint8)
    high, low = hashed(held.ctypes.data, len(text.encode()))
    return int(high) << 64 | int(low)


def cells(values: Any, kind: Kind, texts: Sequence[str]) -> list[Any]:
    """A column as plain values: codes as their texts, NaN as 'nan', ids as 128-bit numbers."""
    if kind == "text":
        values.validate(full=True)
        return list(values.to_pylist())
    if kind == "double":
        return ["nan" if value != value else value for value in values.tolist()]
    if kind == "id":
        return [high << 64 | low for high, low in values.tolist()]
    if kind == "code":
        named = {NULL_CODE: None, UNKNOWN_CODE: "unknown"}
        return [named[code] if code < 0 else texts[code] for code in values.tolist()]
    return list(values.tolist())


def _at(data: Any, path: str) -> Any:
    for name in path.split("."):
        data = None if data is None else data.get(name)
    return data
