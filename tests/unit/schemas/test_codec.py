from __future__ import annotations

import io
import math
import struct
from typing import Any

import fastavro
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.catalogue import Topic, load_schema
from schemas.codec import MAX_EVENT_BYTES, Codec, check_finite
from schemas.errors import InvalidEvent, RegistryUnavailable, UndecodableEvent, UnknownSchema
from schemas.event import Event
from schemas.registry.service import LocalRegistry
from tests.unit.schemas.build import (
    START,
    alert,
    at,
    bomb,
    event_record,
    field,
    framed,
    prediction,
    record,
)

ANY_CODEC = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
finite = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)

GOLDEN = (
    b"\x00\x00\x00\x00\x01"
    b"\x48eaacea92-4e4e-57f5-9c88-271c9eeec893"
    b"\x80\xa0\xab\xfe\xf9\x62"
    b"\x00"
    b"\x0cdemo-1"
    b"\x00\x00\x00\x00\x00\x00\xd0\x3f"
    b"\x00"
    b"\x02\x00\x00\x00\x00\x00\x64\x89\x40\x02\x04UA"
    b"\x00"
    b"\x00"
)
"""prediction() under schema 1, written down field by field."""


def test_golden_bytes_of_one_event(codec: Codec) -> None:
    assert codec.encode(prediction()).hex() == GOLDEN.hex()
    event = codec.decode(at("demo.predictions", 7), GOLDEN, recorded_ms=5)
    assert event == Event(
        "demo.predictions", "PredictionMade", prediction().data, at("demo.predictions", 7), 5
    )


def test_bytes_are_those_of_any_avro_writer(codec: Codec, topics: list[Topic]) -> None:
    """fastavro's own union writer over the registered union gives the same body."""
    union = fastavro.parse_schema(
        next(t for t in topics if t.name == "driftlog.alerts").value_schema
    )
    for kind in ("AlertRaised", "AlertResolved"):
        event, out = alert(kind), io.BytesIO()
        fastavro.schemaless_writer(out, union, (f"driftlog.{kind}", event.data))
        assert codec.encode(event)[5:] == out.getvalue()


@ANY_CODEC
@given(
    score=finite,
    label=st.integers(0, 1),
    distance=st.none() | finite,
    carrier=st.none() | texts,
    version=texts,
    time=st.integers(-(2**63), 2**63 - 1),
)
def test_round_trip(
    codec: Codec,
    score: float,
    label: int,
    distance: float | None,
    carrier: str | None,
    version: str,
    time: int,
) -> None:
    features = {"distance": distance, "carrier": carrier}
    event = prediction(score=score, label=label, features=features, model_version=version)
    event = Event(event.topic, event.type, {**event.data, "event_time": time})
    assert codec.decode(at(event.topic), codec.encode(event)).data == event.data


@ANY_CODEC
@given(kind=st.sampled_from(["AlertRaised", "AlertResolved"]), message=texts)
def test_round_trip_of_a_topic_with_several_types(codec: Codec, kind: str, message: str) -> None:
    decoded = codec.decode(at("driftlog.alerts"), codec.encode(alert(kind, message=message)))
    assert (decoded.type, decoded.data["message"]) == (kind, message)


@ANY_CODEC
@given(st.binary(max_size=300))
def test_random_bytes_are_undecodable_and_nothing_else(codec: Codec, noise: bytes) -> None:
    codec.encode(alert())  # schema 1 is known, so that some noise reaches the decoder
    for value in (noise, framed(1, noise)):
        with pytest.raises(UndecodableEvent):
            codec.decode(at("driftlog.alerts"), value)


@ANY_CODEC
@given(data=st.data())
def test_flipped_bytes_give_an_event_or_a_refusal(codec: Codec, data: st.DataObject) -> None:
    value = bytearray(codec.encode(prediction()))
    for _ in range(data.draw(st.integers(1, 4))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    try:
        event = codec.decode(at("demo.predictions"), bytes(value))
    except UndecodableEvent:
        return
    assert isinstance(event.id, str) and isinstance(event.time, int)


def test_every_truncation_is_refused(codec: Codec) -> None:
    whole = codec.encode(prediction())
    for length in range(len(whole)):
        with pytest.raises(UndecodableEvent):
            codec.decode(at("demo.predictions"), whole[:length])


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "wire format"),
        (b"", "wire format"),
        (b'{"json": 1}', "wire format"),
        (GOLDEN + b"\x00", "1 bytes after the end"),
        (GOLDEN + b"\x00" * MAX_EVENT_BYTES, "more than 1000000"),
    ],
)
def test_what_is_wrong_is_said(codec: Codec, value: bytes | None, why: str) -> None:
    codec.encode(prediction())
    with pytest.raises(UndecodableEvent, match=why):
        codec.decode(at("demo.predictions"), value)


