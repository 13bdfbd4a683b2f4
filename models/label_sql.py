"""The label join of the log, written as a ClickHouse query (pure)."""

from __future__ import annotations

from infra.clickhouse import table_of
from schemas.catalogue import labels_topic
from streams.task import Task


def first_labels(task: Task, where: str = "") -> str:
    """(prediction_id, label, label_time): of several labels of a prediction the first in its partition.

    `where`: which labels are looked at, with the word WHERE.
    """
    condition = f" {where}" if where else ""
    return (
        "SELECT prediction_id, argMin(label, _offset) AS label,"  # noqa: S608
        f" argMin(event_time, _offset) AS label_time FROM {table_of(labels_topic(task.name))} FINAL"
        f"{condition} GROUP BY prediction_id"
    )
