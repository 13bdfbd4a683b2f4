"""Outcome windows: the same numbers in whatever order predictions and labels arrive."""

from __future__ import annotations

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from schemas.event import Event
from streams.fold import Projector
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
    """What the windows hold in the end, apart from how often they were stated."""
    windows = projector.states["toy.outcomes"].windows
    return {key: (w.count, w.scores, w.log_loss, w.brier, w.score) for key, w in windows.items()}