def test_an_unknown_schema_id_is_named(codec: Codec) -> None:
    with pytest.raises(UnknownSchema, match="999"):
        codec.decode(at("demo.predictions"), framed(999, b""))


def test_a_registry_that_is_down_is_no_poison(topics: list[Topic]) -> None:
    class Down:
        def schema_by_id(self, schema_id: int) -> Any:
            raise RegistryUnavailable(f"no answer about {schema_id}")

        def schema_id(self, subject: str, schema: Any) -> int:
            raise RegistryUnavailable(subject)

    codec = Codec(Down(), topics)
    with pytest.raises(RegistryUnavailable):
        codec.decode(at("demo.predictions"), GOLDEN)
    with pytest.raises(RegistryUnavailable):
        codec.encode(prediction())


def test_a_type_of_another_topic_is_refused(codec: Codec) -> None:
    with pytest.raises(UndecodableEvent, match=r"AlertRaised does not belong on demo\.predictions"):
        codec.decode(at("demo.predictions"), codec.encode(alert()))


def test_a_union_branch_out_of_range_is_refused(codec: Codec) -> None:
    good = codec.encode(alert())
    for index in (b"\x04", b"\x01", b"\xff", b""):
        with pytest.raises(UndecodableEvent, match="union branch"):
            codec.decode(at("driftlog.alerts"), good[:5] + index + good[6:])


class Foreign:
    """A registry of somebody else, which checked nothing."""

    def __init__(self, *schemas: Any) -> None:
        self._schemas = schemas

    def schema_by_id(self, schema_id: int) -> Any:
        if not 0 < schema_id <= len(self._schemas):
            raise UnknownSchema(str(schema_id))
        return self._schemas[schema_id - 1]

    def schema_id(self, subject: str, schema: Any) -> int:
        return self._schemas.index(schema) + 1


@pytest.mark.parametrize(
    ("schema", "body", "why"),
    [
        (bomb(), b"\x02a\x00" + b"\x02" * 900_000, "contains itself"),
        (
            event_record(field("nothing", {"type": "array", "items": "null"})),
            b"\x02a\x00" + b"\xfe\xff\xff\xff\xff\x3f\x00",
            "take no bytes",
        ),
        ("string", b"\x02a", "no record"),
        (record(field("x", "int")), b"\x02", "no event"),
        (record(field("event_id", "int"), field("event_time", "long")), b"\x02\x02", "no event"),
        ({"type": "record", "name": "R"}, b"", "without fields"),
        (record(field("x", "strong")), b"", "no Avro type"),
        ([], b"", "no types"),
    ],
)
def test_a_foreign_schema_crashes_nothing(schema: Any, body: bytes, why: str) -> None:
    codec = Codec(Foreign(schema), [])
    for _ in range(2):  # what was refused once is refused again
        with pytest.raises(UndecodableEvent, match=why):
            codec.decode(at("elsewhere"), framed(1, body))


def test_a_huge_count_ends_with_the_bytes(codec: Codec) -> None:
    count = struct.pack("10B", *([0xFE] + [0xFF] * 8 + [0x01]))
    wanted = event_record(field("xs", {"type": "array", "items": "long"}))
    with pytest.raises(UndecodableEvent):
        Codec(Foreign(wanted), []).decode(at("t"), framed(1, b"\x02a\x00" + count + b"\x02" * 9))


