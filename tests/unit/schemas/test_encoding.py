"""What the generated encoders write is what fastavro writes after a strict check, or nothing."""

from __future__ import annotations

import array
import collections
import decimal
import enum
import fractions
import io
import itertools
import types
from collections.abc import Iterator
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.catalogue import Topic, system_topics, task_topics
from schemas.codec import MAX_EVENT_BYTES, Codec, without
from schemas.encoding import Unfit, encoder
from schemas.errors import InvalidEvent
from schemas.event import Event
from schemas.registry.service import LocalRegistry
from schemas.varints import VARINTS
from tests.unit.schemas.build import field, prediction, record

MANY = settings(max_examples=400, deadline=None)
PRIMITIVES = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"]
ODD: list[Any] = [
    *({"type": "array", "items": kind} for kind in ("int", "long", "double", "string")),
    *({"type": "map", "values": kind} for kind in ("long", "null")),
    *({"type": "fixed", "name": "F", "size": 2}, {"type": "enum", "name": "E", "symbols": ["A"]}),
    *(["null", "int", "long", "string"], ["float", "int"], ["int", "double"], ["boolean", "long"]),
    record(field("a", "int", default=1)),
]
EDGES = [
    n + d for n in (0, 1 << 6, 1 << 13, 1 << 31, 1 << 53, 1 << 63, 1 << 64) for d in (-1, 0, 1)
]
TASK = task_topics("demo", {"distance": "double", "carrier": "string"}, ["wind"])
TOPICS = [*system_topics(), *TASK]
CODEC = Codec(LocalRegistry(), TOPICS)
SCHEMAS = [(topic, schema) for topic in TOPICS for schema in topic.schemas]


class Text(str):
    pass


class Count(int):
    pass


class Rank(enum.IntEnum):
    FIRST = 1


class Named(dict[str, Any]):
    pass


class Items(list[Any]):
    pass


integers = st.integers(-70, 70) | st.sampled_from(EDGES) | st.sampled_from([-n for n in EDGES])
floats = st.floats() | st.sampled_from([1e300, 3.4028235677973366e38, 1e-46, -0.0])
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5) | st.sampled_from("AB")
RARE: list[Any] = [
    *(Text("A"), Count(1), Rank.FIRST, Named(a=1), Items([1]), "\ud800", "é" * 100, 10**400),
    *(np.int32(5), np.int64(5), np.float32(0.5), np.float64(0.5), np.bool_(True), np.str_("A")),
    *(
        fractions.Fraction(1, 3),
        decimal.Decimal(1),
        1j,
        object(),
        ...,
        type,
        {1},
        {1: 1},
        {"-type": 1},
    ),
    *((), (1, 2), ("long", 1), ("string", "A"), range(3), array.array("q", [1, 2]), np.arange(3)),
    *(bytearray(b"ab"), memoryview(b"ab"), types.MappingProxyType({"a": 1}), iter([1])),
    *(collections.UserDict(a=1), collections.UserList([1]), collections.deque([1])),
]
junk = st.one_of(
    *(st.none(), st.booleans(), integers, floats, texts, st.binary(max_size=4)),
    *(st.lists(integers, max_size=3), st.lists(st.booleans() | integers, max_size=3)),
    st.dictionaries(texts, integers | texts, max_size=2),
    st.sampled_from(RARE),
)


DEFAULTS = {
    "null": None,
    "boolean": True,
    "int": 7,
    "long": -7,
    "double": 0.5,
    "float": 0.25,
    "string": "é",
}
DEFAULTS |= {"bytes": "\u00ff", "array": [], "map": {}, "enum": "B"}


def kind_of(schema: Any) -> str:
    return str(schema["type"] if isinstance(schema, dict) else schema)


def named(schema: Any) -> Iterator[tuple[str, Any]]:
    """The types that are defined somewhere in a schema."""
    if isinstance(schema, list):
        for branch in schema:
            yield from named(branch)
    elif isinstance(schema, dict):
        if "name" in schema:
            yield schema["name"], schema
        parts = [one["type"] for one in schema.get("fields", [])]
        yield from named([*parts, schema.get("items"), schema.get("values")])


