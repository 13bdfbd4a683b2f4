"""Events by id, by fields and by request, out of real ClickHouse tables; and a blast radius out of them."""

from __future__ import annotations

import dataclasses
import multiprocessing
from typing import Any

import pytest

from driftlog.blast import EVENT, LABEL, VECTOR, Blast, facts_of
from driftlog.blast_history import facts_from
from driftlog.causes import Known, Wanted
from driftlog.event_index import EventIndex, NoSuchEvent
from driftlog.why import why
from schemas.catalogue import DEPLOYMENTS, MODEL_VERSIONS, SNAPSHOTS
from schemas.event import Event, Position
from streams.task import Category, Numeric, Observed, Rate, Task
from tests.unit.driftlog.event_history import ask
from tests.unit.driftlog.known_events import ListedEvents
from tests.unit.models.model_parts import asked
from tests.unit.models.test_lineage import events as answered_request

HOUR = 3_600_000
START = 1_700_000_000_000 // HOUR * HOUR
TASK = Task(
    name="wear",
    label="breaks",
    features=(
        Numeric("size"),
        Category("colour"),
        Rate("rate", by=("colour",), hours=2),
        Observed("wind", by="colour", value="wind"),
    ),
)


def log() -> list[Event]:
    """A request and its answer, predictions with labels and observations; the first of all said twice."""
    found = [asked("r1", START), *answered_request(now=START)[:6]]
    for n in range(12):
        at = START + n * HOUR // 2
        features = {"size": float(n), "colour": "ab"[n % 2], "rate": 0.5, "wind": None}
        made = {"model_version": f"wear-{n // 6}", "score": 0.5, "label": 1, "features": features}
        found.append(event("wear.predictions", "PredictionMade", f"pred-{n}", at, made))
        label = {"prediction_id": f"pred-{n}", "label": n % 2}
        found.append(event("wear.labels", "LabelObserved", f"label-{n}", at + HOUR, label))
        seen = {"entity": "colour", "key": "a", "values": {"wind": 1.0}}
        found.append(event("wear.features", "FeatureObserved", f"seen-{n}", at, seen))
    found.append(found[7])
    ends: dict[str, int] = {}
    placed = []
    for one in found:
        at_ = Position(one.topic, 0, ends.get(one.topic, 0))
        ends[one.topic] = at_.offset + 1
        placed.append(dataclasses.replace(one, at=at_))
    return placed


def event(topic: str, type_: str, id_: str, time: int, fields: dict[str, Any]) -> Event:
    return Event(topic, type_, {"event_id": id_, "event_time": time, "caused_by": None, **fields})


WANTED = {
    "a version": Wanted(MODEL_VERSIONS, "ModelRegistered", {"model_version": "wear-1"}),
    "decisions of any type": Wanted(DEPLOYMENTS, "", {"task": "wear"}),
    "a snapshot by its span": Wanted(SNAPSHOTS, "SnapshotTaken", {"to_time": 9, "rows": 5}),
    "a span of time": Wanted(
        "wear.predictions", "PredictionMade", {}, since=START + HOUR, until=START + 3 * HOUR
    ),
    "the newest": Wanted(
        "wear.features", "FeatureObserved", {"key": "a"}, until=START + 2 * HOUR, newest=1
    ),
    "nothing": Wanted("wear.labels", "LabelObserved", {"prediction_id": "o'clock\\"}),
    "no such topic": Wanted("driftlog.nowhere", "X"),
}


def looked_up(index: EventIndex) -> dict[str, Any]:
    """What the index says to everything that is tested, as plain data."""
    refused = {}
    for text in ("pred-", "nobody", "", "a'b\\"):
        with pytest.raises(NoSuchEvent) as caught:
            index.resolve(text)
        refused[text] = str(caught.value)
    decision = index.of_request("r1")[-1]
    blast = Blast(
        facts_from(index.history, lambda topics: [e for e in log() if e.topic in topics], TASK)
    )
    return {
        "found": {name: [e.id for e in index.find(wanted)] for name, wanted in WANTED.items()},
        "counted": {
            name: index.count(wanted) for name, wanted in WANTED.items() if not wanted.newest
        },
        "resolved": [index.resolve(text).id for text in ("pred-11", "pred-1", "seen-3")],
        "places": [str(index.resolve("pred-0").at)],
        "refused": refused,
        "missing": index.by_id("nobody"),
        "request": sorted(e.id for e in index.of_request("r1")),
        "why": why(decision, Known(index, {"wear": TASK})).to_json(),
        "radius": [
            blast.radius({LABEL: ["label-2"]}).touched,
            blast.radius({EVENT: ["pred-3"]}).touched,
            blast.radius({VECTOR: ["pred-9"]}, back=True).touched,
        ],
    }


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    arguments = (tmp_path_factory.mktemp("index"), TASK, log(), looked_up)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(ask, arguments)


def test_what_is_looked_up_is_what_a_list_would_give(found: dict[str, Any]) -> None:
    listed = ListedEvents(log())
    for name, wanted in WANTED.items():
        expected = [event.id for event in listed.find(wanted)]
        assert found["found"][name] == expected, name
        assert bool(expected) == (name not in ("nothing", "no such topic")), (
            "the question asks something"
        )
    assert all(found["counted"][n] == listed.count(WANTED[n]) for n in found["counted"])
    assert found["request"] == sorted(event.id for event in listed.of_request("r1"))


def test_an_id_or_its_beginning_names_one_event(found: dict[str, Any]) -> None:
    assert found["resolved"] == ["pred-11", "pred-1", "seen-3"], (
        "a whole id counts, though others begin so"
    )
    assert found["places"] == ["wear.predictions[0]@0"], "the first record of a repeated event"
    assert found["missing"] is None


def test_why_is_the_same_as_over_the_events_themselves(found: dict[str, Any]) -> None:
    listed = ListedEvents(log())
    decision = listed.by_id(found["why"]["event_id"])
    assert decision is not None
    assert found["why"] == why(decision, Known(listed, {"wear": TASK})).to_json()


def test_a_radius_is_the_same_as_over_the_events_themselves(found: dict[str, Any]) -> None:
    blast = Blast(facts_of(TASK, log()))
    label, prediction, back = found["radius"]
    assert label == blast.radius({LABEL: ["label-2"]}).touched
    assert prediction == blast.radius({EVENT: ["pred-3"]}).touched
    assert back == blast.radius({VECTOR: ["pred-9"]}, back=True).touched
    assert label["vector"]
    assert back["label"]


def test_bad_ids_are_refused_with_what_to_do(found: dict[str, Any]) -> None:
    refused = found["refused"]
    assert refused["pred-"].startswith("'pred-' is the beginning of more than one id: pred-")
    assert refused["nobody"].startswith("no event's id begins with 'nobody'")
    assert refused["a'b\\"].startswith("no event's id begins with")
    assert refused[""] == "the event id is empty"
