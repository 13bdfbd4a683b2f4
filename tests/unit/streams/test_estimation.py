"""Estimates and their reconciliation over a simulated history, in whatever order topics are read."""

from __future__ import annotations

import random
from typing import Any

import pytest

from schemas.catalogue import (
    ESTIMATE_ERRORS,
    MODEL_VERSIONS,
    PERFORMANCE_ESTIMATES,
    SKETCHES,
    system_topics,
)
from schemas.event import Event
from streams.canonical import fingerprint
from streams.estimation import Estimation
from streams.fold import Projector
from streams.simulation import Faults, SimulatedLog
from tests.simulation.histories import CALIBRATION, PARTITIONS, TASK, live_through


@pytest.fixture(scope="module")
def log() -> SimulatedLog:
    return live_through(1, Faults(), 0)[2]


def events(log: SimulatedLog, topic: str) -> list[Event]:
    return log.records.get((topic, 0), [])


def answers(found: list[Event]) -> tuple[list[dict[str, Any]], str]:
    projector = Projector([Estimation(TASK, PARTITIONS)])
    said = [dict(answer.data) for event in found for answer in projector.react(event)]
    return said, fingerprint(projector.states["toy.estimation"])


def test_each_window_is_estimated_and_later_held_against_its_labels(log: SimulatedLog) -> None:
    estimates = {(e.data["model_version"], e.data["window_start"]): e for e in
                 events(log, PERFORMANCE_ESTIMATES)}  # fmt: skip
    reconciled = events(log, ESTIMATE_ERRORS)
    assert estimates and reconciled
    for event in reconciled:
        data = event.data
        said = estimates[data["model_version"], data["window_start"]].data
        (loss,) = [m for m in data["measures"] if m["name"] == "log_loss"]
        if said["revision"] == data["estimate_revision"]:
            assert loss["estimate"] == said["log_loss"]
        assert loss["error"] == pytest.approx(loss["realised"] - loss["estimate"], abs=1e-8)
        assert loss["within"] == (loss["low"] <= loss["realised"] <= loss["high"])
        assert data["within"] == all(m["within"] for m in data["measures"])
        assert event.time >= data["window_end"] + TASK.label_delay_ms


def test_the_estimate_is_that_of_the_sketched_scores(log: SimulatedLog) -> None:
    event = events(log, PERFORMANCE_ESTIMATES)[0]
    counts = [0, 0]
    parts: dict[int, list[int]] = {}
    for sketch in events(log, SKETCHES):
        data = sketch.data
        if data["kind"] == "inputs" and all(
            data[name] == event.data[name] for name in ("model_version", "window_start")
        ):
            parts[data["partition"]] = next(
                column["counts"] for column in data["columns"] if column["name"] == "score"
            )
        if sketch.id == event.data["caused_by"]:
            break
    for part in parts.values():
        counts = [one + other for one, other in zip(counts, part, strict=True)]
    rates = [entry["positives"] / 50 for entry in CALIBRATION]
    expected = sum(n * p for n, p in zip(counts, rates, strict=True)) / sum(counts)
    assert event.data["count"] == sum(counts)
    assert event.data["positive_rate"] == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(6))
def test_what_is_said_does_not_depend_on_when_the_models_are_read(
    seed: int, log: SimulatedLog
) -> None:
    sketches, models = events(log, SKETCHES), events(log, MODEL_VERSIONS)
    rng = random.Random(seed)
    mixed: list[Event] = []
    waiting = [list(models), list(sketches)]
    while any(waiting):
        source = waiting[0] if seed == 0 else rng.choice([w for w in waiting if w])
        source = source or waiting[1]
        mixed.append(source.pop(0))
    key = lambda data: data["event_id"]  # noqa: E731
    ours, state = answers(mixed)
    theirs, calm = answers([*models, *sketches])
    assert sorted(ours, key=key) == sorted(theirs, key=key)
    assert state == calm


def test_a_version_without_a_calibration_is_not_estimated(log: SimulatedLog) -> None:
    assert all(e.data["model_version"] != "toy-0" for e in events(log, PERFORMANCE_ESTIMATES))


def test_the_events_fit_their_schemas(log: SimulatedLog) -> None:
    from tests.simulation.test_replay import CODEC

    known = {topic.name for topic in system_topics()}
    for topic in (PERFORMANCE_ESTIMATES, ESTIMATE_ERRORS):
        assert topic in known
        for event in events(log, topic):
            assert event.at is not None
            assert CODEC.decode(event.at, CODEC.encode(event)).data == event.data
