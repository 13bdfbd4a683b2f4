from __future__ import annotations

import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.history.blocks import DeadLetter, dead_letter_table
from consumers.history.record import Record
from consumers.history.sink import BatchDecoder
from consumers.history.store import Store
from schemas.codec import Codec
from schemas.event import Position
from tests.unit.consumers.history_data import (
    START,
    TOPICS,
    MemoryRegistry,
    label,
    parts,
    prediction,
    records,
    uid,
)

TABLE = "driftlog.flights_predictions"


def _bad(offset: int, value: bytes | None) -> Record:
    return Record(Position("flights.predictions", 0, offset), b"k", value, START)


def test_a_batch_says_what_to_write_and_how_far_it_reaches(codec: Codec) -> None:
    batch = BatchDecoder(codec, TOPICS).decode(
        parts(
            [*records(codec, [prediction(1), prediction(2)], 5), *records(codec, [label(1)], 9, 3)]
        )
    )
    assert {table.name: rows.num_rows for table, rows in batch.tables} == {
        "flights_predictions": 2,
        "flights_labels": 1,
    }
    assert batch.next_offsets == {("flights.predictions", 0): 7, ("flights.labels", 3): 10}
    assert not batch.letters
    assert not batch.waiting


def test_what_cannot_be_decoded_is_a_dead_letter_and_the_rest_is_kept(codec: Codec) -> None:
    good = codec.encode(prediction(1))
    poison = [b"", None, b"\x00\x00\x00\x03\xe7body", good[:-3], good + b"\x00", b"not avro"]
    batch = BatchDecoder(codec, TOPICS).decode(
        parts(
            [
                _bad(0, good),
                *(_bad(1 + n, value) for n, value in enumerate(poison)),
                _bad(7, codec.encode(prediction(2))),
            ]
        )
    )
    assert [letter.at.offset for letter in batch.letters] == [1, 2, 3, 4, 5, 6]
    assert {letter.error for letter in batch.letters} == {"UndecodableEvent", "UnknownSchema"}
    assert all(letter.message for letter in batch.letters)
    assert batch.rows == 2
    assert batch.next_offsets == {("flights.predictions", 0): 8}


def test_a_value_that_fits_no_column_costs_only_its_own_event(codec: Codec) -> None:
    """Avro's variable-length int carries 64 bits; the column has 32."""

    class Wide:
        def decode(self, at: Position, value: bytes | None, recorded_ms: int = 0) -> object:
            event = codec.decode(at, value, recorded_ms)
            if at.offset == 1:
                event = type(event)(event.topic, event.type, {**event.data, "label": 2**40}, at)
            return event

    batch = BatchDecoder(Wide(), TOPICS).decode(  # type: ignore[arg-type]
        parts(records(codec, [prediction(n) for n in range(3)]))
    )
    assert batch.rows == 2
    assert [letter.at.offset for letter in batch.letters] == [1]


def test_a_foreign_schema_without_what_the_table_needs_is_a_dead_letter(codec: Codec) -> None:
    """Else ClickHouse would put 0 and '' where nothing was said."""

    class Foreign:
        def decode(self, at: Position, value: bytes | None, recorded_ms: int = 0) -> object:
            event = codec.decode(at, value, recorded_ms)
            left = {name: data for name, data in event.data.items() if name != "score"}
            return event if at.offset else type(event)(event.topic, event.type, left, at)

    batch = BatchDecoder(Foreign(), TOPICS).decode(  # type: ignore[arg-type]
        parts(records(codec, [prediction(n) for n in range(3)]))
    )
    assert batch.rows == 2
    assert [letter.message for letter in batch.letters] == ["PredictionMade without score"]


def test_a_record_type_of_another_topic_is_a_dead_letter(codec: Codec) -> None:
    wrong = Record(Position("flights.labels", 0, 4), b"k", codec.encode(prediction(1)), START)
    batch = BatchDecoder(codec, TOPICS).decode(parts([wrong]))
    assert batch.rows == 0
    assert "PredictionMade does not belong on flights.labels" in batch.letters[0].message


def test_while_the_registry_is_down_a_partition_waits_and_the_others_go_on() -> None:
    writer = Codec(MemoryRegistry(), TOPICS)
    registry = MemoryRegistry()
    decoder = BatchDecoder(Codec(registry, TOPICS), TOPICS)
    assert decoder.decode(parts(records(writer, [label(1)]))).rows == 1  # this schema is known now
    registry.up = False
    batch = decoder.decode(
        parts(
            [*records(writer, [prediction(1), prediction(2)], 40), *records(writer, [label(2)], 1)]
        )
    )
    assert batch.waiting == {("flights.predictions", 0): 40}
    assert batch.next_offsets == {("flights.labels", 0): 2}
    assert not batch.letters
    registry.up = True
    assert decoder.decode(parts(records(writer, [prediction(1), prediction(2)], 40))).rows == 2


