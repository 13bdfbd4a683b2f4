"""The feature store's offline side: vectors of any moment, and whether serving ever answered with others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infra.clickhouse import moment, table_of
from models.feature_sql import Spine, feature_sql, logged, lookups
from models.history import History, quoted
from schemas.catalogue import predictions_topic
from streams.task import Observed, Rate, Task


@dataclass(frozen=True, slots=True)
class Skew:
    """One feature as served beside what the history computes for the same moment.

    `largest`: the largest absolute difference where both are known; `example`: an event_id that differs.
    """

    feature: str
    rows: int
    equal: int
    largest: float
    example: str | None

    @property
    def passed(self) -> bool:
        return self.equal == self.rows


def computed(task: Task) -> list[Rate | Observed]:
    """The features that the store computes; the others are given with each request."""
    return [feature for feature in task.features if isinstance(feature, Rate | Observed)]


def vector_at(history: History, task: Task, given: Mapping[str, Any], at: int) -> dict[str, Any]:
    """The vector of a request at event time `at` (ms), from the history; raises HistoryUnavailable."""
    spine = one_row(task, given, at)
    values = dict(given)
    for feature in computed(task):
        (row,) = history.query(feature_sql(task, feature, spine)).to_pylist()
        values[feature.name] = row["value"]
    return {name: values.get(name) for name in task.vector}


def skew(history: History, task: Task, feature: Rate | Observed, span: tuple[int, int]) -> Skew:
    """Compare every logged prediction of a span of event time (ms, [from, to)); raises HistoryUnavailable."""
    (row,) = history.query(skew_sql(task, feature, span)).to_pylist()
    return Skew(
        feature.name, row["rows"], row["equal"], row["largest"] or 0.0, row["example"] or None
    )


def skew_sql(task: Task, feature: Rate | Observed, span: tuple[int, int]) -> str:
    """One row: how many predictions of the span there are, how many were served what the history says."""
    same = "(isNull(c.value) AND isNull(p.served)) OR ifNull(c.value = p.served, 0)"
    served = (
        f"SELECT event_id, features_{feature.name} AS served"  # noqa: S608
        f" FROM {table_of(predictions_topic(task.name))} FINAL"
        f" WHERE event_time >= {moment(span[0])} AND event_time < {moment(span[1])}"
    )
    return (
        f"SELECT count() AS rows, countIf({same}) AS equal, max(abs(c.value - p.served)) AS largest,"  # noqa: S608
        f" minIf(p.event_id, NOT ({same})) AS example"
        f" FROM ({feature_sql(task, feature, logged(task, *span))}) AS c"
        f" INNER JOIN ({served}) AS p ON p.event_id = c.id"
    )


def one_row(task: Task, given: Mapping[str, Any], at: int) -> Spine:
    """A spine of one row (id 'row'): the given features of a request at event time `at` (ms)."""
    columns = "".join(
        f", {_literal(given.get(name), task.vector[name])} AS {name}" for name in lookups(task)
    )
    return Spine(f"SELECT 'row' AS id, toInt64({at}) AS t{columns}")


def _literal(value: object, kind: str) -> str:
    if kind == "string":
        text = "NULL" if value is None else quoted(str(value))
        return f"CAST({text} AS Nullable(String))"
    number = "NULL" if value is None else repr(float(str(value)))
    return f"CAST({number} AS Nullable(Float64))"
