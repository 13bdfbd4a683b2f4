"""Bytes <-> events: Confluent wire format (0x00, 4-byte schema id, Avro body), old and new schemas alike.

Timestamps stay integers (ms): logical types are stripped before decoding.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, Protocol

import fastavro
from fastavro.validation import ValidationError

from schemas.catalogue import Schema, Topic
from schemas.encoding import Encode, Unfit, encoder
from schemas.errors import InvalidEvent, UndecodableEvent
from schemas.event import Event, Position
from schemas.registry.canonical import canonical
from schemas.safety import UnsafeSchema, check_safe
from schemas.union import branches_of

MAX_EVENT_BYTES = 1_000_000
_HEADER = struct.Struct(">bI")
_STRICT: dict[str, Any] = {"strict": True, "disable_tuple_notation": True}
_ENVELOPE = ("string", "long")


class SchemaRegistry(Protocol):
    """What the codec asks of a registry client (both calls are cached there)."""

    def schema_by_id(self, schema_id: int) -> Any:
        """The parsed JSON schema; raises UnknownSchema or RegistryUnavailable."""

    def schema_id(self, subject: str, schema: Any) -> int:
        """The id of a schema that is registered under `subject`; registers it if it is not."""


Branch = tuple[str, Any, Any]
"""(event type, writer's schema, reader's schema or None where it would change nothing)."""

Writer = tuple[bytes, Any, Encode]
"""(first bytes of every event, schema, encoder of the rest)."""


class Codec:
    """Encodes and decodes the events of the topics it is given; other topics decode as written."""

    def __init__(self, registry: SchemaRegistry, topics: Iterable[Topic]) -> None:
        self._registry = registry
        self._topics = {topic.name: topic for topic in topics}
        self._types = {
            topic.name: frozenset(schema["name"] for schema in topic.schemas)
            for topic in self._topics.values()
        }
        self._writers: dict[str, dict[str, Writer]] = {}
        self._readers: dict[str, Any] = {
            _full_name(schema): _parse(schema)
            for topic in self._topics.values()
            for schema in topic.schemas
        }
        self._written: dict[int, list[Branch]] = {}
        self._refused: dict[int, str] = {}

    def topic(self, name: str) -> Topic:
        """The catalogue entry; raises KeyError."""
        return self._topics[name]

    def encode(self, event: Event) -> bytes:
        """Raises InvalidEvent if a value does not fit the schema, or what the registry client raises."""
        branches = self._writers.get(event.topic) or self._writer(event.topic)
        if event.type not in branches:
            raise InvalidEvent(f"{event.topic} carries {', '.join(branches)}, not {event.type}")
        start, schema, write = branches[event.type]
        body: bytes | None
        try:
            body = write(event.data)
        except Unfit:
            body = None
        payload = start + (_write(schema, event) if body is None else body)
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
        branches = self.written(schema_id)
        body = io.BytesIO(value)
        body.seek(_HEADER.size)
        index = _read_branch(body) if len(branches) > 1 else 0
        if not 0 <= index < len(branches):
            raise UndecodableEvent(f"union branch {index} of {len(branches)} in schema {schema_id}")
        name, writer, reader = branches[index]
        if not self.belongs(at.topic, name):
            raise UndecodableEvent(f"{name} does not belong on {at.topic}")
        if reader is not None:
            body = _Whole(value)
            body.seek(_HEADER.size + (len(branches) > 1))
        try:
            data: Any = fastavro.schemaless_reader(body, writer, reader)
        except Exception as error:  # fastavro raises whatever the bytes lead it to
            said = str(error).partition(" from <_io")[0]  # an address would differ each time
            raise UndecodableEvent(f"schema {schema_id}: {type(error).__name__}: {said}") from error
        if body.tell() != len(value):
            raise UndecodableEvent(f"{len(value) - body.tell()} bytes after the end of the event")
        return Event(at.topic, name, data, at, recorded_ms)

    def written(self, schema_id: int) -> list[Branch]:
        """The event types of a writer's schema; raises UndecodableEvent or RegistryUnavailable."""
        return self._written.get(schema_id) or self._learn(schema_id)

    def reader(self, topic: str, event_type: str) -> Any:
        """The parsed schema that events of the catalogue are read with; raises KeyError."""
        return self._readers[_full_name(self._topics[topic].schema(event_type))]

    def knows(self, topic: str) -> bool:
        """Whether the catalogue has the topic."""
        return topic in self._topics

    def belongs(self, topic: str, event_type: str) -> bool:
        """Whether the catalogue lets `topic` carry the type; a topic that it does not know carries any."""
        types = self._types.get(topic)
        return types is None or event_type in types

    def _writer(self, name: str) -> dict[str, Writer]:
        topic = self._topics.get(name)
        if topic is None:
            raise InvalidEvent(f"no topic {name} is in the catalogue")
        schema_id = self._registry.schema_id(topic.subject, topic.value_schema)
        writers: dict[str, Writer] = {}
        for index, schema in enumerate(topic.schemas):
            # The zigzag varint of a union branch below 64.
            branch = bytes([index << 1]) if len(topic.schemas) > 1 else b""
            parsed = _parse(schema)
            start = _HEADER.pack(0, schema_id) + branch
            writers[schema["name"]] = (start, parsed, encoder(parsed) or _unfit)
        self._writers[name] = writers
        return writers

    def _learn(self, schema_id: int) -> list[Branch]:
        if schema_id in self._refused:
            raise UndecodableEvent(self._refused[schema_id])
        written = self._registry.schema_by_id(schema_id)
        try:
            check_safe(written)  # a registry of somebody else may hold anything
            schemas = branches_of(written if isinstance(written, list) else [written])
            branches = [self._branch(schema) for schema in schemas]
        except Exception as error:  # fastavro raises whatever a foreign schema leads it to
            kind = "" if isinstance(error, UnsafeSchema) else f"{type(error).__name__}: "
            self._refused[schema_id] = f"schema {schema_id} cannot be used: {kind}{error}"
            raise UndecodableEvent(self._refused[schema_id]) from error
        self._written[schema_id] = branches
        return branches

    def _branch(self, schema: Any) -> Branch:
        if not isinstance(schema, dict) or schema.get("type") != "record":
            raise UnsafeSchema("it is no record")
        writer = _parse(schema)
        reader = self._readers.get(_full_name(schema))
        kinds = {field["name"]: _plain(field["type"]) for field in writer["fields"]}
        if reader is None and (kinds.get("event_id"), kinds.get("event_time")) != _ENVELOPE:
            raise UnsafeSchema("it is no event: event_id must be a string, event_time a long")
        # Resolution costs half as much again as reading: only where there is something to resolve.
        same = reader is not None and canonical(_bare(reader)) == canonical(_bare(writer))
        return str(schema["name"]).rpartition(".")[2], writer, None if same else reader


