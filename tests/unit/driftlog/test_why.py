"""Why: over a simulated history of the whole loop, and over events that nobody has taught it."""

from __future__ import annotations

import json
from functools import cache

from hypothesis import given
from hypothesis import strategies as st

from driftlog.causes import Known
from driftlog.why import Cause, details, headline, listed, numbers, why
from schemas.catalogue import (
    DEPLOYMENTS,
    DRIFT_SCORES,
    PERFORMANCE_SCORES,
    RETRAIN_REQUESTS,
    SKETCHES,
)
from schemas.event import Event, derive
from streams.simulation import Faults
from tests.simulation.histories import LABELS, PREDICTIONS, TASK, live_through
from tests.unit.driftlog.known_events import ListedEvents
from tests.unit.models.test_lineage import events as answered_request


@cache
def history() -> tuple[Known, dict[str, list[Event]]]:
    """A simulated history and its events by topic."""
    _, _, log = live_through(1, Faults(), 0)
    events = [event for records in log.records.values() for event in records]
    by_topic: dict[str, list[Event]] = {}
    for event in events:
        by_topic.setdefault(event.topic, []).append(event)
    return Known(ListedEvents(events), {TASK.name: TASK}), by_topic


def roles(cause: Cause) -> set[str]:
    return {below.role for below in cause.causes} | {role for role, _ in cause.notes}


def path(cause: Cause) -> list[str]:
    """Types along `caused_by`, to the first cause."""
    found = [cause.event.type]
    below = [c for c in cause.causes if c.role in ("caused by", "closed by")]
    return found + (path(below[0]) if below else [])


def test_a_promotion_leads_to_the_windows_that_voted_and_to_a_prediction() -> None:
    known, topics = history()
    asked = next(r for r in topics[RETRAIN_REQUESTS] if r.data["trigger"] == "drift")
    promoted = next(e for e in topics[DEPLOYMENTS] if e.data["caused_by"] == asked.id)
    answer = why(promoted, known)
    chain = path(answer)
    assert chain[:3] == ["ModelPromoted", "RetrainRequested", "PerformanceMeasured"]
    assert chain[-1] in ("PredictionMade", "LabelObserved")
    request = next(c for c in answer.walk() if c.event.type == "RetrainRequested")
    drifted = [c.event for c in request.causes if c.role == "drifted in the window"]
    evidence = request.event.data["evidence"]
    named = {name.removeprefix("psi."): v for name, v in evidence.items() if name[:4] == "psi."}
    assert named, "the request has drift to explain"
    newest = max(event.data["window_start"] for event in drifted)
    found = {e.data["feature"]: e.data["psi"] for e in drifted if e.data["window_start"] == newest}
    assert found == named, "exactly the columns, with the numbers, that the decision saw"


def test_every_event_of_a_history_can_be_explained_and_ends_outside() -> None:
    known, topics = history()
    for events in topics.values():
        for event in (events[0], events[-1]):
            answer = why(event, known)
            json.dumps(answer.to_json())
            walked = list(answer.walk())
            explained = [c.event.id for c in walked if c.causes or c.notes]
            assert len(explained) == len(set(explained)), "each is explained once"
            assert all(headline(c) for c in walked)
            first = [c.event for c in walked if not c.event.data.get("caused_by")]
            assert first, "causes end somewhere"


def test_a_drift_score_rests_on_every_partition() -> None:
    known, topics = history()
    for score in topics[DRIFT_SCORES][::9]:
        answer = why(score, known)
        sketches = {c.event.id: c.event for c in answer.causes if c.event.type == "SketchTaken"}
        assert sum(sketch.data["count"] for sketch in sketches.values()) == score.data["count"]
        versions = [c.event for c in answer.causes if c.event.type == "ModelRegistered"]
        assert {v.data["model_version"] for v in versions} == {score.data["model_version"]}


def test_a_sketch_tells_how_many_rows_it_counted() -> None:
    known, topics = history()
    one = next(s for s in topics[SKETCHES] if s.data["kind"] == "inputs" and s.data["count"] > 1)
    ((role, words),) = why(one, known).notes
    rows = [
        event
        for event in topics[PREDICTIONS]
        if event.data["model_version"] == one.data["model_version"]
        and one.data["window_start"] <= event.time < one.data["window_end"]
    ]
    assert role == "rows"
    assert words.startswith(f"{one.data['count']:,} predictions")
    assert f"holds {len(rows):,} of" in words


