"""The story of a run is told from its events alone."""

from __future__ import annotations

from typing import Any

from driftlog.story import tell
from schemas.event import Event


def event(type_: str, id_: str, recorded_ms: int = 0, **data: Any) -> Event:
    return Event("t", type_, {"event_id": id_, "event_time": 0, **data}, recorded_ms=recorded_ms)


REQUEST = event("RetrainRequested", "r1", 1_000, task="toy", trigger="drift", reason="it drifted")
SNAPSHOT = event("SnapshotTaken", "s1", 2_000, task="toy", request_id="r1", rows=500)
PROMOTED = event(
    "ModelPromoted",
    "d1",
    4_500,
    task="toy",
    request_id="r1",
    model_version="toy-2",
    reason="gates passed",
    gates=[{"name": "recent"}],
)


def test_a_request_and_what_became_of_it() -> None:
    story = tell([REQUEST, SNAPSHOT, PROMOTED, PROMOTED], "toy")
    (retrain,) = story.retrains.values()
    assert (retrain.decision, retrain.version, retrain.rows) == ("promoted", "toy-2", 500)
    assert retrain.seconds == 3.5
    assert story.promoted == ["toy-2"]


def test_the_order_of_topics_does_not_matter() -> None:
    assert tell([PROMOTED, SNAPSHOT, REQUEST], "toy").retrains["r1"].decision == "promoted"


def test_other_tasks_are_another_story() -> None:
    assert not tell([REQUEST, PROMOTED], "other").retrains


def test_drifted_windows_are_counted_once_however_often_they_are_restated() -> None:
    def score(id_: str, feature: str, start: int, drifted: bool) -> Event:
        where = {"task": "toy", "model_version": "toy-1", "window_start": start}
        return event("DriftScored", id_, feature=feature, drifted=drifted, **where)

    events = [
        score("a", "speed", 1, True),
        score("b", "speed", 1, True),
        score("c", "speed", 2, True),
        score("d", "wind", 2, False),
    ]
    story = tell(events, "toy")
    assert story.windows == 2
    assert story.drifted == {"speed": 2}
