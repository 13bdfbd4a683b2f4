"""What a dataset snapshot is: the query of a point-in-time join, and the same bytes for the same rows.

It holds the predictions of a time span with the labels that were known before a moment, read from
a stated part of the log. The query names that part, so it gives the same rows for as long as the log lasts.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from infra.clickhouse import moment, table_of
from models.dataset import PREFIX, Dataset, from_arrow, schema, to_arrow
from models.label_sql import first_labels
from schemas.catalogue import labels_topic, predictions_topic
from streams import quarantine
from streams.task import DAY_MS, Task

ROW_GROUP = 65_536

Offsets = Mapping[tuple[str, int], int]
"""(topic, partition) -> next offset."""


@dataclass(frozen=True, slots=True)
class Span:
    """Predictions from `from_time` (inclusive) on, labels known before `to_time` (event time, ms)."""

    from_time: int
    to_time: int


def training_span(task: Task, labels_until: int) -> Span:
    """The last `training_days` of the task's recipe before `labels_until`."""
    return Span(labels_until - task.recipe.training_days * DAY_MS, labels_until)


def topics(task: Task) -> tuple[str, str]:
    """What a snapshot of `task` is made from."""
    return predictions_topic(task.name), labels_topic(task.name)


def snapshot_sql(
    task: Task, span: Span, offsets: Offsets, excluded: Sequence[quarantine.Span] = ()
) -> str:
    """The point-in-time join: each prediction of `span` with its label, by (event time, event id).

    As in the live label join, a label counts if it came within the task's label delay, and of several the
    first in the log. `offsets`: the next offset of each partition of both topics; later rows are left out,
    and so are predictions in the spans `excluded`.
    """
    predictions, labels = topics(task)
    columns = [f"{PREFIX}{name}" for name in task.vector]
    features = ", ".join(columns)
    picked = ", ".join(f"p.{name} AS {name}" for name in columns)
    known = f"WHERE event_time < {moment(span.to_time)} AND {_before(labels, offsets)}"
    return (  # names and numbers of our own making, nothing from outside
        "SELECT p.event_id AS event_id, toUnixTimestamp64Milli(p.event_time) AS event_time,"  # noqa: S608
        " toInt8(l.label != 0) AS label, toUnixTimestamp64Milli(l.label_time) AS label_time,"
        f" {picked}"
        f" FROM (SELECT event_id, event_time, {features} FROM {table_of(predictions)} FINAL"
        f" WHERE event_time >= {moment(span.from_time)} AND event_time < {moment(span.to_time)}"
        f" AND {_before(predictions, offsets)}{_outside(excluded)}) AS p"
        f" INNER JOIN ({first_labels(task, known)}) AS l ON l.prediction_id = p.event_id"
        f" WHERE toUnixTimestamp64Milli(l.label_time) <= toUnixTimestamp64Milli(p.event_time)"
        f" + {task.label_delay_ms}"
        " ORDER BY event_time, event_id"
    )


def golden_sql(sql: str, share: float) -> str:
    """`sql` with a word on which of its rows are golden (see `models.dataset.golden_rows`)."""
    return f"{sql} -- and of these rows {share:.1%}, by the hash of event_id"


def to_parquet(task: Task, rows: Dataset) -> bytes:
    """The rows as a Parquet file with the columns of `models.dataset.schema`: equal rows, equal bytes."""
    out = io.BytesIO()
    pq.write_table(to_arrow(task, rows), out, row_group_size=ROW_GROUP, compression="zstd")
    return out.getvalue()


def from_parquet(task: Task, data: bytes) -> Dataset:
    """The rows of a snapshot; a feature that the task has got since is missing in all of them.

    Raises pyarrow.ArrowInvalid or KeyError for another file.
    """
    table = pq.read_table(io.BytesIO(data))
    for field in schema(task):
        if field.name.startswith(PREFIX) and field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return from_arrow(task, table)


def _outside(spans: Sequence[quarantine.Span]) -> str:
    return "".join(
        f" AND NOT (event_time >= {moment(span.from_time)} AND event_time < {moment(span.to_time)})"
        for span in spans
    )


def _before(topic: str, offsets: Offsets) -> str:
    """The condition for records that stand before the offsets of their partitions."""
    known = sorted((partition, end) for (name, partition), end in offsets.items() if name == topic)
    terms = [f"_partition = {partition} AND _offset < {end}" for partition, end in known]
    return f"({' OR '.join(terms) or '0'})"
