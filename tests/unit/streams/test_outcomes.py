"""Outcome windows: the same numbers in whatever order predictions and labels arrive."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.columnar import Columns
from schemas.event import Event
from streams.canonical import fingerprint
from streams.event_key import event_key, keys_of
from streams.fold import Projector
from streams.outcome_columns import OutcomeColumns
from streams.outcome_sums import FIXED_POINT, losses, score_bin
from streams.outcomes import OutcomeWindows, log_loss
from tests.unit.streams.build import DAY, HOUR, TASK, label, prediction
from tests.unit.streams.test_windows import interleave


def play(events: list[Event], partitions: int = 1) -> tuple[Projector, list[Event]]:
    projector = Projector([OutcomeWindows(TASK, partitions)])
    said: list[Event] = []
    for event in events:
        said += projector.react(event)
    return projector, said


def test_a_window_is_stated_when_its_labels_have_had_their_time() -> None:
    _, said = play(
        [
            prediction("a", 1 * HOUR, offset=0, score=0.9),
            prediction("b", 2 * HOUR, offset=1, score=0.2),
            prediction("never", 3 * HOUR, offset=2),
            label("a", 4 * HOUR, 1, offset=0),
            label("b", 5 * HOUR, 0, offset=1),
            prediction("z", DAY + 7 * HOUR, offset=3),
            label("early", DAY + 5 * HOUR, 0, offset=2),
            label("z", DAY + 7 * HOUR, 0, offset=3),
        ]
    )
    assert len(said) == 1
    data = said[0].data
    assert (data["count"], data["partition"], data["kind"]) == (3, -1, "outcomes")
    assert data["totals"]["positives"] == 1
    expected = log_loss(0.9, 1) + log_loss(0.2, 0)
    assert math.isclose(data["totals"]["log_loss"] / 1e6, expected, abs_tol=2e-6)
    assert [sum(column["counts"]) for column in data["columns"]] == [1, 1]
    assert data["caused_by"] == "label-z"


def test_a_label_after_the_delay_does_not_count() -> None:
    projector, _ = play(
        [prediction("a", 0, offset=0), label("a", 7 * HOUR, 1), label("x", 9 * DAY, 1, offset=1)]
    )
    windows = projector.states["toy.outcomes"].windows
    assert [sum(map(sum, window.scores)) for window in windows.values()] == [0]


def test_waiting_predictions_and_labels_are_forgotten_in_time() -> None:
    events = [prediction(f"p{n}", n * HOUR, offset=n) for n in range(200)]
    events += [label(f"q{n}", n * HOUR, 1, offset=n) for n in range(200)]
    projector, _ = play(events)
    join = projector.states["toy.outcomes"].join
    assert len(join.predictions) <= 8
    assert len(join.labels) <= 8


@given(st.integers(0, 10_000))
def test_interleavings_change_nothing(seed: int) -> None:
    rng = random.Random(seed)
    streams: list[list[Event]] = []
    for partition in range(2):
        times = sorted(rng.randrange(2 * DAY) for _ in range(25))
        streams.append(
            [
                prediction(
                    f"{partition}-{n}", time, partition=partition, offset=n, score=rng.random()
                )
                for n, time in enumerate(times)
            ]
        )
        arrivals = sorted(
            (time + rng.randrange(8 * HOUR), f"{partition}-{n}", rng.randint(0, 1))
            for n, time in enumerate(times)
            if rng.random() < 0.9
        )
        streams.append(
            [
                label(name, time, value, partition=1 - partition, offset=n)
                for n, (time, name, value) in enumerate(arrivals)
            ]
        )
    one, _ = play([event for stream in streams for event in stream], partitions=2)
    other, _ = play(interleave(streams, rng), partitions=2)
    assert final(one) == final(other)


def final(projector: Projector) -> dict[object, object]:
    """What the windows hold in the end."""
    windows = projector.states["toy.outcomes"].windows
    return {key: (w.count, w.scores, w.log_loss, w.brier, w.score) for key, w in windows.items()}


def disordered(rng: random.Random) -> list[Event]:
    """Two partitions each, out of order, repeats, two versions, and labels early, late, twice or never."""
    events: list[Event] = []
    ends = {("p", 0): 0, ("p", 1): 0, ("l", 0): 0, ("l", 1): 0}
    days = rng.choice((2, 5, 20))
    times = sorted(rng.randrange(days * DAY) for _ in range(rng.randint(1, 60)))
    waiting: list[tuple[int, str]] = []
    for n, time in enumerate(times):
        waiting += [
            (time + rng.randrange(8 * HOUR), f"p{n}") for _ in range(rng.choice((0, 1, 1, 2)))
        ]
        out_of_order = max(0, time - rng.choice((0, 0, 0, HOUR, DAY, 12 * DAY)))
        partition = rng.randrange(2)
        name = f"p{n}" if rng.random() < 0.95 else f"p{n // 2}"
        score = rng.choice((0.0, 1.0, rng.random()))
        offset = ends["p", partition]
        ends["p", partition] += 1
        version = rng.choice(("toy-1", "toy-1", "toy-2"))
        events.append(prediction(name, out_of_order, version, partition, offset, score=score))
        rng.shuffle(waiting)
        while waiting and rng.random() < 0.6:
            known, of = waiting.pop()
            partition = rng.randrange(2)
            offset = ends["l", partition]
            ends["l", partition] += 1
            events.append(label(of, known, rng.randint(0, 1), partition, offset))
    return events


def columns_of(events: list[Event], codes: dict[str, int]) -> Columns:
    """Events of one partition as a decoder gives them."""
    at = events[0].at
    assert at is not None
    data: dict[str, object] = {
        "event_id": keys_of([event_key(event.id) for event in events]),
        "event_time": np.array([event.time for event in events]),
    }
    if events[0].type == "PredictionMade":
        versions = [event.data["model_version"] for event in events]
        data["model_version"] = np.array(
            [codes.setdefault(version, len(codes)) for version in versions], np.int32
        )
        data["score"] = np.array([event.data["score"] for event in events])
    else:
        data["prediction_id"] = keys_of([event_key(e.data["prediction_id"]) for e in events])
        data["label"] = np.array([event.data["label"] for event in events])
    offsets = np.array([event.at.offset for event in events if event.at])
    return Columns(at.topic, at.partition, offsets, np.zeros_like(offsets), data)


def names(batch: list[Event]) -> Callable[[int], str]:
    return lambda row: batch[row].id


def batches(events: list[Event], rng: random.Random, cut: float) -> list[list[Event]]:
    """Neighbours of one partition, cut at random."""
    found: list[list[Event]] = []
    for event in events:
        last = found[-1][-1] if found else event
        assert event.at is not None and last.at is not None
        same = (event.at.topic, event.at.partition) == (last.at.topic, last.at.partition)
        if not found or not same or rng.random() < cut:
            found.append([])
        found[-1].append(event)
    return found


def partition_by_partition(events: list[Event], rng: random.Random) -> list[Event]:
    """Some stretches put in the order of their partitions, so that there are batches of more than one."""
    ordered: list[Event] = []
    while events:
        size = rng.choice((1, 5, 30))
        stretch, events = events[:size], events[size:]
        ordered += sorted(stretch, key=lambda e: (e.at.topic, e.at.partition))  # type: ignore[union-attr]
    return ordered


@given(st.integers(0, 1 << 40))
@settings(max_examples=200, deadline=None)
def test_columns_say_and_hold_what_events_do(seed: int) -> None:
    rng = random.Random(seed)
    events = partition_by_partition(disordered(rng), rng)
    rows, columns = OutcomeWindows(TASK, 2), OutcomeColumns(TASK, 2)
    row_state, state = rows.initial(), columns.initial()
    said: dict[tuple[object, ...], Event] = {}
    codes: dict[str, int] = {}
    for batch in batches(events, rng, rng.choice((0.0, 0.3))):
        newest: dict[tuple[object, ...], Event] = {}
        for event in batch:
            row_state = rows.apply(row_state, (event,))
            for statement in rows.react(row_state, event):
                window = statement.data["model_version"], statement.data["window_start"]
                assert (
                    said.setdefault((*window, statement.data["revision"]), statement) == statement
                )
                newest[window] = statement
        answers = columns.absorb(
            state, columns_of(batch, codes), {"model_version": list(codes)}, names(batch)
        )
        known = row_state.windows  # a window may be stated and forgotten within a batch
        assert answers == [newest[w] for w in sorted(newest, key=lambda w: w[::-1]) if w in known]
        assert state.join.counts == row_state.join.counts
    assert columns.fingerprint(state) == fingerprint(rows.settle(row_state))


@given(st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_where_batches_are_cut_changes_nothing(seed: int) -> None:
    rng = random.Random(seed)
    events = partition_by_partition(disordered(rng), rng)
    fold = OutcomeColumns(TASK, 2)
    prints, last = set(), []
    for cut in (0.0, 0.5, 1.0):
        state, codes, said = fold.initial(), {}, {}
        for batch in batches(events, rng, cut):
            texts = {"model_version": codes}
            columns = columns_of(batch, codes)
            for event in fold.absorb(
                state, columns, {path: list(c) for path, c in texts.items()}, names(batch)
            ):
                key = event.data["model_version"], event.data["window_start"]
                assert key not in said or said[key].data["revision"] < event.data["revision"]
                said[key] = event
        prints.add(fold.fingerprint(state))
        last.append({key: event for key, event in said.items() if key in state.windows})
    assert len(prints) == 1
    assert last[0] == last[1] == last[2]


def test_whatever_comes_late_restates_its_window_with_a_higher_revision() -> None:
    _, said = play(
        [
            prediction("a", 1 * HOUR, offset=0),
            prediction("b", 2 * HOUR, offset=1),
            label("a", 3 * HOUR, 1, offset=0),
            prediction("z", 2 * DAY, offset=2),
            label("z", 2 * DAY, 0, offset=1),
            prediction("late", 5 * HOUR, offset=3),
            label("late", 6 * HOUR, 1, offset=2),
        ]
    )
    first_day = [e.data for e in said if e.data["window_start"] == 0]
    counts = [(d["count"], d["totals"]["positives"], d["revision"]) for d in first_day]
    assert counts == [(2, 1, 3), (3, 1, 4), (3, 2, 5)]


def test_losses_are_those_of_the_formula_to_the_last_unit() -> None:
    rng = np.random.default_rng(1)
    halves = (np.arange(200) + 0.5) / FIXED_POINT  # where rounding turns over
    for score in [0.0, 1.0, -3.0, 7.0, 1e-9, *halves.tolist(), *rng.random(20_000).tolist()]:
        within = min(max(score, 0.0), 1.0)
        for truth in (0, 1):
            expected = (log_loss(score, truth), (within - truth) * (within - truth), within)
            assert losses(score, truth) == tuple(round(value * FIXED_POINT) for value in expected)
        assert score_bin(score) == min(int(within * 50), 49)


def test_a_score_that_is_no_number_counts_as_a_prediction_only() -> None:
    events = [prediction("a", HOUR, score=math.nan), label("a", 2 * HOUR, 1)]
    state, fold = OutcomeColumns(TASK, 1).initial(), OutcomeColumns(TASK, 1)
    for event in events:
        fold.absorb(state, columns_of([event], {}), {"model_version": ["toy-1"]}, lambda n: "")
    rows = OutcomeWindows(TASK, 1)
    row_state = rows.apply(rows.initial(), events)
    for windows in (state.windows, row_state.windows):
        assert [(w.count, sum(map(sum, w.scores)), w.log_loss) for w in windows.values()] == [
            (1, 0, 0)
        ]
    assert fold.fingerprint(state) == fingerprint(row_state)


def test_a_version_beyond_the_dictionary_is_an_error_that_says_what_to_do() -> None:
    fold = OutcomeColumns(TASK, 1)
    columns = columns_of([prediction("a", HOUR)], {})
    columns.data["model_version"][:] = -2
    with pytest.raises(ValueError, match="larger capacity"):
        fold.absorb(fold.initial(), columns, {"model_version": []}, lambda n: "")
