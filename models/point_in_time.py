"""Served against stored features: what a prediction was served, and what an ASOF join gives it afterwards.

Training reads the served vectors from the log, so it cannot see anything else. These queries show that
the history would have given the same values: the newest observation at or before the question, by event time.
"""

from __future__ import annotations

from schemas.catalogue import features_topic, predictions_topic
from streams.task import Category, Observed, Task


def asof_sql(task: Task, feature: Observed) -> str:
    """Per prediction `event_id`, `event_time`, what was `served`, and the `stored` value of the feature.

    `stored` is the newest observation of the entity not after the prediction, null if it is older than the
    feature's `max_age_hours`. Raises ValueError unless the feature is looked up by a category.
    """
    if not any(f.name == feature.by and isinstance(f, Category) for f in task.features):
        raise ValueError(f"{feature.name} is looked up by {feature.by}, which is no Category")
    predictions, observations = (
        f"driftlog.{topic.replace('.', '_')}"
        for topic in (predictions_topic(task.name), features_topic(task.name))
    )
    return (  # names and numbers of our own making, nothing from outside
        "SELECT p.event_id AS event_id, p.event_time AS event_time, p.served AS served,"  # noqa: S608
        f" if(o.event_time >= p.event_time - INTERVAL {feature.max_age_hours} HOUR, o.stored, NULL)"
        " AS stored"
        f" FROM (SELECT event_id, event_time, features_{feature.name} AS served,"
        f" ifNull(features_{feature.by}, 'None') AS key FROM {predictions} FINAL) AS p"
        f" ASOF LEFT JOIN (SELECT key, event_time, values_{feature.value} AS stored"
        f" FROM {observations} FINAL WHERE entity = '{feature.by}') AS o"
        " ON o.key = p.key AND o.event_time <= p.event_time"
    )


def skew_sql(task: Task, feature: Observed) -> str:
    """One row: `predictions`, how many were served another value than is stored, `different`."""
    equal = "ifNull(served = stored, isNull(served) AND isNull(stored))"
    return (
        f"SELECT count() AS predictions, countIf(NOT {equal}) AS different"  # noqa: S608
        f" FROM ({asof_sql(task, feature)})"
    )


def observed(task: Task) -> list[Observed]:
    """The features that can be compared so."""
    return [feature for feature in task.features if isinstance(feature, Observed)]
