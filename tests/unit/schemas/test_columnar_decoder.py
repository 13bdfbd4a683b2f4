from __future__ import annotations

import struct
import uuid
from typing import Any

import numpy as np
import pytest

from schemas.catalogue import Topic, load_schema, task_topics
from schemas.codec import MAX_EVENT_BYTES, Codec
from schemas.columnar import Kind, Records
from schemas.columnar.columns import NULL_CODE, UNKNOWN_CODE
from schemas.columnar.decoder import ColumnDecoder
from schemas.errors import RegistryUnavailable, UndecodableEvent
from schemas.registry.service import LocalRegistry
from tests.unit.schemas.build import START, alert, event_record, field, framed, prediction, record
from tests.unit.schemas.columnar import TOPIC, Case

PREDICTION: dict[str, Kind] = {
    "event_id": "id",
    "event_time": "long",
    "model_version": "code",
    "score": "double",
    "features.distance": "double",
    "features.carrier": "text",
}


def zigzag(number: int) -> bytes:
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def test_a_prediction_as_columns(codec: Codec) -> None:
    decoder = ColumnDecoder(codec, "demo.predictions", "PredictionMade", PREDICTION)
    events = [
        prediction(score=0.25),
        prediction(
            score=-0.5, model_version="demo-2", features={"distance": None, "carrier": None}
        ),
    ]
    records = Records.of(
        "demo.predictions", 2, [codec.encode(event) for event in events], [7, 9], [START, START + 1]
    )
    columns, bad = decoder.decode(records)
    assert bad == []
    assert (columns.topic, columns.partition, len(columns)) == ("demo.predictions", 2, 2)
    assert columns.offset.tolist() == [7, 9]
    assert columns.recorded.tolist() == [START, START + 1]
    assert columns.data["event_time"].tolist() == [START, START]
    assert columns.data["score"].tolist() == [0.25, -0.5]
    assert columns.data["features.carrier"].to_pylist() == ["UA", None]
    assert columns.data["features.distance"][0] == 812.5
    assert np.isnan(columns.data["features.distance"][1])
    assert columns.data["model_version"].tolist() == [0, 1]
    assert decoder.dictionaries["model_version"].values == ["demo-1", "demo-2"]
    high, low = columns.data["event_id"][0].tolist()
    assert high << 64 | low == uuid.UUID(events[0].id).int


def test_an_empty_batch(codec: Codec) -> None:
    decoder = ColumnDecoder(codec, "demo.predictions", "PredictionMade", PREDICTION)
    columns, bad = decoder.decode(Records.of("demo.predictions", 0, []))
    assert (len(columns), bad, columns.others.tolist()) == (0, [], [])
    assert columns.data["event_id"].shape == (0, 2)
    assert columns.data["features.carrier"].to_pylist() == []


def test_each_unreadable_record_is_told_as_the_row_codec_tells_it() -> None:
    thing = event_record(field("x", "double"))
    case = Case(thing, {"event_time": "long", "x": "double"}, {1: thing})
    good = case.write(1, {"event_id": "a", "event_time": 5, "x": 1.5})
    payloads = [
        good,
        None,
        b"",
        b"\0\0\0\0",
        b"\1" + good[1:],
        framed(99, good[5:]),
        good[:-1],
        good + b"\0",
        framed(1, b"\x80" * 11),
        framed(1, zigzag(-4) + b"abc"),
        framed(1, zigzag(2) + b"\xff\xff" + good[7:]),
        framed(1, zigzag(2**40) + good[7:]),
        framed(1, good[5:] + bytes(MAX_EVENT_BYTES)),
        good,
    ]
    columns, bad = case.agree(payloads)
    assert columns.offset.tolist() == [0, 13]
    assert [one.index for one in bad] == list(range(1, 13))
    assert all(isinstance(one.error, UndecodableEvent) for one in bad)


def test_what_only_the_row_codec_reads_gets_its_values() -> None:
    """Avro allows longer forms of a number; the row codec reads them, so they count."""
    thing = event_record(
        field("x", ["null", "double"]), field("many", {"type": "array", "items": "int"})
    )
    case = Case(thing, {"event_id": "code", "event_time": "long", "x": "double"}, {1: thing})
    body = zigzag(1) + b"a" + zigzag(5)
    payloads = [
        framed(1, body + b"\x80\x00" + zigzag(0)),  # a union branch in two bytes
        framed(1, body + b"\x01" + struct.pack("<d", 2.5) + zigzag(0)),  # branch -1
        framed(1, zigzag(1) + b"b" + b"\x8a\x80\x00" + b"\x00" + zigzag(0)),
        framed(
            1, body + b"\x00" + zigzag(-1) + zigzag(7) + zigzag(3) + zigzag(0)
        ),  # wrong block size
    ]
    columns, bad = case.agree(payloads)
    assert bad == []
    assert columns.data["event_time"].tolist() == [5, 5, 5, 5]
    assert case.decoder.dictionaries["event_id"].values == ["a", "b"]


