"""Bytes <-> events: Confluent wire format (0x00, 4-byte schema id, Avro body), old and new schemas alike.

Timestamps stay integers (ms): logical types are stripped before decoding.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import fastavro
from fastavro.validation import ValidationError

from schemas.catalogue import Schema, Topic
from schemas.errors import InvalidEvent, UndecodableEvent
from schemas.event import Event, Position

MAX_EVENT_BYTES = 1_000_000
_HEADER = struct.Struct(">bI")


class SchemaRegistry(Protocol):
    """What the codec asks of a registry client (both calls are cached there)."""

    def schema_by_id(self, schema_id: int) -> Any:
        """The parsed JSON schema; raises UnknownSchema or RegistryUnavailable."""

    def schema_id(self, subject: str, schema: Any) -> int:
        """The id of a schema that is registered under `subject`; registers it if it is not."""


class Codec:
    """Encodes and decodes the events of the topics it is given; other topics decode as written."""

    def __init__(self, registry: SchemaRegistry, topics: Iterable[Topic]) -> None:
        self._registry = registry
        self._topics = {topic.name: topic for topic in topics}
        self._writers: dict[str, tuple[int, dict[str, tuple[int, Any]]]] = {}
        self._readers: dict[str, Any] = {
            _full_name(schema): _parse(schema)
            for topic in self._topics.values()
            for schema in topic.schemas
        }
        self._written: dict[int, list[tuple[str, Any, Any]]] = {}

    def topic(self, name: str) -> Topic:
        """The catalogue entry; raises KeyError."""
        return self._topics[name]

    def encode(self, event: Event) -> bytes:
        """Raises InvalidEvent if a value does not fit the schema."""
        topic = self._topics[event.topic]
        if topic.name not in self._writers:
            branches = {
                schema["name"]: (index, _parse(schema))
                for index, schema in enumerate(topic.schemas)
            }
            schema_id = self._registry.schema_id(topic.subject, topic.value_schema)
            self._writers[topic.name] = (schema_id, branches)
        schema_id, branches = self._writers[topic.name]
        index, schema = branches[event.type]
        out = io.BytesIO()
        out.write(_HEADER.pack(0, schema_id))
        if len(branches) > 1:
            out.write(bytes([index << 1]))  # zigzag varint of a union branch below 64
        try:
            fastavro.schemaless_writer(out, schema, event.data, strict_allow_default=True)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise InvalidEvent(_why(schema, event, error)) from error
        payload = out.getvalue()
        if len(payload) > MAX_EVENT_BYTES:
            raise InvalidEvent(f"{event.type}: {len(payload)} bytes, more than {MAX_EVENT_BYTES}")
        return payload

    def key(self, event: Event) -> bytes:
        """The record key: the field that the catalogue names."""
        return str(event.data[self._topics[event.topic].key]).encode()

    def decode(self, at: Position, value: bytes | None, recorded_ms: int = 0) -> Event:
        """Raises UndecodableEvent (poison: dead-letter it) or RegistryUnavailable (try again later)."""
        if value is None or len(value) < _HEADER.size or value[0] != 0:
            raise UndecodableEvent(
                "not in Confluent wire format (0x00, 4-byte schema id, Avro body)"
            )
        if len(value) > MAX_EVENT_BYTES:
            raise UndecodableEvent(f"{len(value)} bytes, more than {MAX_EVENT_BYTES}")
        schema_id = _HEADER.unpack_from(value)[1]
        branches = self._written.get(schema_id) or self._learn(schema_id)
        body = io.BytesIO(value)
        body.seek(_HEADER.size)
        index = _read_branch(body) if len(branches) > 1 else 0
        if not 0 <= index < len(branches):
            raise UndecodableEvent(f"union branch {index} of {len(branches)} in schema {schema_id}")
        name, writer, reader = branches[index]
        try:
            data = fastavro.schemaless_reader(body, writer, reader)
        except Exception as error:  # fastavro raises whatever the bytes lead it to
            raise UndecodableEvent(
                f"schema {schema_id}: {type(error).__name__}: {error}"
            ) from error
        if body.tell() != len(value):
            raise UndecodableEvent(f"{len(value) - body.tell()} bytes after the end of the event")
        if not isinstance(data, dict) or "event_id" not in data or "event_time" not in data:
            raise UndecodableEvent(f"schema {schema_id} is no event: no event_id or event_time")
        return Event(at.topic, name, data, at, recorded_ms)

    def _learn(self, schema_id: int) -> list[tuple[str, Any, Any]]:
        written = self._registry.schema_by_id(schema_id)
        branches = []
        for schema in written if isinstance(written, list) else [written]:
            if not isinstance(schema, dict) or schema.get("type") != "record":
                raise UndecodableEvent(f"schema {schema_id} is no record")
            writer = _parse(schema)
            reader = self._readers.get(_full_name(schema))
            branches.append((str(schema["name"]).rpartition(".")[2], writer, reader))
        self._written[schema_id] = branches
        return branches


def check_finite(data: Mapping[str, Any], path: str = "") -> None:
    """Raises InvalidEvent for a NaN or an infinity anywhere in `data`."""
    for name, value in data.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidEvent(f"{path}{name}: {value} is not a finite number")
        if isinstance(value, Mapping):
            check_finite(value, f"{path}{name}.")


def strip_logical_types(schema: Any) -> Any:
    """The schema without `logicalType`, so that decoding gives plain numbers and strings."""
    if isinstance(schema, list):
        return [strip_logical_types(part) for part in schema]
    if isinstance(schema, dict):
        return {
            key: part if key == "default" else strip_logical_types(part)
            for key, part in schema.items()
            if key != "logicalType"
        }
    return schema


def _parse(schema: Schema) -> Any:
    return fastavro.parse_schema(strip_logical_types(schema), named_schemas={})


def _full_name(schema: Schema) -> str:
    name = str(schema["name"])
    namespace = schema.get("namespace")
    return f"{namespace}.{name}" if namespace and "." not in name else name


def _read_branch(body: io.BytesIO) -> int:
    byte = body.read(1)
    return byte[0] >> 1 if byte and byte[0] < 128 and byte[0] % 2 == 0 else -1


def _why(schema: Any, event: Event, error: Exception) -> str:
    try:
        fastavro.validate(event.data, schema, strict=True)
    except ValidationError as found:
        first = found.errors[0]
        return f"{event.type}: {first.field}: {first.datum!r} is not {first.schema}"
    return f"{event.type}: {error}"