def test_a_prediction_leads_to_its_version_and_its_rates() -> None:
    known, topics = history()
    late = max(topics[PREDICTIONS], key=lambda event: event.time)
    answer = why(late, known)
    assert {"answered by", "rate"} <= roles(answer)
    assert any("labels of the 1 h before, by c=" in words for _, words in answer.notes)
    label = topics[LABELS][0]
    about = why(label, known).causes[0]
    assert (about.role, about.event.id) == ("about", label.data["prediction_id"])
    assert "answered by" in roles(about), "the prediction is explained in its turn"


def test_a_request_shows_its_numbers_beside_their_thresholds() -> None:
    _, topics = history()
    request = next(r for r in topics[RETRAIN_REQUESTS] if r.data["trigger"] == "drift")
    lines = "\n".join(details(request))
    psi = {n: v for n, v in request.data["evidence"].items() if n.startswith("psi.")}
    for name, value in psi.items():
        assert f"{name} {value:.4g} > " in lines
    assert numbers(request)["evidence.labels"] == request.data["evidence"]["labels"]


def test_a_trained_version_is_followed_step_by_step_and_shows_its_gates() -> None:
    request = derive(
        RETRAIN_REQUESTS,
        "RetrainRequested",
        "x",
        time=0,
        caused_by=None,
        task="wear",
        trigger="manual",
        reason="wanted",
        actor="me",
        labels_until=0,
        evidence={},
    )
    steps = answered_request()[:6]
    events = [Event(request.topic, request.type, {**request.data, "event_id": "r1"}), *steps]
    extra = derive(  # a type of event that nobody told `why` about
        "driftlog.trials",
        "TrialFinished",
        "t",
        time=0,
        caused_by="r1",
        task="wear",
        request_id="r1",
        loss=0.3,
    )
    known = Known(ListedEvents([*events, extra]), {})
    answer = why(steps[-1], known)
    assert path(answer) == [
        "ModelPromoted",
        "ModelRegistered",
        "TrainingFinished",
        "TrainingStarted",
        "SnapshotTaken",
        "RetrainRequested",
    ]
    assert any(
        line.startswith("gate g: 0.4000 against 0.5000 (9 rows") for line in details(steps[-1])
    )
    others = [c.event.type for c in answer.causes if c.role == "of the same request"]
    assert others == ["SnapshotTaken", "TrialFinished"], "the golden set, and the new type"
    assert path(why(extra, known)) == ["TrialFinished", "RetrainRequested"]


def test_an_unknown_type_is_followed_by_its_fields_names() -> None:
    known, topics = history()
    prediction = topics[PREDICTIONS][0]
    foreign = Event(
        "driftlog.foreign",
        "SomethingCorrected",
        {
            "event_id": "f",
            "event_time": 1,
            "caused_by": None,
            "prediction_id": prediction.id,
            "model_version": "toy-1",
        },
    )
    answer = why(foreign, known)
    assert {c.event.id for c in answer.causes if c.role == "prediction"} == {prediction.id}
    assert [c.event.type for c in answer.causes if c.role == "about"] == ["ModelRegistered"]


def test_a_cause_that_the_log_does_not_hold_is_said_to_be_missing() -> None:
    event = Event("t", "X", {"event_id": "a", "event_time": 0, "caused_by": "gone"})
    assert why(event, Known(ListedEvents([event]), {})).notes == [
        ("caused by", "event gone, which the log does not hold")
    ]


@given(st.dictionaries(st.integers(0, 30), st.integers(0, 30), max_size=30))
def test_any_graph_of_causes_is_walked_in_full_and_ends(causes: dict[int, int]) -> None:
    """Even one with circles, which an honest log cannot have."""
    ids = set(causes) | set(causes.values()) | {0}
    events = {
        n: Event(
            "t",
            "X",
            {
                "event_id": str(n),
                "event_time": 0,
                "caused_by": str(causes[n]) if n in causes else None,
            },
        )
        for n in ids
    }
    answer = why(events[0], Known(ListedEvents(events.values()), {}))
    reached, at = {0}, 0
    while at in causes and causes[at] not in reached:
        at = causes[at]
        reached.add(at)
    assert {int(c.event.id) for c in answer.walk()} == reached


def test_many_causes_of_one_role_are_listed_in_part() -> None:
    causes = [
        Cause(Event("t", "X", {"event_id": str(n), "event_time": 0}), "window") for n in range(15)
    ]
    lines = list(listed(causes))
    assert len(lines) == 13
    assert lines[-1] == (None, "window: 3 more (--json has all)")


def test_performance_is_expected_by_its_version() -> None:
    known, topics = history()
    measured = topics[PERFORMANCE_SCORES][-1]
    assert {"caused by", "expected by"} <= roles(why(measured, known))