class _Whole(io.BytesIO):
    """Gives as many bytes as are asked for, or raises EOFError.

    fastavro looks at what it reads, but not at what it steps over (a field that the reader lacks): the end
    of the bytes would not stop it from stepping over 2^60 items of an array.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        if len(found) != size:
            raise EOFError(f"{size} bytes are announced, {len(found)} are there")
        return found


def check_finite(data: Mapping[str, Any], path: str = "") -> None:
    """Raises InvalidEvent for a NaN or an infinity anywhere in `data`."""
    for name, value in data.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidEvent(f"{path}{name}: {value} is not a finite number")
        if isinstance(value, Mapping):
            check_finite(value, f"{path}{name}.")


def without(schema: Any, members: frozenset[str]) -> Any:
    """A copy of a schema without these members, at every depth; defaults stay as they are."""
    if isinstance(schema, list):
        return [without(part, members) for part in schema]
    if isinstance(schema, dict):
        return {
            key: part if key == "default" else without(part, members)
            for key, part in schema.items()
            if key not in members
        }
    return schema


def _parse(schema: Schema) -> Any:
    """As fastavro wants it; no logical types, so that decoding gives plain numbers and strings."""
    plain = without(schema, frozenset({"logicalType"}))
    return fastavro.parse_schema(plain, named_schemas={})


def _bare(parsed: Any) -> Any:
    return without(parsed, frozenset({"doc", "__fastavro_parsed", "__named_schemas"}))


def _plain(kind: Any) -> Any:
    return _plain(kind["type"]) if isinstance(kind, dict) else kind


def _full_name(schema: Schema) -> str:
    name = str(schema["name"])
    namespace = schema.get("namespace")
    return f"{namespace}.{name}" if namespace and "." not in name else name


def _unfit(data: Any) -> NoReturn:
    raise Unfit(data)


def _write(schema: Any, event: Event) -> bytes:
    """fastavro's bytes of what the encoder leaves to it; raises InvalidEvent."""
    out = io.BytesIO()
    try:
        # The writer alone would cut 1.5 to 1 for an int and take any text for true.
        fits = fastavro.validate(event.data, schema, raise_errors=False, **_STRICT)
        if fits:
            fastavro.schemaless_writer(
                out, schema, event.data, strict_allow_default=True, disable_tuple_notation=True
            )
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise InvalidEvent(_why(schema, event, error)) from error
    if not fits:
        raise InvalidEvent(_why(schema, event, None))
    return out.getvalue()


def _read_branch(body: io.BytesIO) -> int:
    byte = body.read(1)
    return byte[0] >> 1 if byte and byte[0] < 128 and byte[0] % 2 == 0 else -1


def _why(schema: Any, event: Event, error: Exception | None) -> str:
    """One line: which field holds what, and what it should hold."""
    for field in schema["fields"]:
        if field["name"] not in event.data and "default" not in field:
            return f"{event.type}: {field['name']} is missing"
    try:
        fastavro.validate(event.data, schema, raise_errors=True, **_STRICT)
    except ValidationError as found:
        first = found.errors[0]
        fitting = [_kind(one.schema) for one in found.errors if one.field == first.field]
        name = str(first.field).rpartition(".")[2]
        return f"{event.type}: {name}: {_short(first.datum)} is not {' or '.join(fitting)}"
    return f"{event.type}: {error}"


def _kind(schema: Any) -> str:
    return str(schema.get("name", schema["type"]) if isinstance(schema, dict) else schema)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
