"""The label join over columns does what the one over events does, however its batches are cut."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.canonical import fingerprint
from streams.column_join import LABEL, ColumnJoin
from streams.event_key import event_key, keys_of
from streams.join import LabelJoin, Match
from streams.store import MemoryStore, Store, Tree

PREDICTION = np.dtype([("time", "<i8"), ("version", "<i8"), ("score", "<f8")])
DELAY = 50
Row = tuple[str, bytes, int, int]
"""('p' or 'l' or 'e' for expire, id, time, number)."""


def history(rng: random.Random) -> list[Row]:
    """Few ids, so that everything happens: repeats, labels first, late, several and conflicting ones."""
    ids = [event_key(f"id-{n}") for n in range(rng.choice((3, 10, 40)))]
    rows, now = [], 0
    for _ in range(rng.randint(1, 120)):
        now += rng.randrange(12)
        kind = rng.choices("ple", (10, 10, 1))[0]
        rows.append((kind, rng.choice(ids), max(0, now - rng.randrange(60)), rng.randrange(3)))
    return rows


def one_by_one(rows: list[Row]) -> tuple[LabelJoin[tuple[int, float]], list[Match | None]]:
    join: LabelJoin[tuple[int, float]] = LabelJoin(DELAY)
    met = []
    for kind, id_, time, number in rows:
        if kind == "p":
            met.append(join.prediction(id_, time, (number, number / 4)))
        elif kind == "l":
            met.append(join.label(id_, time, number))
        else:
            join.expire(time, time - number * 20)
    return join, [match for match in met if match]


def in_batches(
    rows: list[Row], rng: random.Random, predictions: Store, labels: Store
) -> tuple[ColumnJoin, list[Match]]:
    join, met = ColumnJoin(DELAY, predictions, labels), []
    at = 0
    while at < len(rows):
        end = at + 1
        while end < len(rows) and rows[end][0] == rows[at][0] != "e" and rng.random() < 0.9:
            end += 1
        batch = rows[at:end]
        ids = keys_of([row[1] for row in batch])
        times = np.array([row[2] for row in batch])
        numbers = np.array([row[3] for row in batch])
        if batch[0][0] == "e":
            join.expire(batch[0][2], batch[0][2] - batch[0][3] * 20)
        else:
            if batch[0][0] == "p":
                values = np.zeros(len(batch), PREDICTION)
                values["time"], values["version"], values["score"] = times, numbers, numbers / 4
                matches = join.predictions(ids, values)
            else:
                matches = join.labels(ids, times, numbers)
            assert (np.diff(matches.row) > 0).all()
            for (time, *payload), label in zip(
                matches.prediction.tolist(), matches.label.tolist(), strict=True
            ):
                met.append(Match(time, tuple(payload), *label))
        at = end
    return join, met


def rows_in(join: ColumnJoin) -> tuple[dict, dict]:
    """What waits, as a LabelJoin holds it."""
    stores = []
    for store in (join.waiting_predictions, join.waiting_labels):
        parts = [(keys.astype(">u8").tobytes(), values) for keys, values in store.scan()]
        stores.append(
            {
                raw[16 * n : 16 * n + 16]: value
                for raw, values in parts
                for n, value in enumerate(values.tolist())
            }
        )
    predictions = {key: (value[0], value[1:]) for key, value in stores[0].items()}
    return predictions, {k: [v, *join.more.get(k, [])] for k, v in stores[1].items()}


def compare(seed: int, predictions: Store, labels: Store) -> None:
    rng = random.Random(seed)
    rows = history(rng)
    truth, expected = one_by_one(rows)
    join, met = in_batches(rows, rng, predictions, labels)
    assert met == expected
    assert rows_in(join) == (truth.predictions, truth.labels)
    assert set(join.more) <= set(truth.labels)
    assert join.counts == truth.counts


@given(st.integers(0, 1 << 40))
@settings(max_examples=300, deadline=None)
def test_columns_join_as_events_do(seed: int) -> None:
    compare(seed, MemoryStore(PREDICTION, "time"), MemoryStore(LABEL, "time"))


@given(st.integers(0, 1 << 40))
@settings(max_examples=50, deadline=None)
def test_columns_join_on_disk_as_events_do(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("join")
    stores = [
        Tree(folder / name, dtype, "time", memory_bytes=0)
        for name, dtype in (("predictions", PREDICTION), ("labels", LABEL))
    ]
    compare(seed, *stores)
    for store in stores:
        store.close()


def test_every_prediction_and_label_is_accounted_for() -> None:
    """Taken = matched + waiting + aged out, on both sides (ids are met once here)."""
    rng = np.random.default_rng(3)
    join = ColumnJoin(DELAY, MemoryStore(PREDICTION, "time"), MemoryStore(LABEL, "time"))
    ids = rng.integers(0, 2**64, (5_000, 2), np.uint64)
    values = np.zeros(5_000, PREDICTION)
    values["time"] = np.arange(5_000)
    labelled = np.flatnonzero(rng.random(5_000) < 0.9)
    label_time = labelled + rng.integers(0, 60, len(labelled))  # some come too late
    for first in range(0, 5_000, 500):
        join.predictions(ids[first : first + 500], values[first : first + 500])
        due = (label_time >= first) & (label_time < first + 500)
        ones = np.ones(int(due.sum()), np.int64)
        join.labels(ids[labelled[due]], label_time[due], ones)
        join.expire(first, first)
    join.expire(4_999, 4_999)
    counts = join.counts
    assert counts.matched + counts.unmatched + len(join.waiting_predictions) == 5_000
    labels = int((label_time < 5_000).sum())
    waiting = len(join.waiting_labels) + sum(map(len, join.more.values()))
    assert counts.matched + counts.unused + waiting == labels
    assert 0 < counts.late <= counts.unused + waiting


def test_a_second_label_waits_behind_the_first() -> None:
    join: LabelJoin[int] = LabelJoin(DELAY)
    for time in (100, 10, 20):
        join.label("a", time, time)
    assert join.prediction("a", 10, 7) is None  # the first label is late: both are left to time
    join.expire(0, 30)
    assert join.labels == {"a": [(100, 100)]}
    assert fingerprint(join) == fingerprint(LabelJoin(DELAY, {"a": (10, 7)}, {"a": [(100, 100)]}))
