"""The columnar decoder against the row codec: same rows, same values, same verdicts, same reasons."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.catalogue import task_topics
from schemas.columnar import Kind
from schemas.columnar.decoder import ColumnDecoder
from schemas.columnar.instructions import REFUSAL
from tests.unit.schemas.build import event_record, field, framed
from tests.unit.schemas.columnar import Case
from tests.unit.schemas.columnar_random import Schemas, body, damaged, paths

seeds = st.integers(0, 2**48)


def payloads_of(writers: dict[int, Any], rng: random.Random, count: int) -> list[bytes]:
    """Whole payloads of random ids, as many damaged ones, all mixed."""
    found = []
    for _ in range(count):
        schema_id = rng.choice(list(writers))
        whole = framed(schema_id, body(writers[schema_id], rng))
        found += [whole, damaged(whole, rng)]
    rng.shuffle(found)
    return found


@settings(max_examples=200, deadline=None)
@given(seeds)
def test_random_schemas_that_have_changed(seed: int) -> None:
    rng = random.Random(seed)
    writer = Schemas(rng).event()
    schemas = Schemas(rng)
    schemas._names = iter(range(1_000, 10_000))
    reader = schemas.later(writer)
    writers = {1: writer, 2: reader, 3: schemas.later(reader)}
    case = Case(reader, paths(reader, rng), writers)
    case.agree(payloads_of(writers, rng, 30))


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_random_schemas_that_nobody_catalogued(seed: int) -> None:
    rng = random.Random(seed)
    writer = Schemas(rng).event()
    case = Case(None, paths(writer, rng), {1: writer})
    case.agree(payloads_of(case.writers, rng, 30))


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_a_union_of_random_records(seed: int) -> None:
    rng = random.Random(seed)
    schemas = Schemas(rng)
    thing, other = schemas.event(), {**schemas.event(), "name": "Other"}
    later = Schemas(rng)
    later._names = iter(range(1_000, 10_000))
    readers = [later.later(thing), later.later(other)]
    case = Case(readers, paths(readers[0], rng), {1: [thing, other], 2: thing, 3: other})
    case.agree(payloads_of(case.writers, rng, 40))


@settings(max_examples=50, deadline=None)
@given(seeds)
def test_batches_of_any_size_give_the_same(seed: int) -> None:
    rng = random.Random(seed)
    writer = event_record(field("kind", "string"), field("x", ["null", "double"]))
    projection: dict[str, Kind] = {"kind": "code", "x": "double", "event_id": "id"}
    payloads = payloads_of({1: writer}, rng, 40)
    whole, parts = (Case(writer, projection, {1: writer}, capacity=4) for _ in range(2))
    columns, _ = whole.decode(payloads)
    found = []
    while payloads:
        size = rng.randrange(1, 9)
        part, _ = parts.decode(payloads[:size])
        found += part.data["kind"].tolist()
        payloads = payloads[size:]
    assert found == columns.data["kind"].tolist()
    assert whole.decoder.dictionaries["kind"].values == parts.decoder.dictionaries["kind"].values


PREDICTION = task_topics("demo", {f"x{i}": "double" for i in range(4)} | {"c": "string"}, ())[0]


@pytest.fixture
def predictions() -> Case:
    (schema,) = PREDICTION.schemas
    projection: dict[str, Kind] = {
        "event_id": "id",
        "event_time": "long",
        "model_version": "code",
        "score": "double",
        "features.c": "text",
        **{f"features.x{i}": "double" for i in range(4)},
    }
    return Case(schema, projection, {1: schema}, event_type="PredictionMade")


def test_a_prediction_cut_after_every_byte(predictions: Case) -> None:
    whole = framed(1, body(PREDICTION.schemas[0], random.Random(0)))
    columns, bad = predictions.agree([whole[:end] for end in range(len(whole) + 1)])
    assert columns.offset.tolist() == [len(whole)]
    assert len(bad) == len(whole)


def test_a_prediction_with_every_byte_changed(predictions: Case) -> None:
    rng = random.Random(1)
    whole = framed(1, body(PREDICTION.schemas[0], rng))
    payloads = [
        whole[:place] + bytes([value]) + whole[place + 1 :]
        for place in range(len(whole))
        for value in range(256)
    ]
    columns, _ = predictions.agree(payloads)
    assert len(columns) >= len(whole)  # each byte as it was


def test_fifty_thousand_damaged_predictions(predictions: Case) -> None:
    rng = random.Random(2)
    predictions.agree(payloads_of(predictions.writers, rng, 25_000))


def test_the_machine_reads_what_was_written_without_the_row_codec(predictions: Case) -> None:
    """The equality above would also hold if the row codec read everything."""
    rng = random.Random(3)
    payloads = [framed(1, body(PREDICTION.schemas[0], rng)) for _ in range(200)]
    predictions.agree(payloads)
    predictions.codec.decode = None  # type: ignore[assignment,method-assign]
    columns, bad = predictions.decode(payloads)
    assert (len(columns), bad) == (200, [])


def test_most_random_schemas_are_read_by_the_machine() -> None:
    """Values of a changed schema that resolve at all rarely need the row codec."""
    by_machine = 0
    for seed in range(100):
        rng = random.Random(seed)
        writer = Schemas(rng).event()
        case = Case(None, paths(writer, rng), {1: writer})
        case.decode(payloads_of(case.writers, rng, 1))
        by_machine += case.decoder._programs[1] is not REFUSAL
        assert isinstance(case.decoder, ColumnDecoder)
    assert by_machine == 100