def test_a_topic_outside_the_catalogue_is_read_as_written() -> None:
    body = b"\x02a\x06" + b"\x04"
    event = Codec(Foreign(event_record(field("x", "int"))), []).decode(at("t"), framed(1, body))
    assert (event.type, event.data) == ("Thing", {"event_id": "a", "event_time": 3, "x": 2})


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"label": 1.5}, "label: 1.5 is not int"),
        ({"label": 2**40}, "label: 1099511627776 is not int"),
        ({"label": True}, "label: True is not int"),
        ({"label": None}, "label: None is not int"),
        ({"score": "0.5"}, "score: '0.5' is not double"),
        ({"features": {"distance": "far"}}, "distance: 'far' is not null or double"),
        ({"features": None}, "features"),
        ({"features": {"speed": 3.0}}, "speed"),
        ({"weight": 1}, "weight"),
        ({"model_version": "\ud800"}, "surrogates"),
        ({"model_version": "x" * MAX_EVENT_BYTES}, "more than 1000000"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(codec: Codec, changed: Any, why: str) -> None:
    with pytest.raises(InvalidEvent, match="PredictionMade") as refused:
        codec.encode(prediction(**changed))
    assert why in str(refused.value) and len(str(refused.value)) < 300


def test_a_missing_field_and_unknown_names_are_refused(codec: Codec) -> None:
    event = prediction()
    data = {key: value for key, value in event.data.items() if key != "score"}
    with pytest.raises(InvalidEvent, match="score"):
        codec.encode(Event(event.topic, event.type, data))
    with pytest.raises(InvalidEvent, match=r"demo\.predictions carries PredictionMade, not Other"):
        codec.encode(Event(event.topic, "Other", event.data))
    with pytest.raises(InvalidEvent, match="no topic nowhere"):
        codec.encode(Event("nowhere", event.type, event.data))


def test_a_field_with_a_default_may_be_left_out(codec: Codec) -> None:
    written = codec.encode(prediction(features={"distance": 1.0}))
    assert codec.decode(at("demo.predictions"), written).data["features"]["carrier"] is None


def test_nan_travels_and_the_edge_refuses_it(codec: Codec) -> None:
    event = prediction(score=math.nan, features={"distance": math.inf, "carrier": None})
    decoded = codec.decode(at(event.topic), codec.encode(event)).data
    assert math.isnan(decoded["score"]) and math.isinf(decoded["features"]["distance"])
    with pytest.raises(InvalidEvent, match="score: nan"):
        check_finite(event.data)
    with pytest.raises(InvalidEvent, match=r"features\.distance: inf"):
        check_finite({**event.data, "score": 0.5})
    check_finite(prediction().data)


def test_the_key_is_the_field_of_the_catalogue(codec: Codec) -> None:
    assert codec.key(alert()) == b"demo"
    assert codec.key(prediction()) == prediction().id.encode()


def _old_and_new() -> tuple[Topic, Topic]:
    """The alerts topic as it is, and a later one: a field came, a field with a default went."""
    raised, resolved = load_schema("AlertRaised"), load_schema("AlertResolved")
    old = {**raised, "fields": [*raised["fields"], field("hint", "string", default="none")]}
    new = {**raised, "fields": [*raised["fields"], field("severity", "int", default=1)]}
    return Topic("driftlog.alerts", (old, resolved)), Topic("driftlog.alerts", (new, resolved))


def test_old_readers_read_new_events_and_new_readers_old_ones(registry: LocalRegistry) -> None:
    old_topic, new_topic = _old_and_new()
    old, new = Codec(registry, [old_topic]), Codec(registry, [new_topic])
    stream = [
        (old, alert(hint="look")),
        (new, alert(severity=3)),
        (old, alert("AlertResolved")),
        (new, alert("AlertResolved")),
        (old, alert()),
    ]
    values = [codec.encode(event) for codec, event in stream]
    assert len({value[:5] for value in values}) == 2  # two schema ids on one topic
    seen_by_old = [old.decode(at("driftlog.alerts", i), v).data for i, v in enumerate(values)]
    seen_by_new = [new.decode(at("driftlog.alerts", i), v).data for i, v in enumerate(values)]
    assert [row.get("hint") for row in seen_by_old] == ["look", "none", None, None, "none"]
    assert [row.get("severity") for row in seen_by_new] == [1, 3, None, None, 1]
    assert "severity" not in seen_by_old[1] and "hint" not in seen_by_new[0]
    assert {row["event_time"] for row in seen_by_old + seen_by_new} == {START}


def test_types_that_share_a_nested_type_stand_in_one_union(codec: Codec) -> None:
    """GateResult is defined once in the registered union; each type still reads by itself."""
    schema = load_schema("PromotionRejected")
    data: dict[str, Any] = {
        part["name"]: {"string": "x", "double": 1.5, "int": 1, "long": 1}.get(str(part["type"]))
        for part in schema["fields"]
        if "default" not in part
    }
    data |= {"event_id": "e", "event_time": START, "caused_by": None}
    data["gates"] = [
        {"name": "g", "value": 1.0, "baseline": None, "threshold": 1.0, "count": 3, "passed": True}
    ]
    event = Event("driftlog.deployments", "PromotionRejected", data)
    fresh = Codec(codec._registry, [])
    decoded = fresh.decode(at("elsewhere"), codec.encode(event))
    assert decoded.type == "PromotionRejected"
    assert [
        {**gate, **given} for gate, given in zip(decoded.data["gates"], data["gates"], strict=True)
    ] == decoded.data["gates"]