def test_several_schema_ids_in_one_batch() -> None:
    reader = event_record(
        field("x", "double", default=0.5),
        field("kind", "string", default="plain"),
        field("n", "long"),
    )
    old = event_record(field("n", "int"))
    new = event_record(
        field("extra", {"type": "map", "values": "bytes"}),
        field("n", "long"),
        field("x", "float"),
        field("kind", "string"),
    )
    projection: dict[str, Kind] = {"x": "double", "kind": "code", "n": "long", "event_id": "text"}
    case = Case(reader, projection, {1: old, 2: new, 70_000: reader})
    envelope = {"event_id": "e", "event_time": 1}
    payloads = [
        case.write(1, {**envelope, "n": -3}),
        case.write(2, {**envelope, "extra": {"k": b"\xff"}, "n": 2**40, "x": 0.25, "kind": "new"}),
        case.write(70_000, {**envelope, "x": 9.0, "kind": "plain", "n": 1}),
        case.write(1, {**envelope, "n": 7}),
    ]
    columns, bad = case.agree(payloads)
    assert bad == []
    assert columns.data["x"].tolist() == [0.5, 0.25, 9.0, 0.5]
    assert columns.data["n"].tolist() == [-3, 2**40, 1, 7]
    assert case.decoder.dictionaries["kind"].values == ["plain", "new"]


def test_events_of_other_types_are_named_by_offset(codec: Codec) -> None:
    decoder = ColumnDecoder(codec, "driftlog.alerts", "AlertResolved", {"subject": "code"})
    kinds = ["AlertRaised", "AlertResolved", "AlertRaised", "AlertResolved"]
    payloads = [codec.encode(alert(kind, subject=f"s{i}")) for i, kind in enumerate(kinds)]
    payloads.append(payloads[0][:-1])  # an unreadable event is bad whatever its type
    columns, bad = decoder.decode(Records.of("driftlog.alerts", 0, payloads, [4, 5, 6, 7, 8]))
    assert (columns.offset.tolist(), columns.others.tolist()) == ([5, 7], [4, 6])
    assert decoder.dictionaries["subject"].values == ["s1", "s3"]
    assert [one.index for one in bad] == [4]


def test_a_type_that_does_not_belong_is_bad() -> None:
    thing, stray = event_record(), event_record(name="Stray")
    case = Case(thing, {"event_time": "long"}, {1: stray, 2: [thing, stray]})
    envelope = {"event_id": "e", "event_time": 1}
    payloads = [
        case.write(1, envelope),
        case.write(2, ("demo.Stray", envelope)),
        case.write(2, ("demo.Thing", envelope)),
    ]
    columns, bad = case.agree(payloads)
    assert columns.offset.tolist() == [2]
    assert "Stray does not belong on demo.things" in str(bad[0].error)


def test_a_silent_registry_loses_nothing() -> None:
    thing = event_record(field("kind", "string"))
    case = Case(thing, {"kind": "code"}, {1: thing, 2: thing})
    payloads = [
        case.write(schema_id, {"event_id": "e", "event_time": 1, "kind": f"k{schema_id}"})
        for schema_id in (1, 2, 1)
    ]
    case.decode(payloads[:1])
    case.registry.down = True
    for _ in range(2):
        with pytest.raises(RegistryUnavailable):
            case.decode(payloads)
    case.registry.down = False
    columns, _ = case.agree(payloads)
    assert len(columns) == 3
    assert case.decoder.dictionaries["kind"].values == ["k1", "k2"]


def test_a_schema_that_appears_later_is_asked_for_again() -> None:
    thing = event_record()
    case = Case(thing, {"event_time": "long"}, {1: thing})
    payload = framed(2, case.write(1, {"event_id": "e", "event_time": 1})[5:])
    assert len(case.agree([payload])[1]) == 1
    case.writers[2] = thing
    assert len(case.agree([payload])[0]) == 1


def test_an_unsafe_schema_is_refused_for_good() -> None:
    thing = event_record()
    bomb = event_record(field("many", {"type": "array", "items": "null"}))
    case = Case(thing, {"event_time": "long"}, {1: thing, 2: bomb})
    huge = framed(2, zigzag(1) + b"a" + zigzag(1) + zigzag(2**40) + zigzag(0))
    _, bad = case.agree([huge, huge])
    assert "take no bytes" in str(bad[1].error)


