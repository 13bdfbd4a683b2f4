"""Raw records survive Parquet byte for byte, and what is needed to read them lies beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.columnar import Records
from schemas.registry.service import LocalRegistry
from streams.raw_files import (
    SCHEMA,
    Context,
    known_schemas,
    records_of,
    rows_of,
    write_partition,
)
from tests.unit.streams.backfill_data import MODELS, TOPIC, history, records


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    registry = LocalRegistry()
    payloads = history(5, registry, [120])[0]
    seen: list[int] = []
    count, ids = write_partition(tmp_path, 0, records(0, payloads, 50), seen.append)
    assert (count, seen) == (120, [50, 100, 120])
    found = []
    for batch in ds.dataset(tmp_path / "partition-0.parquet").to_batches(batch_size=33):
        some = records_of(TOPIC, 0, batch)
        assert len(some) == batch.num_rows
        found += [(int(some.offset[row]), some.payload(row)) for row in range(len(some))]
    # A record without bytes is as unreadable as one without a payload.
    assert found == [(n, payload or found[n][1]) for n, payload in enumerate(payloads)]
    assert all(not value for (n, value) in found if not payloads[n])
    schemas = known_schemas(registry, ids)
    assert set(schemas) == {1, 2}
    assert ids - {1, 2} == {999}, "bytes that only look like an event"


@given(st.lists(st.none() | st.binary(max_size=40), max_size=30), st.integers(0, 10), st.data())
def test_a_slice_of_a_batch_keeps_its_payloads(
    payloads: list[bytes | None], skipped: int, data: st.DataObject
) -> None:
    count = len(payloads)
    batch = pa.RecordBatch.from_arrays(
        [
            pa.array([3] * count, pa.int32()),
            pa.array(range(count), pa.int64()),
            pa.array([7] * count, pa.int64()),
            pa.array(payloads, pa.binary()),
        ],
        schema=SCHEMA,
    ).slice(min(skipped, count))
    some = records_of(TOPIC, 3, batch)
    expected = payloads[min(skipped, count) :]
    assert [some.payload(row) or b"" for row in range(len(some))] == [p or b"" for p in expected]
    mask = np.array(
        data.draw(st.lists(st.booleans(), min_size=len(some), max_size=len(some))), bool
    )
    chosen = rows_of(some, mask)
    assert chosen.offset.tolist() == some.offset[mask].tolist()
    assert [chosen.payload(n) or b"" for n in range(len(chosen))] == [
        p or b"" for p, keep in zip(expected, mask, strict=True) if keep
    ]


def test_large_binary_is_read_too() -> None:
    columns = {"offset": [4], "recorded": [0], "value": pa.array([b"abc"], pa.large_binary())}
    some = records_of(TOPIC, 0, pa.RecordBatch.from_pydict(columns))
    assert some.payload(0) == b"abc"


def test_the_context_comes_back(tmp_path: Path) -> None:
    (tmp_path / "partition-0.parquet").touch()
    assert Context.read(tmp_path) is None
    context = Context(TOPIC, 3, {7: {"type": "string"}}, MODELS)
    context.write(tmp_path)
    for place in (tmp_path, tmp_path / "partition-0.parquet"):
        found = Context.read(place)
        assert found is not None
        assert (found.topic, found.partitions, found.schemas) == (TOPIC, 3, {7: {"type": "string"}})
        assert [event.data for event in found.models] == [event.data for event in MODELS]


def test_records_of_nothing() -> None:
    empty = pa.RecordBatch.from_arrays([pa.array([], f.type) for f in SCHEMA], schema=SCHEMA)
    assert len(records_of(TOPIC, 0, empty)) == 0
    assert len(rows_of(Records.of(TOPIC, 0, [b"a"]), slice(1, None))) == 0
    with pytest.raises(KeyError):
        records_of(TOPIC, 0, pa.RecordBatch.from_pydict({"offset": [1]}))
