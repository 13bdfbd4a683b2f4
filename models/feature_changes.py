"""The values of computed features over time, as rows: one for each moment at which a value changed.

Each key has a row at the begin, if only to say that nothing is known yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.feature_sql import half_hours, key_text, keys_sql, observations, rate_sql
from models.history import History
from streams.features import BUCKET_MS
from streams.task import HOUR_MS, Observed, Rate, Task

MAX_ROWS = 10_000_000
TIMESTAMP = "event_timestamp"

Floats = NDArray[np.float64]


class TooMuch(ValueError):
    """More rows than fit in memory; the message says what to do."""


def rate_changes(
    history: History,
    task: Task,
    by: Sequence[str],
    rates: Sequence[Rate],
    span: tuple[int, int],
) -> pa.Table:
    """Rates of the same keys in a span of event time (ms, [from, to)): at its begin and at each change.

    Columns: the keys as text, event_timestamp, the rates. Raises HistoryUnavailable or TooMuch.
    """
    keys = _keys(history, task, by, span[1])
    first = span[0] // BUCKET_MS
    count = -(-span[1] // BUCKET_MS) - first
    if len(keys) * count > MAX_ROWS:
        raise TooMuch(
            f"{len(keys):,} values of {' and '.join(by)} at {count:,} half hours are more than"
            f" {MAX_ROWS:,} rows: name a shorter span"
        )
    spine = half_hours(task, by, span[1], first, count)
    places = {key: place for place, key in enumerate(keys)}
    values = np.full((len(rates), len(keys), count), np.nan)
    for row, rate in enumerate(rates):
        found = history.query(rate_sql(task, rate, spine))
        for id_, value in zip(found["id"].to_pylist(), found["value"].to_pylist(), strict=True):
            key, _, bucket = id_.rpartition("@")
            values[row, places[key], int(bucket) - first] = np.nan if value is None else value
    step, place = np.nonzero(_changes(values).T)
    parts = list(keys.values())
    columns = {name: [parts[p][n] for p in place] for n, name in enumerate(by)}
    named = {rate.name: values[row, place, step] for row, rate in enumerate(rates)}
    return _table(columns, (step + first) * BUCKET_MS, named)


def observed_changes(
    history: History, task: Task, by: str, observed: Sequence[Observed], span: tuple[int, int]
) -> pa.Table:
    """Observations about the same entity in a span; columns as in `rate_changes`.

    A row for each observation, and one with a null for the moment at which it is too old: a reader of the
    newest row needs to know no maximum age. What is still valid at the begin is among them.
    """
    since = span[0] - max(feature.max_age_hours for feature in observed) * HOUR_MS
    steps: dict[tuple[str, int], dict[str, float | None]] = {}
    nothing = {feature.name: None for feature in observed}
    for feature in observed:
        sql = (
            f"SELECT key, at, value FROM ({observations(task, feature)})"  # noqa: S608
            f" WHERE at >= {since} AND at < {span[1]} ORDER BY key, at"
        )
        found = history.query(sql).to_pylist()
        for row, after in zip(found, [*found[1:], None], strict=True):
            steps.setdefault((row["key"], since), dict(nothing))
            steps.setdefault((row["key"], row["at"]), {})[feature.name] = row["value"]
            expires = row["at"] + feature.max_age_hours * HOUR_MS + 1
            if after is None or after["key"] != row["key"] or after["at"] > expires:
                steps.setdefault((row["key"], expires), {})[feature.name] = None
    rows: list[tuple[int, str, dict[str, float | None]]] = []
    known: dict[str, float | None] = {}
    for key, at in sorted(steps):  # a key's first step tells of all features
        known = {**known, **steps[key, at]}
        rows.append((at, key, known))
    rows.sort(key=lambda row: row[:2])
    named = {
        feature.name: np.array([values[feature.name] for *_, values in rows], dtype=np.float64)
        for feature in observed
    }
    times = np.array([at for at, *_ in rows], dtype=np.int64)
    return _table({by: [key for _, key, _ in rows]}, times, named)


def _keys(
    history: History, task: Task, by: Sequence[str], until: int
) -> dict[str, tuple[str, ...]]:
    """Key -> the texts that it is made of."""
    if not by:
        return {"": ()}
    texts = ", ".join(f"{key_text(task, (name,))} AS text_{name}" for name in by)
    sql = f"SELECT {key_text(task, by)} AS key, {texts} FROM ({keys_sql(task, by, until)})"  # noqa: S608
    rows = history.query(sql).to_pylist()
    found = {row["key"]: tuple(row[f"text_{name}"] for name in by) for row in rows}
    return dict(sorted(found.items()))


def _changes(values: Floats) -> NDArray[np.bool_]:
    """(features, keys, steps) -> (keys, steps): the first step, and where a value is not that before."""
    before, after = values[..., :-1], values[..., 1:]
    same = (after == before) | (np.isnan(after) & np.isnan(before))
    return np.pad(~same.all(axis=0), ((0, 0), (1, 0)), constant_values=True)


def _table(
    keys: Mapping[str, Sequence[str]], times: NDArray[np.int64], values: Mapping[str, Floats]
) -> pa.Table:
    columns = {name: pa.array(texts, pa.string()) for name, texts in keys.items()}
    columns[TIMESTAMP] = pa.array(times, pa.timestamp("ms", "UTC"))
    for name, numbers in values.items():
        columns[name] = pa.array(numbers, pa.float64(), from_pandas=True)
    return pa.table(columns)