def test_a_huge_count_of_items_ends_with_the_payload() -> None:
    thing = event_record(
        field("many", {"type": "array", "items": {"type": "array", "items": "int"}})
    )
    case = Case(thing, {"event_time": "long"}, {1: thing})
    head = zigzag(1) + b"a" + zigzag(1)
    columns, bad = case.agree(
        [
            framed(1, head + zigzag(2**62) + b"\0" * 100),
            framed(1, head + zigzag(-(2**63)) + zigzag(1) + b"\0" * 100),
            framed(1, head + zigzag(100) + b"\0" * 100 + zigzag(0)),
            framed(1, head + zigzag(-2) + zigzag(5) + b"\x04\x02\x02\x00\x00" + zigzag(0)),
        ]
    )
    assert columns.offset.tolist() == [2, 3]
    assert len(bad) == 2


def test_a_huge_count_in_a_field_that_the_reader_lacks_ends_with_the_payload() -> None:
    """fastavro steps over an unknown field without looking for the end of the bytes."""
    numbers = {"type": "array", "items": "double"}
    reader, writer = event_record(), event_record(field("many", numbers), field("last", "string"))
    case = Case(reader, {"event_time": "long"}, {1: writer})
    head = zigzag(1) + b"a" + zigzag(1)
    columns, bad = case.agree(
        [
            framed(1, head + zigzag(2**60) + bytes(100)),
            framed(1, head + zigzag(-(2**60)) + zigzag(-1) + bytes(100)),
            framed(1, head + zigzag(0) + zigzag(5) + b"1234"),
            framed(1, head + zigzag(0) + zigzag(-1)),
            framed(1, head + zigzag(1) + bytes(8) + zigzag(0) + zigzag(2) + b"ok"),
            framed(1, head + zigzag(-1) + zigzag(3) + bytes(8) + zigzag(0) + zigzag(2) + b"ok"),
        ]
    )
    assert columns.offset.tolist() == [4]  # of the last one only 3 bytes are stepped over
    assert "bytes are announced" in str(bad[0].error)


def test_texts_of_bad_records_do_not_enter_a_dictionary() -> None:
    thing = event_record(field("kind", "string"), field("x", "double"))
    case = Case(thing, {"kind": "code", "x": "double"}, {1: thing}, capacity=2)

    def payload(kind: str) -> bytes:
        return case.write(1, {"event_id": "e", "event_time": 1, "kind": kind, "x": 1.0})

    batch = [payload("bad")[:-1], payload("a"), payload("worse")[:-3], payload("b"), payload("a")]
    columns, _ = case.agree(batch)
    assert case.decoder.dictionaries["kind"].values == ["a", "b"]
    assert columns.data["kind"].tolist() == [0, 1, 0]


def test_beyond_the_capacity_only_known_texts_have_codes() -> None:
    thing = event_record(field("kind", ["null", "string"]))
    case = Case(thing, {"kind": "code"}, {1: thing}, capacity=3)
    known = case.decoder.dictionaries["kind"]
    assert [known.code(text) for text in ("p", "q")] == [0, 1]
    kinds = ["a", "b", None, "q", "a" * 2_000]
    payloads = [case.write(1, {"event_id": "e", "event_time": 1, "kind": kind}) for kind in kinds]
    columns, _ = case.decode(payloads)
    assert columns.data["kind"].tolist() == [2, UNKNOWN_CODE, NULL_CODE, 1, UNKNOWN_CODE]
    assert known.code("b") == 3
    assert case.decode(payloads)[0].data["kind"].tolist()[:2] == [2, 3]


def test_a_dictionary_grows_in_mid_batch() -> None:
    thing = event_record(field("kind", "string"), field("place", "string"))
    case = Case(thing, {"kind": "code", "place": "code"}, {1: thing}, capacity=100_000)
    payloads = [
        case.write(
            1, {"event_id": "e", "event_time": 1, "kind": f"{i}" * 9, "place": f"at {i % 700}"}
        )
        for i in range(5_000)
    ]
    columns, bad = case.agree(payloads)
    assert bad == []
    assert columns.data["kind"].tolist() == list(range(5_000))
    assert len(case.decoder.dictionaries["place"]) == 700


def test_ids_that_are_not_canonical_uuids_are_others() -> None:
    thing = event_record()
    case = Case(thing, {"event_id": "id"}, {1: thing})
    one = str(uuid.UUID(int=0x1234_5678_9ABC_DEF0_0FED_CBA9_8765_4321))
    texts = [
        one,
        one.upper(),
        one[:-1] + "G",
        one[:-1] + "/",
        one[:-1] + ":",
        one[:-1] + "`",
        one.replace("-", "_"),
        one.replace("-", ""),
        one + " ",
        "{" + one[1:],
        "é" * 18,
        "",
        "a",
    ]
    columns, bad = case.agree(
        [case.write(1, {"event_id": text, "event_time": 1}) for text in texts]
    )
    assert bad == []
    assert len({tuple(pair) for pair in columns.data["event_id"].tolist()}) == len(texts)


