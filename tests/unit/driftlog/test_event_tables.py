"""Every system event fits an Arrow table with the columns of its schema."""

from __future__ import annotations

import pyarrow as pa
import pytest

from driftlog.event_tables import event_table
from schemas.catalogue import load_schema, system_topics
from tests.unit.streams.build import registered

SCHEMAS = [schema for topic in system_topics() for schema in topic.schemas]


@pytest.mark.parametrize("schema", SCHEMAS, ids=[schema["name"] for schema in SCHEMAS])
def test_without_events_there_are_columns(schema: dict) -> None:
    table = event_table(schema, [])
    assert table.num_rows == 0
    assert table.column_names == [field["name"] for field in schema["fields"]]
    assert table.schema.field("event_time").type == pa.timestamp("ms", tz="UTC")


def test_nested_records_and_maps_are_kept() -> None:
    event = registered("toy-1", time=86_400_000)
    row = event_table(load_schema("ModelRegistered"), [event]).to_pylist()[0]
    assert row["event_time"].isoformat() == "1970-01-02T00:00:00+00:00"
    assert dict(row["metrics"]) == {"log_loss": 0.5}
    assert row["reference"][0]["edges"] == [1.0, 2.0]


def test_an_unknown_type_is_named() -> None:
    with pytest.raises(ValueError, match="enum"):
        event_table({"fields": [{"name": "x", "type": {"type": "enum"}}]}, [])
