"""Features out of the history: the definitions of `streams.features`, written as ClickHouse queries (pure).

The online store holds a feature as of now; these queries give it as of any moment, for rows of one's own
choice (a *spine*). Rates come from cumulative counts by half hour, joined ASOF at both ends of their hours,
observations from one ASOF join. The same integers are divided as in the fold: values are equal to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from infra.clickhouse import moment, table_of
from models.label_sql import first_labels
from schemas.catalogue import features_topic, predictions_topic
from streams.features import BUCKET_MS
from streams.task import HOUR_MS, Observed, Rate, Task


@dataclass(frozen=True, slots=True)
class Spine:
    """Rows to compute features for: a subquery with `id`, `t` (ms, Int64) and `<feature>` of each key."""

    sql: str


def logged(task: Task, from_time: int, to_time: int) -> Spine:
    """The predictions of a span of event time (ms, [from, to)), with the features that look others up."""
    keys = ", ".join(f"features_{name} AS {name}" for name in lookups(task))
    return Spine(
        f"SELECT event_id AS id, toUnixTimestamp64Milli(event_time) AS t{', ' if keys else ''}{keys}"  # noqa: S608
        f" FROM {table_of(predictions_topic(task.name))} FINAL"
        f" WHERE event_time >= {moment(from_time)} AND event_time < {moment(to_time)}"
    )


def lookups(task: Task) -> tuple[str, ...]:
    """The given features that rates and observations are looked up by, each once."""
    names: dict[str, None] = {}
    for feature in task.features:
        if isinstance(feature, Rate):
            names.update(dict.fromkeys(feature.by))
        elif isinstance(feature, Observed):
            names[feature.by] = None
    return tuple(names)


def feature_sql(task: Task, feature: Rate | Observed, spine: Spine) -> str:
    """A query for (id, value) of one feature at each row of the spine; value is null where it is missing."""
    if isinstance(feature, Rate):
        return rate_sql(task, feature, spine)
    return observed_sql(task, feature, spine)


def rate_sql(task: Task, feature: Rate, spine: Spine) -> str:
    """As `streams.features` has it: whole half hours before t, shrunk towards the rate of all keys."""
    span = feature.hours * HOUR_MS // BUCKET_MS
    until = f"intDiv(t, {BUCKET_MS})"
    everything, own = cumulative(task, ()), cumulative(task, feature.by)
    base = "(all_hi.positives - all_lo.positives) / (all_hi.labels - all_lo.labels)"
    if feature.by:
        labels, positives = "own_hi.labels - own_lo.labels", "own_hi.positives - own_lo.positives"
    else:
        labels, positives = "all_hi.labels - all_lo.labels", "all_hi.positives - all_lo.positives"
    strength = repr(float(feature.strength))
    joins = [("all_hi", everything, "nobody", "until"), ("all_lo", everything, "nobody", "since")]
    if feature.by:
        joins += [("own_hi", own, "key", "until"), ("own_lo", own, "key", "since")]
    joined = " ".join(
        f"ASOF LEFT JOIN ({counts}) AS {name} ON {name}.key = s.{key} AND {name}.bucket < s.{edge}"
        for name, counts, key, edge in joins
    )
    return (
        f"SELECT s.id AS id, if(all_hi.labels = all_lo.labels, NULL,"  # noqa: S608
        f" (({positives}) + {strength} * ({base})) / (({labels}) + {strength})) AS value"
        f" FROM (SELECT id, {until} AS until, {until} - {span} AS since, '' AS nobody,"
        f" {key_text(task, feature.by)} AS key FROM ({spine.sql})) AS s {joined}"
    )


def half_hours(task: Task, by: Sequence[str], until: int, first: int, count: int) -> Spine:
    """Each key that was asked for before `until` (ms), at `count` half hours from number `first` on.

    `id` is '<key>@<number of the half hour>'.
    """
    buckets = f"SELECT toInt64(number) + {first} AS bucket FROM numbers({count})"  # noqa: S608
    columns = "".join(f", {name}" for name in by)
    keys = f" CROSS JOIN ({keys_sql(task, by, until)}) AS k" if by else ""
    return Spine(
        f"SELECT concat({key_text(task, by)}, '@', toString(bucket)) AS id,"  # noqa: S608
        f" bucket * {BUCKET_MS} AS t{columns} FROM ({buckets}) AS b{keys}"
    )


def keys_sql(task: Task, by: Sequence[str], until: int) -> str:
    """The different values of `by`, none of them null, among the predictions before `until` (ms)."""
    names = ", ".join(f"features_{name} AS {name}" for name in by)
    known = " AND ".join(f"isNotNull(features_{name})" for name in by)
    return (
        f"SELECT DISTINCT {names} FROM {table_of(predictions_topic(task.name))} FINAL"  # noqa: S608
        f" WHERE event_time < {moment(until)} AND {known}"
    )


def cumulative(task: Task, by: Sequence[str]) -> str:
    """Labels and positives of each key up to and with each half hour in which one came.

    The label join of the log: of several labels of a prediction the first in its partition counts, and only
    within the task's label delay.
    """
    columns = "".join(f", features_{name} AS {name}" for name in by)
    known = "toUnixTimestamp64Milli(label_time)"
    in_order = "OVER (PARTITION BY key ORDER BY bucket)"
    return (
        f"SELECT key, bucket, sum(n) {in_order} AS labels, sum(positive) {in_order} AS positives"  # noqa: S608
        f" FROM (SELECT {key_text(task, by)} AS key, intDiv({known}, {BUCKET_MS}) AS bucket,"
        " toInt64(count()) AS n, toInt64(sum(label)) AS positive"
        f" FROM (SELECT event_id, toUnixTimestamp64Milli(event_time) AS asked{columns}"
        f" FROM {table_of(predictions_topic(task.name))} FINAL) AS p"
        f" INNER JOIN ({first_labels(task)}) AS l ON l.prediction_id = p.event_id"
        f" WHERE {known} <= asked + {task.label_delay_ms} GROUP BY key, bucket)"
    )


def observed_sql(task: Task, feature: Observed, spine: Spine) -> str:
    """The newest observation at or before t, if it is not older than `max_age_hours`."""
    oldest = feature.max_age_hours * HOUR_MS
    return (
        f"SELECT s.id AS id, if(o.at >= s.t - {oldest}, o.value, NULL) AS value"  # noqa: S608
        f" FROM (SELECT id, t, {key_text(task, (feature.by,))} AS key FROM ({spine.sql})) AS s"
        f" ASOF LEFT JOIN ({observations(task, feature)}) AS o ON o.key = s.key AND o.at <= s.t"
    )


def observations(task: Task, feature: Observed) -> str:
    """(key, at, value) of what was observed; of several at one moment the one with the greatest id counts."""
    return (
        "SELECT key, toUnixTimestamp64Milli(event_time) AS at,"  # noqa: S608
        f" tupleElement(argMax(tuple(values_{feature.value}), event_id), 1) AS value"
        f" FROM {table_of(features_topic(task.name))} FINAL"
        f" WHERE entity = '{feature.by}' GROUP BY key, at"
    )


def key_text(task: Task, by: Sequence[str]) -> str:
    """The values of `by` as the fold writes them into a key."""
    texts = [_text(name, task.vector[name]) for name in by]
    return f"concat({', '.join(_between(texts))})" if texts else "''"


def _between(texts: Sequence[str]) -> list[str]:
    return [part for text in texts for part in ("'+'", text)][1:]


def _text(name: str, kind: str) -> str:
    """`str(value)` of Python: None for null, 5.0 for a whole number."""
    if kind == "string":
        return f"ifNull({name}, 'None')"
    whole = f"concat(toString(toInt64({name})), '.0')"
    return f"ifNull(if({name} = trunc({name}) AND abs({name}) < 1e15, {whole}, toString({name})), 'None')"