def test_a_topic_outside_the_catalogue_decodes_as_written() -> None:
    inner = record(field("x", "float"), name="Inner")
    foreign = event_record(field("inner", ["null", inner]), field("y", "boolean"))
    projection: dict[str, Kind] = {
        "inner.x": "double",
        "y": "long",
        "absent": "text",
        "inner.z": "code",
    }
    case = Case(None, projection, {1: foreign})
    payloads = [
        case.write(1, {"event_id": "e", "event_time": 1, "inner": inner, "y": True})
        for inner in (None, {"x": 0.5})
    ]
    columns, _ = case.agree(payloads)
    assert columns.data["y"].tolist() == [1, 1]
    assert columns.data["absent"].to_pylist() == [None, None]


def test_a_value_that_fits_no_column_is_bad() -> None:
    """A writer that the catalogue does not know may have given a field any type."""
    foreign = event_record(field("x", ["string", "double"]))
    case = Case(None, {"x": "double"}, {1: foreign})
    payloads = [
        case.write(1, {"event_id": "e", "event_time": 1, "x": value}) for value in ("text", 2.5)
    ]
    columns, bad = case.decode(payloads)
    assert columns.data["x"].tolist() == [2.5]
    assert [(one.index, str(one.error)) for one in bad] == [
        (0, "x: 'text' does not fit a column of kind double")
    ]


@pytest.mark.parametrize(
    ("projection", "error", "says"),
    [
        ({"nothing": "double"}, KeyError, "PredictionMade has no nothing"),
        ({"features.nothing": "double"}, KeyError, "it has distance, carrier"),
        ({"score.more": "double"}, KeyError, "has no more there"),
        ({"features": "double"}, ValueError, "features is record, which is no double"),
        ({"score": "long"}, ValueError, "score is double, which is no long"),
        ({"model_version": "double"}, ValueError, "which is no double"),
        ({"event_time": "code"}, ValueError, "event_time is long, which is no code"),
        ({"features.carrier": "code", "features": "text"}, ValueError, "wanted twice"),
        ({"features": "text", "features.carrier": "code"}, ValueError, "as a column itself"),
    ],
)
def test_a_projection_that_cannot_be_is_refused(
    codec: Codec, projection: dict[str, Kind], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        ColumnDecoder(codec, "demo.predictions", "PredictionMade", projection)


def test_every_event_type_of_the_system_can_be_read(
    codec: Codec, registry: LocalRegistry, topics: list[Topic]
) -> None:
    """Each schema compiles for the machine: none silently falls back to the row codec."""
    for topic in topics:
        schema_id = registry.schema_id(topic.subject, topic.value_schema)
        for schema in topic.schemas:
            decoder = ColumnDecoder(codec, topic.name, schema["name"], {"event_time": "long"})
            empty = Records.of(topic.name, 0, [framed(schema_id, b"\xff" * 3)])
            assert len(decoder.decode(empty)[1]) == 1
            (program,) = decoder._programs.values()
            assert len(program.code) > 1, schema["name"]


def test_threads_may_share_a_decoder() -> None:
    from concurrent.futures import ThreadPoolExecutor

    thing = event_record(field("kind", "string"))
    case = Case(thing, {"kind": "code", "event_id": "text"}, {1: thing}, capacity=10_000)
    batches = [
        [
            case.write(1, {"event_id": f"{b}", "event_time": 1, "kind": f"{(b + i) % 997}"})
            for i in range(500)
        ]
        for b in range(16)
    ]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(case.decode, batches))
    texts = case.decoder.dictionaries["kind"].values
    for b, (columns, bad) in enumerate(results):
        assert bad == []
        assert columns.data["event_id"].to_pylist() == [f"{b}"] * 500
        assert [texts[c] for c in columns.data["kind"]] == [f"{(b + i) % 997}" for i in range(500)]


def test_the_envelope_schema_is_the_one_that_benchmarks_use() -> None:
    prediction_topic = task_topics("bench", {f"x{i}": "double" for i in range(8)}, ())[0]
    codec = Codec(LocalRegistry(), [prediction_topic])
    projection: dict[str, Kind] = {f"features.x{i}": "double" for i in range(8)}
    decoder = ColumnDecoder(codec, "bench.predictions", "PredictionMade", projection)
    assert decoder.dictionaries == {}
    assert load_schema("SketchTaken")["fields"][0]["name"] == "event_id"


def test_records_of_another_topic_are_a_mistake() -> None:
    thing: Any = event_record()
    case = Case(thing, {"event_time": "long"}, {1: thing})
    with pytest.raises(AssertionError):
        case.decoder.decode(Records.of(f"{TOPIC}.dlq", 0, []))
