"""From a topic to its table: columns, DDL, and the steps that bring an old table up to date (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from consumers.history.columns import Column, nullable_type, record_columns, widened
from infra.clickhouse import DATABASE, table_name
from schemas.catalogue import Topic

_NOW = "DateTime64(3, 'UTC')"

_ENVELOPE = (
    Column("_type", "LowCardinality(String)", comment="Record type of the event."),
    Column("_topic", "LowCardinality(String)", comment="Topic it was read from."),
    Column("_partition", "Int32", comment="Partition of the topic."),
    Column("_offset", "Int64", comment="Offset in the partition."),
    Column("_recorded_at", _NOW, comment="Timestamp of the Kafka record."),
    Column(
        "_ingested_at",
        _NOW,
        comment="When the row was written here.",
        expression="DEFAULT now64(3, 'UTC')",
    ),
    # FINAL keeps the row of the highest version: the one with the lowest partition and offset.
    Column(
        "_rank",
        "UInt64",
        comment="Version for ReplacingMergeTree: highest for the lowest (_partition, _offset).",
        expression="MATERIALIZED bitShiftLeft(toUInt64(65535 - _partition), 48)"
        " + toUInt64(281474976710655 - _offset)",
    ),
)


class SchemaDrift(ValueError):
    """A stored column cannot take the values of today's schema; the message names table and column."""


@dataclass(frozen=True, slots=True)
class Table:
    """A ReplacingMergeTree of database `driftlog`."""

    name: str
    columns: tuple[Column, ...]
    order_by: str
    version: str
    comment: str = ""

    @property
    def qualified(self) -> str:
        return f"{DATABASE}.{self.name}"

    def written(self) -> tuple[str, ...]:
        """Names of the columns that an insert gives; the others have expressions."""
        return tuple(column.name for column in self.columns if not column.expression)


DEAD_LETTERS = Table(
    "dead_letters",
    (
        Column("_topic", "LowCardinality(String)", comment="Topic it was read from."),
        Column("_partition", "Int32", comment="Partition of the topic."),
        Column("_offset", "Int64", comment="Offset in the partition."),
        Column("_recorded_at", _NOW, comment="Timestamp of the Kafka record."),
        Column("error", "LowCardinality(String)", comment="Class of the error."),
        Column("message", "String", comment="What is wrong with the bytes."),
        Column("key_base64", "Nullable(String)", comment="Record key."),
        Column("value_base64", "Nullable(String)", comment="Record value as it was read."),
        Column("_ingested_at", _NOW, expression="DEFAULT now64(3, 'UTC')"),
    ),
    order_by="(_topic, _partition, _offset)",
    version="_ingested_at",
    comment="What could not be decoded; the same records stand on <topic>.dlq.",
)

POSITIONS = Table(
    "positions",
    (
        Column("topic", "LowCardinality(String)", comment="Topic."),
        Column(
            "topic_id", "String", comment="Kafka's id of the topic: a new one if it was re-created."
        ),
        Column("partition", "Int32", comment="Partition."),
        Column("next_offset", "UInt64", comment="Everything before this offset is stored."),
        Column("stored_at", _NOW, expression="DEFAULT now64(3, 'UTC')"),
    ),
    order_by="(topic, partition)",
    version="next_offset",
    comment="How far each partition has been stored; written after the rows themselves.",
)


def event_table(topic: Topic) -> Table:
    """The table of a topic: the fields of all its record types and the envelope.

    Raises SchemaDrift if two record types of the topic give one column types that do not fit.
    """
    types = [{column.name: column for column in record_columns(schema)} for schema in topic.schemas]
    merged: dict[str, Column] = {}
    for columns in types:
        for column in columns.values():
            merged[column.name] = _merge(topic.name, merged.get(column.name), column)
    fields = tuple(
        column if all(column.name in columns for columns in types) else _optional(column)
        for column in merged.values()
    )
    names = ", ".join(str(schema["name"]) for schema in topic.schemas)
    return Table(
        table_name(topic.name), (*fields, *_ENVELOPE), "event_id", "_rank", f"Events: {names}."
    )


def _merge(topic: str, one: Column | None, other: Column) -> Column:
    if one is None:
        return other
    type_ = widened(one.type, other.type)
    if type_ is None:
        raise SchemaDrift(
            f"topic {topic}: {one.name} is {one.type} in one record type, {other.type} in another"
        )
    return Column(one.name, type_, one.path, one.comment or other.comment)


def _optional(column: Column) -> Column:
    return Column(column.name, nullable_type(column.type), column.path, column.comment)


def create_statement(table: Table) -> str:
    """`CREATE TABLE IF NOT EXISTS ...`, the same for chDB and a server."""
    columns = ",\n    ".join(_declaration(column) for column in table.columns)
    return (
        f"CREATE TABLE IF NOT EXISTS {table.qualified}\n(\n    {columns}\n)\n"
        f"ENGINE = ReplacingMergeTree({table.version})\nORDER BY {table.order_by}\n"
        f"COMMENT {_quoted(table.comment)}"
    )


def upgrade_statements(table: Table, stored: Mapping[str, str]) -> list[str]:
    """The ALTERs that make a stored table (name -> type of its columns) hold today's events.

    New columns are added, narrow ones widened; a column that no schema names any more stays.
    Raises SchemaDrift where a stored type can hold neither.
    """
    statements = []
    for column in table.columns:
        if column.name not in stored:
            statements.append(f"ALTER TABLE {table.qualified} ADD COLUMN {_declaration(column)}")
            continue
        type_ = widened(stored[column.name], column.type)
        if type_ is None:
            raise SchemaDrift(
                f"{table.qualified}.{column.name} is stored as {stored[column.name]}, the schema now"
                f" says {column.type}: delete the history (it is rebuilt from the log) or undo the change"
            )
        if type_ != stored[column.name]:
            statements.append(
                f"ALTER TABLE {table.qualified} MODIFY COLUMN {_identifier(column.name)} {type_}"
            )
    return statements


def _declaration(column: Column) -> str:
    parts = [_identifier(column.name), column.type, column.expression]
    if column.comment:
        parts.append(f"COMMENT {_quoted(column.comment)}")
    return " ".join(part for part in parts if part)


def _identifier(name: str) -> str:
    return f"`{name}`"  # Avro names hold only letters, digits and `_`


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
