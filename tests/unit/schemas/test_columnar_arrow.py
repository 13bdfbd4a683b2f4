from __future__ import annotations

import uuid

import numpy as np
import pyarrow as pa

from schemas.codec import Codec
from schemas.columnar import Kind, Records
from schemas.columnar.arrow import to_arrow
from schemas.columnar.decoder import ColumnDecoder
from tests.unit.schemas.build import START, prediction

PROJECTION: dict[str, Kind] = {
    "event_id": "id",
    "event_time": "long",
    "model_version": "code",
    "features.distance": "double",
    "features.carrier": "text",
}


def test_columns_as_an_arrow_batch(codec: Codec) -> None:
    decoder = ColumnDecoder(codec, "demo.predictions", "PredictionMade", PROJECTION, capacity=1)
    events = [
        prediction(),
        prediction(model_version="late", features={"distance": None, "carrier": None}),
    ]
    records = Records.of(
        "demo.predictions", 3, [codec.encode(event) for event in events], [5, 6], [START, START]
    )
    columns, _ = decoder.decode(records)
    batch = to_arrow(columns, decoder.dictionaries)
    batch.validate(full=True)
    assert batch.schema.metadata == {b"topic": b"demo.predictions", b"partition": b"3"}
    assert batch.schema.names == [*PROJECTION, "_offset", "_recorded"]
    assert batch.column("event_id").to_pylist() == [uuid.UUID(event.id).bytes for event in events]
    assert batch.column("event_time").to_pylist() == [START, START]
    assert batch.column("model_version").type == pa.dictionary(pa.int32(), pa.string())
    assert batch.column("model_version").to_pylist() == ["demo-1", None]
    assert batch.column("features.distance")[0].as_py() == 812.5
    assert np.isnan(batch.column("features.distance")[1].as_py())
    assert batch.column("features.carrier").to_pylist() == ["UA", None]
    assert batch.column("_offset").to_pylist() == [5, 6]


def test_numbers_and_texts_are_not_copied(codec: Codec) -> None:
    decoder = ColumnDecoder(codec, "demo.predictions", "PredictionMade", PROJECTION)
    columns, _ = decoder.decode(Records.of("demo.predictions", 0, [codec.encode(prediction())]))
    batch = to_arrow(columns, decoder.dictionaries)
    for path in ("event_time", "features.distance"):
        assert batch.column(path).buffers()[1].address == columns.data[path].ctypes.data
    text = columns.data["features.carrier"]
    assert batch.column("features.carrier").buffers()[2].address == text.buffers()[2].address


def test_no_rows(codec: Codec) -> None:
    decoder = ColumnDecoder(codec, "demo.predictions", "PredictionMade", PROJECTION)
    columns, _ = decoder.decode(Records.of("demo.predictions", 0, []))
    batch = to_arrow(columns, decoder.dictionaries)
    batch.validate(full=True)
    assert batch.num_rows == 0