def test_rows_are_what_was_written(store: Store) -> None:
    [row] = store._rows(
        f"SELECT event_time, score, features_distance, features_carrier, _type, _topic, _offset"
        f" FROM {TABLE} FINAL WHERE event_id = {{id:String}}",
        {"id": uid(5)},
    )
    time = datetime.datetime.fromtimestamp(START / 1000 + 300, datetime.UTC).replace(tzinfo=None)
    assert tuple(row) == (time, 0.5, 500.0, None, "PredictionMade", "flights.predictions", 5)
    [sketch] = store._rows("SELECT columns, totals FROM driftlog.sketches FINAL")
    moments = dict.fromkeys(("mean", "variance", "minimum", "maximum"))
    assert sketch[0] == [
        {"name": "distance", "counts": [1, 2, 0], "missing": 0, "unseen": 0, **moments}
    ]
    assert sketch[1] == {"score": 17}


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_final_holds_each_event_once_in_its_first_place(
    store: Store, numbers: list[int], shuffle: object
) -> None:
    """Any repeats in any order: one row an event, that of the lowest offset."""
    codec = Codec(MemoryRegistry(), TOPICS)
    decoder = BatchDecoder(codec, TOPICS)
    store._command("TRUNCATE TABLE driftlog.flights_features")
    store._command("TRUNCATE TABLE driftlog.flights_labels")
    log = records(codec, [label(1_000 + number) for number in numbers])
    twice = [*log, *log]
    shuffle.shuffle(twice)  # type: ignore[attr-defined]
    for start in range(0, len(twice), 7):
        for table, rows in decoder.decode(parts(twice[start : start + 7])).tables:
            store.write_events(table, rows)
    found = store._rows("SELECT event_id, _offset FROM driftlog.flights_labels FINAL")
    first = {uid(11_000 + number): numbers.index(number) for number in numbers}
    assert dict(map(tuple, found)) == first
    assert len(found) == len(first)
    store._command("TRUNCATE TABLE driftlog.flights_labels")
    for table, rows in decoder.decode(parts(records(codec, [label(n) for n in range(80)]))).tables:
        store.write_events(table, rows)


def test_positions_go_forward_only(store: Store) -> None:
    ids = {"flights.labels": "topic-id"}
    store.write_positions([("flights.labels", 2, 10)], ids)
    store.write_positions([("flights.labels", 2, 7)], ids)
    assert store.positions()[("flights.labels", 2)] == ("topic-id", 10)


def test_dead_letters_are_kept_once_with_their_bytes(store: Store) -> None:
    letter = DeadLetter(
        Position("flights.labels", 1, 3), None, b"\xff\x00", START, "UndecodableEvent", "no"
    )
    store.write_dead_letters([letter])
    store.write_dead_letters([letter])
    assert store.dead_letters_from("flights.labels", 1, 0) == {3}
    assert store.dead_letters_from("flights.labels", 1, 4) == set()
    [row] = store._rows("SELECT key_base64, value_base64, error FROM driftlog.dead_letters FINAL")
    assert tuple(row) == (None, "/wA=", "UndecodableEvent")
    assert dead_letter_table([letter]).num_rows == 1


@pytest.mark.parametrize("stop_after", [0, 1, 2, 3, 4])
def test_a_crash_between_any_two_writes_loses_and_doubles_nothing(
    store: Store, codec: Codec, stop_after: int
) -> None:
    store._command("TRUNCATE TABLE driftlog.flights_features")
    store._command("TRUNCATE TABLE driftlog.dead_letters")
    store._command("TRUNCATE TABLE driftlog.positions")
    features = [
        {**prediction(n).data, "entity": "origin", "key": "JFK", "values": {"temp": float(n)}}
        for n in range(4)
    ]
    events = [
        type(prediction(0))("flights.features", "FeatureObserved", {
            name: data[name] for name in ("event_id", "event_time", "caused_by", "entity", "key", "values")
        })
        for data in features
    ]  # fmt: skip
    log = records(codec, events)
    log.insert(2, Record(Position("flights.features", 0, 2), None, b"poison", START))
    log = [
        Record(Position("flights.features", 0, n), each.key, each.value, each.recorded_ms)
        for n, each in enumerate(log)
    ]
    decoder = BatchDecoder(codec, TOPICS)
    published: list[DeadLetter] = []
    ids = {"flights.features": "id"}

    steps = list(decoder.decode(parts(log)).steps(store, published.extend, ids))
    assert len(steps) == 4
    for step in steps[:stop_after]:
        step()
    _, start = store.positions().get(("flights.features", 0), ("", 0))
    assert start == (5 if stop_after == 4 else 0)
    for step in decoder.decode(parts(log[start:])).steps(store, published.extend, ids):
        step()
    assert store.positions()[("flights.features", 0)] == ("id", 5)
    assert store._rows("SELECT count() FROM driftlog.flights_features FINAL")[0][0] == 4
    assert store.dead_letters_from("flights.features", 0, 0) == {2}
    assert {letter.at.offset for letter in published} == {2}
