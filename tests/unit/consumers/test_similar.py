"""Predictions near to one of them: distances of features, embeddings, outcomes, moments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kernels
from consumers.retrieval.feature_space import FeatureSpace
from consumers.retrieval.predictions import (
    Logged,
    PredictionFold,
    SimilarPredictions,
    UnknownPrediction,
)
from kernels.gpu.emulator import Emulator
from schemas.event import Event
from streams.canonical import fingerprint
from streams.fold import Projector
from streams.replay import Until
from streams.task import HOUR_MS, Category, DriftPolicy, Numeric, Task

TASK = Task(
    "rides",
    (Numeric("far"), Numeric("fast"), Category("town")),
    "late",
    label_delay_hours=2,
    drift=DriftPolicy(embeddings={"where": ("far", "fast")}),
)
FOLD = PredictionFold(TASK)


def prediction(id_: str, time: int, **features: Any) -> Event:
    given = {"far": None, "fast": None, "town": None} | features
    data = {"event_id": id_, "event_time": time, "model_version": "rides-1", "score": 0.25}
    return Event(FOLD.topics[0], "PredictionMade", {**data, "features": given})


def label(of: str, time: int, value: int) -> Event:
    data = {
        "event_id": f"label {of} {time}",
        "event_time": time,
        "prediction_id": of,
        "label": value,
    }
    return Event(FOLD.topics[1], "LabelObserved", data)


def folded(events: list[Event], until: Until | None = None) -> Logged:
    projector = Projector([FOLD])
    projector.feed([e for e in events if until is None or until(e)])
    return projector.states[FOLD.name]


def keys(found: SimilarPredictions, of: str, k: int = 9) -> list[str]:
    return [one.hit.key for one in found.to(of, k)]


RIDES = [
    prediction("a", 1, far=1000.0, fast=3.0, town="Ulm"),
    prediction("b", 2, far=1001.0, fast=3.1, town="Ulm"),
    prediction("c", 3, far=1000.0, fast=3.0, town="Bonn"),
    prediction("d", 4, far=10.0, fast=9.0, town="Bonn"),
    prediction("e", 5, far=12.0, fast=8.5, town=None),
]


def test_like_comes_to_like_whatever_the_units() -> None:
    found = SimilarPredictions(TASK, folded(RIDES))
    assert keys(found, "a", 2) == ["b", "c"] and keys(found, "d", 1) == ["e"]
    assert len(found) == 5 and found.dimensions == 4
    assert found.of("a").hit.cosine == 1.0


def test_outcomes_are_the_first_labels_in_time() -> None:
    hour = HOUR_MS
    labels = [
        label("b", hour, 1),
        label("b", hour + 1, 0),
        label("c", 3 * hour, 1),
        label("e", 9, 0),
    ]
    for events in (RIDES + labels, labels + RIDES):
        found = SimilarPredictions(TASK, folded(events))
        outcomes = {one.hit.key: one.label for one in found.to("a", 9)}
        assert outcomes == {"b": 1, "c": None, "d": None, "e": 0}


def test_only_what_had_happened_by_then_counts() -> None:
    labels = [label("b", 50, 1)]
    found = SimilarPredictions(TASK, folded(RIDES + labels, Until(event_time=3)))
    assert sorted(keys(found, "a")) == ["b", "c"] and found.of("b").label is None
    with pytest.raises(UnknownPrediction, match="no prediction d"):
        found.to("d", 1)


def test_an_embedding_is_taken_as_it_is() -> None:
    """By direction alone: twice as far and twice as fast is the same."""
    rides = [
        prediction("a", 1, far=1.0, fast=2.0, town="Ulm"),
        prediction("b", 2, far=2.0, fast=4.0, town="Bonn"),
        prediction("c", 3, far=1.0, fast=-2.0, town="Ulm"),
        prediction("d", 4, far=1.0, town="Ulm"),
    ]
    found = SimilarPredictions(TASK, folded(rides), by="where")
    assert keys(found, "a") == ["b", "c"] and len(found) == 3
    with pytest.raises(UnknownPrediction, match="no complete embedding"):
        found.to("d", 1)


def test_a_repeated_event_is_one_prediction() -> None:
    state = folded(RIDES)
    again = FOLD.apply(folded(RIDES), RIDES[:2])
    assert fingerprint(state) == fingerprint(again)
    assert len(SimilarPredictions(TASK, again)) == 5


def test_a_device_finds_the_same() -> None:
    rng = np.random.default_rng(0)
    towns = ["Ulm", "Bonn", None]
    rides = [
        prediction(f"p{i}", i, far=float(x), fast=float(y), town=towns[i % 3])
        for i, (x, y) in enumerate(rng.normal(size=(400, 2)))
    ]
    found = SimilarPredictions(TASK, folded(rides))
    mine = found.to("p7", 20)
    before = kernels.used()["topk"].get("emulator", 0)
    try:
        kernels.use(kernels.Device(Emulator(), "emulator", otherwise=1))
        assert found.to("p7", 20) == mine
    finally:
        kernels.use(None)
    assert kernels.used()["topk"]["emulator"] == before + 1


def test_points_of_odd_values_are_finite() -> None:
    kinds = {"x": "double", "same": "double", "none": "double", "c": "string"}
    columns = {
        "x": [1.0, None, float("inf"), float("nan"), -1.0],
        "same": [5.0] * 5,
        "none": [None] * 5,
        "c": ["a", "b", None, "a", "a"],
    }
    space = FeatureSpace.fit(kinds, columns)
    points = space.points(columns)
    assert np.isfinite(points).all() and points.shape == (5, space.dimensions) == (5, 5)
    assert points[1, 0] == points[3, 0] == 0 and not points[:, 1:3].any()
    assert points[:, 3:] == pytest.approx(
        np.array([[0.25, -0.25], [-0.75, 0.75], [0, 0], [0.25, -0.25], [0.25, -0.25]])
    )