class Schemas:
    """Draws schemas whose names are unique; a name may be used again."""

    def __init__(self, draw: Any) -> None:
        self._draw, self._numbers, self._known = draw, itertools.count(), ["string"]

    def any(self, depth: int, branch: bool = False) -> Any:
        leaves = ["primitive", "primitive", "object", "enum", "fixed", "again"]
        leaves += [] if branch else ["nullable"]
        nodes = ["array", "map", "record", "record", "record"] if depth else []
        nodes += [] if branch or not depth else ["union"]
        return getattr(self, f"_{self._draw(st.sampled_from([*nodes, *leaves]))}")(depth - 1)

    def _primitive(self, depth: int) -> Any:
        return self._draw(st.sampled_from(PRIMITIVES))

    def _object(self, depth: int) -> Any:
        return {"type": self._primitive(depth), "note": "as an object"}

    def _again(self, depth: int) -> Any:
        return self._draw(st.sampled_from(self._known))

    def _nullable(self, depth: int) -> Any:
        other = self._draw(st.sampled_from(["double", "double", *PRIMITIVES[1:]]))
        return self._draw(st.sampled_from([["null", other], [other, "null"]]))

    def _union(self, depth: int) -> Any:
        branches = [self.any(depth, branch=True) for _ in range(self._draw(st.integers(1, 4)))]
        return list({str(branch): branch for branch in branches}.values())

    def _array(self, depth: int) -> Any:
        return {"type": "array", "items": self.any(depth)}

    def _map(self, depth: int) -> Any:
        return {"type": "map", "values": self.any(depth)}

    def _enum(self, depth: int) -> Any:
        return self._name({"type": "enum", "symbols": ["A", "B", "C"]})

    def _fixed(self, depth: int) -> Any:
        return self._name({"type": "fixed", "size": self._draw(st.integers(1, 3))})

    def _record(self, depth: int) -> Any:
        fields = [field(f"f{n}", self.any(depth)) for n in range(self._draw(st.integers(0, 5)))]
        for one in fields:
            first = one["type"][0] if isinstance(one["type"], list) else one["type"]
            if kind_of(first) in DEFAULTS and self._draw(st.booleans()):
                one["default"] = DEFAULTS[kind_of(first)]
        return self._name({"type": "record", "fields": fields})

    def _name(self, schema: Any) -> Any:
        name = f"T{next(self._numbers)}"
        self._known.append(name)
        return {**schema, "name": name}


class Values:
    """Draws values for a schema; some of them wrong or of rare kinds if it is so `careless`."""

    def __init__(self, draw: Any, careless: bool, schema: Any) -> None:
        self._draw, self._careless = draw, careless
        self._named = dict(named(schema))

    def any(self, schema: Any) -> Any:
        if isinstance(schema, str):
            schema = self._named.get(schema, {"type": schema})
        if isinstance(schema, list):
            return self.any(self._draw(st.sampled_from(schema)))
        right = self._right(schema)
        if self._careless and self._draw(st.integers(0, 9)) == 9:
            return self._draw(junk)
        return right

    def _right(self, schema: Any) -> Any:
        match schema["type"]:
            case "record":
                return self._record(schema["fields"])
            case "array":
                return [self.any(schema["items"]) for _ in range(self._draw(st.integers(0, 3)))]
            case "map":
                keys = self._draw(st.lists(texts, max_size=3))
                return {key: self.any(schema["values"]) for key in keys}
            case "enum":
                return self._draw(st.sampled_from(schema["symbols"]))
            case "fixed":
                return self._draw(st.binary(min_size=schema["size"], max_size=schema["size"]))
        return self._draw(PLAIN[schema["type"]])

    def _record(self, fields: list[Any]) -> dict[Any, Any]:
        found = {one["name"]: self.any(one["type"]) for one in fields}
        for one in fields:
            if ("default" in one or self._careless) and self._draw(st.integers(0, 9)) == 9:
                del found[one["name"]]
        if self._careless and self._draw(st.integers(0, 9)) == 9:
            found[self._draw(st.sampled_from(["f9", "-type", "", 1, Text("f0")]))] = 1
        return found


PLAIN = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1) | st.integers(-70, 70),
    "float": st.floats(width=32) | st.integers(-9, 9),
    "double": st.floats() | st.integers(-(2**62), 2**62),
    "bytes": st.binary(max_size=5),
    "string": texts,
}


def strictly(schema: Any, value: Any) -> bytes | None:
    """fastavro's bytes of a value that passes its check."""
    out = io.BytesIO()
    try:
        if not fastavro.validate(
            value, schema, raise_errors=False, strict=True, disable_tuple_notation=True
        ):
            return None
        fastavro.schemaless_writer(
            out, schema, value, strict_allow_default=True, disable_tuple_notation=True
        )
    except Exception:
        return None
    return out.getvalue()


