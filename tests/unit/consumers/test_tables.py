from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from consumers.history.columns import Column
from consumers.history.store import Store
from consumers.history.tables import (
    DEAD_LETTERS,
    SchemaDrift,
    Table,
    create_statement,
    event_table,
    upgrade_statements,
)
from infra.clickhouse import table_name
from schemas.catalogue import Topic, task_topics
from tests.unit.consumers.history_data import TOPICS


@pytest.mark.parametrize(
    ("topic", "table"),
    [
        ("driftlog.drift_scores", "drift_scores"),
        ("flights.predictions", "flights_predictions"),
    ],
)
def test_a_table_is_named_as_its_topic(topic: str, table: str) -> None:
    assert table_name(topic) == table


def test_a_task_table_has_its_features_as_columns_and_the_coordinates() -> None:
    table = event_table(task_topics("flights", {"distance": "double", "carrier": "string"}, [])[0])
    columns = {column.name: column.type for column in table.columns}
    assert columns["features_distance"] == "Nullable(Float64)"
    assert columns["features_carrier"] == "LowCardinality(Nullable(String))"
    assert columns["event_time"] == "DateTime64(3, 'UTC')"
    assert {
        "_type",
        "_topic",
        "_partition",
        "_offset",
        "_recorded_at",
        "_ingested_at",
    } <= columns.keys()


def test_what_only_some_record_types_have_is_optional() -> None:
    topic = next(topic for topic in TOPICS if topic.name == "driftlog.training_runs")
    columns = {column.name: column.type for column in event_table(topic).columns}
    assert columns["reason"] == "Nullable(String)"
    assert columns["task"] == "LowCardinality(String)"


def _topic(*types: tuple[str, Any]) -> Topic:
    return Topic(
        "clash",
        tuple(
            {"type": "record", "name": name, "fields": [{"name": "value", "type": type_}]}
            for name, type_ in types
        ),
    )


def test_record_types_that_disagree_about_a_column_are_refused() -> None:
    with pytest.raises(SchemaDrift, match="value is String in one record type, Int64 in another"):
        event_table(_topic(("A", "string"), ("B", "long")))
    widened = event_table(_topic(("A", "int"), ("B", "long"))).columns[0]
    assert widened.type == "Int64"


def test_nothing_is_altered_when_nothing_has_changed(store: Store) -> None:
    """What ClickHouse says about every table it was given is what was asked for."""
    rows = store._rows("SELECT table, name, type FROM system.columns WHERE database = 'driftlog'")
    stored: dict[str, dict[str, str]] = {}
    for table, name, type_ in rows:
        stored.setdefault(table, {})[name] = type_
    for topic in TOPICS:
        table = event_table(topic)
        assert stored[table.name].keys() == {column.name for column in table.columns}
        assert upgrade_statements(table, stored[table.name]) == []
    assert upgrade_statements(DEAD_LETTERS, stored["dead_letters"]) == []


def test_a_new_field_is_added_and_a_narrow_one_widened_without_losing_rows(store: Store) -> None:
    def table(*columns: Column) -> Table:
        version = Column("_rank", "UInt64", expression="DEFAULT 1")
        return Table("evolving", (*columns, version), "event_id", "_rank")

    old = table(Column("event_id", "String"), Column("n", "Int32"))
    store.prepare([old])
    store._command("INSERT INTO driftlog.evolving (event_id, n) VALUES ('a', 7)")
    new = table(
        Column("event_id", "String"),
        Column("n", "Nullable(Int64)"),
        Column("added", "LowCardinality(Nullable(String))"),
        Column("parts", "Array(Tuple(name String))"),
    )
    store.prepare([new])
    assert list(store._rows("SELECT event_id, n, added, parts FROM driftlog.evolving")) == [
        ("a", 7, None, [])
    ]
    store.prepare([new])
    wrong = dataclasses.replace(new, columns=(Column("n", "String"), *new.columns[2:]))
    with pytest.raises(SchemaDrift, match=r"driftlog\.evolving\.n is stored as Nullable\(Int64\)"):
        store.prepare([wrong])


def test_comments_are_quoted() -> None:
    table = Table("t", (Column("a", "String", comment="it's \\ odd"),), "a", "a", "it's")
    statement = create_statement(table)
    assert r"COMMENT 'it\'s \\ odd'" in statement
