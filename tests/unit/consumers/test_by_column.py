"""Blocks by column against blocks by event: the same rows, dead letters and offsets, whatever comes."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.history import sink
from consumers.history.by_column import LEAST, ColumnBlocks, plain_leaves
from consumers.history.record import Record
from consumers.history.sink import Batch, BatchDecoder
from schemas.codec import Codec
from schemas.event import Event, Position
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


class ByEvent:
    """A decoder that is no `Codec`: nothing is taken by column."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def decode(self, at: Position, value: bytes | None, recorded_ms: int = 0) -> Event:
        return self._codec.decode(at, value, recorded_ms)


def facts(batch: Batch) -> dict[str, Any]:
    """Everything that a batch says, in one order, NaN being equal to itself."""
    rows = {
        table.name: sorted(map(repr, rows.select(sorted(rows.column_names)).to_pylist()))
        for table, rows in batch.tables
    }
    types = {
        table.name: {field.name: str(field.type) for field in rows.schema}
        for table, rows in batch.tables
    }
    letters = sorted(
        (letter.at, letter.key, letter.value, letter.error) for letter in batch.letters
    )
    return {
        "rows": rows,
        "types": types,
        "letters": letters,
        "next": batch.next_offsets,
        "waiting": batch.waiting,
    }


def both(log: list[Record], registry: MemoryRegistry | None = None) -> dict[str, Any]:
    """The facts of the batch by column, which are those of the batch by event."""
    codec = Codec(registry or MemoryRegistry(), TOPICS)
    by_column = facts(BatchDecoder(codec, TOPICS).decode(parts(log)))
    by_event = facts(BatchDecoder(ByEvent(codec), TOPICS).decode(parts(log)))
    assert by_column == by_event
    return by_column


PLAIN_NAN = math.nan
OTHER_NAN = struct.unpack("<d", struct.pack("<q", 0x7FF8_0000_0000_0001))[0]
DOUBLES = st.one_of(
    st.none(), st.floats(), st.sampled_from([PLAIN_NAN, OTHER_NAN, -0.0, math.inf, 5e-324])
)
EVENTS = st.builds(
    lambda number, score, distance, carrier, cause: prediction(
        number,
        score=score,
        caused_by=cause,
        features={"distance": distance, "carrier": carrier},
    ),
    st.integers(0, 10**6),
    st.floats(),
    DOUBLES,
    st.one_of(st.none(), st.text(max_size=5)),
    st.one_of(st.none(), st.just(uid(7))),
)
BROKEN = st.sampled_from([None, b"", b"\0\0\0\0\1", b"\0\0\0\3\xe7body", b"poison"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(EVENTS, BROKEN), min_size=1, max_size=12))
def test_the_rows_are_the_same(made: list[Event | bytes | None]) -> None:
    codec = Codec(MemoryRegistry(), TOPICS)
    values = [codec.encode(each) if isinstance(each, Event) else each for each in made]
    log = [
        Record(Position("flights.predictions", 3, 40 + 2 * n), b"k", value, START + n)
        for n, value in enumerate(values)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sink, "LEAST", 1)
        both(log)


def test_large_batches_of_several_topics_and_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = Codec(MemoryRegistry(), TOPICS)
    taken = []
    table = ColumnBlocks.table
    monkeypatch.setattr(
        ColumnBlocks, "table", lambda self, part: taken.append(len(part)) or table(self, part)
    )
    predictions = [prediction(n) for n in range(3 * LEAST)]
    log = [
        *records(codec, predictions[: 2 * LEAST], 5, partition=0),
        *records(codec, predictions[2 * LEAST :], 0, partition=1),
        *records(codec, [label(n) for n in range(LEAST + 1)], 9),
        *records(codec, [label(n) for n in range(LEAST - 1)], 0, partition=2),
    ]
    found = both(log)
    assert taken == [2 * LEAST, LEAST, LEAST + 1], "small parts are taken one by one"
    assert len(found["rows"]["flights_predictions"]) == 3 * LEAST
    assert len(found["rows"]["flights_labels"]) == 2 * LEAST
    assert found["next"] == {
        ("flights.predictions", 0): 5 + 2 * LEAST,
        ("flights.predictions", 1): LEAST,
        ("flights.labels", 0): 9 + LEAST + 1,
        ("flights.labels", 2): LEAST - 1,
    }


def test_while_the_registry_is_down_everything_before_its_record_is_stored() -> None:
    writer, registry = Codec(MemoryRegistry(), TOPICS), MemoryRegistry()
    log = records(writer, [prediction(n) for n in range(LEAST + 5)], 100)
    registry.up = False
    assert both(log, registry)["waiting"] == {("flights.predictions", 0): 100}
    registry.up = True
    assert both(log, registry)["next"] == {("flights.predictions", 0): 105 + LEAST}


def test_which_topics_are_plain() -> None:
    plain = {t.name for t in TOPICS if len(t.schemas) == 1 and plain_leaves(t.schemas[0])}
    assert {"flights.predictions", "flights.labels", "flights.features"} <= plain
    assert "driftlog.sketches" not in plain, "it has lists"