def tried(schema: Any, value: Any) -> bytes | None:
    encode = encoder(schema)
    if encode is None:
        return None
    try:
        return encode(value)
    except Unfit:
        return None


def parsed(schema: Any) -> Any:
    return fastavro.parse_schema(without(schema, frozenset({"logicalType"})), named_schemas={})


@st.composite
def drawn(draw: Any, careless: bool) -> tuple[Any, Any]:
    schema = parsed(Schemas(draw).any(3))
    return schema, Values(draw, careless, schema).any(schema)


@MANY
@given(drawn(careless=True))
def test_what_is_written_fastavro_checks_and_writes_alike(case: tuple[Any, Any]) -> None:
    written = tried(*case)
    if written is not None:
        assert written == strictly(*case)


@MANY
@given(drawn(careless=False))
def test_plain_values_that_fit_are_not_left_to_fastavro(case: tuple[Any, Any]) -> None:
    """But for a default that is no value: bytes stand in a schema as text."""
    schema, value = case
    if encoder(schema) is not None and "\u00ff" not in str(schema):
        assert tried(schema, value) == strictly(schema, value) is not None


@pytest.mark.parametrize("schema", [*PRIMITIVES, *ODD], ids=str)
def test_every_kind_of_value_against_every_type(schema: Any) -> None:
    plain = parsed(schema)
    single = [None, True, False, 0.5, 1.0, float("nan"), "A", b"ab", b"", *EDGES, *RARE]
    inside = [[], {}, *([one] for one in single), *([1, one] for one in single)]
    for value in (*single, *inside, *({"a": one} for one in single)):
        written = tried(plain, value)
        if written is not None:
            assert written == strictly(plain, value), value


@pytest.mark.parametrize("value", EDGES)
def test_varints_at_their_edges(value: int) -> None:
    for number in (value, -value):
        assert tried("long", number) == strictly("long", number)
        assert tried("int", number) == strictly("int", number)


def test_varints_are_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("schemas.varints.KEPT_VARINTS", 10)
    array_of_longs = parsed({"type": "array", "items": "long"})
    values = list(range(-50, 50))
    for _ in range(2):
        assert tried(array_of_longs, values) == strictly(array_of_longs, values)
    assert len(VARINTS) <= 10


@pytest.mark.parametrize(
    "schema",
    [
        record(field("next", ["null", "demo.Thing"])),
        ["float", "double"],
        [{"type": "map", "values": "int"}, record(field("x", "int"))],
        ["bytes", {"type": "array", "items": "int"}],
        {"type": "error", "name": "E", "fields": []},
    ],
)
def test_what_is_left_to_fastavro(schema: Any) -> None:
    assert encoder(parsed(schema)) is None


def test_logical_types_are_left_to_fastavro() -> None:
    schema = {"type": "long", "logicalType": "timestamp-millis"}
    assert encoder(fastavro.parse_schema(schema)) is None


@pytest.mark.parametrize(
    ("topic", "schema"), SCHEMAS, ids=[schema["name"] for _, schema in SCHEMAS]
)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_events_of_the_catalogue(topic: Topic, schema: Any, data: st.DataObject) -> None:
    """The codec's bytes are fastavro's, and it refuses what fastavro refuses."""
    plain = parsed(schema)
    assert encoder(plain) is not None
    value = Values(data.draw, data.draw(st.booleans()), plain).any(plain)
    wanted = strictly(plain, value)
    try:
        written = CODEC.encode(Event(topic.name, schema["name"], value))
    except (InvalidEvent, TypeError, AttributeError):
        assert wanted is None
    else:
        assert written[5 + (len(topic.schemas) > 1) :] == wanted


def test_rare_values_are_written_and_wrong_ones_explained_as_before() -> None:
    event = prediction(score=np.float64(0.25), label=np.int64(0), model_version=Text("demo-1"))
    assert CODEC.encode(event) == CODEC.encode(prediction())
    with pytest.raises(InvalidEvent, match=r"label: np\.float64\(0\.5\) is not int"):
        CODEC.encode(prediction(label=np.float64(0.5)))


def test_an_event_may_have_so_many_bytes_and_no_more() -> None:
    rest = MAX_EVENT_BYTES - len(CODEC.encode(prediction(model_version="x" * 100_000))) + 100_000
    assert len(CODEC.encode(prediction(model_version="x" * rest))) == MAX_EVENT_BYTES
    with pytest.raises(InvalidEvent, match="PredictionMade: 1000001 bytes, more than 1000000"):
        CODEC.encode(prediction(model_version="x" * (rest + 1)))
