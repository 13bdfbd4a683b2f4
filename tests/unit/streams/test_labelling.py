"""Labels are asked for when drift or the estimate says so, of few predictions, the same on every reading."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from schemas.catalogue import DRIFT_SCORES, LABEL_REQUESTS, PERFORMANCE_ESTIMATES
from schemas.event import Event, Position, derive
from streams.canonical import fingerprint
from streams.fold import Projector
from streams.labelling import LabelRequests
from streams.simulation import Faults
from streams.task import LabelPolicy, Task
from tests.simulation.histories import HOUR, PARTITIONS, PREDICTIONS, TASK, live_through
from tests.simulation.test_replay import CODEC


def predictions(hours: int = 4, per_hour: int = 60, seed: int = 1) -> list[Event]:
    rng = random.Random(seed)
    found = []
    for n in range(hours * per_hour):
        data = {
            "event_id": f"p{n}",
            "event_time": n * HOUR // per_hour,
            "caused_by": None,
            "model_version": "toy-1",
            "score": rng.random(),
        }
        at = Position(PREDICTIONS, n % PARTITIONS, n // PARTITIONS)
        found.append(Event(PREDICTIONS, "PredictionMade", data, at))
    return found


def told(hour: int, drifted: bool, worse: bool) -> list[Event]:
    about = {
        "time": (hour + 1) * HOUR,
        "caused_by": None,
        "task": "toy",
        "model_version": "toy-1",
        "window_start": hour * HOUR,
        "window_end": (hour + 1) * HOUR,
        "revision": 0,
    }
    drift = {"count": 60, "psi": 0.9, "threshold": 0.3, "drifted": drifted}
    loss = 0.9 if worse else 0.5
    return [
        *(
            derive(DRIFT_SCORES, "DriftScored", hour, name, **about, feature=name, **drift)
            for name in ("x", "score")
        ),
        derive(
            *(PERFORMANCE_ESTIMATES, "PerformanceEstimated", hour),
            **about,
            log_loss=loss,
            expected_log_loss=0.5,
        ),
    ]


def answers(events: list[Event], policy: LabelPolicy) -> tuple[list[dict[str, Any]], str]:
    task = replace(TASK, labelling=policy)
    projector = Projector([LabelRequests(task, PARTITIONS)])
    said = [dict(answer.data) for event in events for answer in projector.react(event)]
    return said, fingerprint(projector.states["toy.labelling"])


def in_topics(seed: int, events: list[Event]) -> list[Event]:
    """Another reading: each partition of each topic in its own order, mixed otherwise."""
    waiting: dict[Any, list[Event]] = {}
    for event in events:
        waiting.setdefault((event.topic, event.at and event.at.partition), []).append(event)
    rng, found = random.Random(seed), []
    while waiting:
        key = rng.choice(sorted(waiting, key=str))
        found.append(waiting[key].pop(0))
        if not waiting[key]:
            del waiting[key]
    return found


def test_calm_windows_cost_nothing_and_others_their_budget() -> None:
    events = [*predictions(), *told(0, False, False), *told(1, True, False), *told(2, False, True)]
    said, _ = answers(events, LabelPolicy(budget=10))
    assert [(d["window_start"] // HOUR, d["trigger"]) for d in said] == [
        (1, "drift"),
        (2, "estimate"),
    ]
    for data in said:
        ids = [chosen["prediction_id"] for chosen in data["predictions"]]
        assert len(ids) == len(set(ids)) == data["budget"] == 10
        assert data["candidates"] == 60
        hour = data["window_start"] // HOUR
        assert all(60 * hour <= int(name[1:]) < 60 * (hour + 1) for name in ids)
    assert "score and 1 of 1 columns drifted" in said[0]["reason"]
    assert said[1]["reason"] == "estimated log-loss 0.900 > 0.525 (0.500 expected)"
    only = LabelPolicy(budget=10, triggers=("estimate",))
    assert [d["window_start"] // HOUR for d in answers(events, only)[0]] == [2]


@pytest.mark.parametrize("seed", range(20))
def test_another_reading_asks_for_the_same(seed: int) -> None:
    events = [*predictions(3), *told(0, True, True), *told(1, False, True)]
    policy = LabelPolicy(budget=7, strategy=("uncertainty", "stratified", "random")[seed % 3])
    assert answers(in_topics(seed, events), policy) == answers(events, policy)


def test_a_window_that_is_still_open_waits() -> None:
    early = [event for event in predictions() if event.time < HOUR + 9 * 60_000]
    assert answers([*early, *told(0, True, True)], LabelPolicy())[0] == []
    assert len(answers([*predictions(), *told(0, True, True)], LabelPolicy())[0]) == 1


def scores(strategy: str, seed: int = 7) -> list[float]:
    events = [*predictions(3, per_hour=3_000), *told(0, True, False)]
    (data,), _ = answers(events, LabelPolicy(budget=200, strategy=strategy, seed=seed))
    return [chosen["score"] for chosen in data["predictions"]]


def test_strategies_choose_what_they_say() -> None:
    strata = np.bincount((np.array(scores("stratified")) * 10).astype(int), minlength=10)
    assert strata.tolist() == [20] * 10
    unsure, any_ = np.array(scores("uncertainty")), np.array(scores("random"))
    assert (unsure * (1 - unsure)).mean() > 1.1 * (any_ * (1 - any_)).mean()
    assert abs(any_.mean() - 0.5) < 0.08
    assert scores("random") == scores("random") != scores("random", seed=8)


def test_a_task_asks_for_no_labels_unless_it_says_so() -> None:
    from streams.folds import control_folds

    silent: Task = replace(TASK, labelling=None)
    assert not any(isinstance(f, LabelRequests) for f in control_folds([silent], PARTITIONS))


def test_in_a_history_with_drift_few_labels_are_asked_for() -> None:
    log = live_through(1, Faults(), 0)[2]
    requests = log.records[LABEL_REQUESTS, 0]
    known = {e.id for part in range(PARTITIONS) for e in log.records[PREDICTIONS, part]}
    for event in requests:
        assert event.at is not None
        assert CODEC.decode(event.at, CODEC.encode(event)).data == event.data
        assert {chosen["prediction_id"] for chosen in event.data["predictions"]} <= known
    asked = sum(len(event.data["predictions"]) for event in requests)
    assert 0 < asked < len(known) / 2
