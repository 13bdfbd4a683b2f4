"""Corrections: what is listed, what is corrected, and that it is said once."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from driftlog.corrections import Decided, Ordered, corrections, decided
from driftlog.words import describe
from schemas.event import Event, Position
from streams.task import HOUR_MS, Category, Numeric, Task
from tests.unit.models.serving_parts import codec

TASK = Task(name="wear", features=(Numeric("size"), Category("c")), label="x", label_delay_hours=1)
ORDER = Ordered("wear-1", "wear-2", "trained on turned labels", "me")


class Sizes:
    """A model whose score is the size."""

    def score(self, vectors: list[dict[str, Any]]) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.array([vector["size"] for vector in vectors], np.float64)


def answer(n: int, score: float, size: float, version: str = "wear-1", hour: int = 0) -> Event:
    data = {
        "event_id": f"p{n}",
        "event_time": hour * HOUR_MS + n,
        "caused_by": None,
        "model_version": version,
        "score": score,
        "label": int(score >= 0.5),
        "features": {"size": size, "c": None},
    }
    return Event("wear.predictions", "PredictionMade", data)


def truth(n: int, label: int, time: int, again: str = "") -> Event:
    data = {"event_id": f"l{n}{again}", "event_time": time, "caused_by": None}
    return Event("wear.labels", "LabelObserved", data | {"prediction_id": f"p{n}", "label": label})


def test_only_the_answers_of_the_version_in_the_span_with_the_first_label_in_time() -> None:
    events = [
        answer(1, 0.9, 0.1),
        answer(2, 0.9, 0.1, "wear-0"),
        answer(3, 0.2, 0.1, hour=5),
        truth(1, 0, HOUR_MS),
        truth(1, 1, HOUR_MS, "again"),
        truth(2, 1, 5),
        truth(3, 1, 7 * HOUR_MS),
    ]
    every = decided(events, TASK, "wear-1", None, None)
    assert [(a.event.id, a.truth) for a in every] == [("p1", 0), ("p3", None)]
    assert [a.event.id for a in decided(events, TASK, "wear-1", HOUR_MS, None)] == ["p3"]
    assert [a.event.id for a in decided(events, TASK, "wear-1", None, 5 * HOUR_MS + 3)] == ["p1"]
    assert every[0].to_json()["truth"] == 0


def test_what_is_decided_otherwise_is_corrected_and_fits_the_schema() -> None:
    answers = [
        Decided(answer(1, 0.9, 0.1)),
        Decided(answer(2, 0.9, 0.8)),
        Decided(answer(3, 0.9, 0.9)),
    ]
    (one,) = corrections(answers, TASK, Sizes(), ORDER, 77, set())
    schemas = codec(TASK)
    back = schemas.decode(Position(one.topic, 0, 0), schemas.encode(one))
    assert (back.type, dict(back.data)) == ("PredictionCorrected", dict(one.data))
    assert one.data["of"] == one.data["caused_by"] == "p1"
    assert (one.data["logged_label"], one.data["label"], one.data["by"]) == (1, 0, "wear-2")
    assert one.time == 77
    assert describe(one) == (
        "wear-2 says 0.100 -> 0; wear-1 said 0.900 -> 1: trained on turned labels"
    )
    scores = Ordered("wear-1", "wear-2", "r", "me", scores=True)
    both = list(corrections(answers, TASK, Sizes(), scores, 77, set()))
    assert [event.data["of"] for event in both] == ["p1", "p2"], "p3 has the same score"


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=20),
    st.integers(0, 20),
    st.integers(0, 100),
)
def test_a_second_run_publishes_none_and_a_broken_off_one_the_rest(
    rows: list[tuple[float, float]], reached: int, later: int
) -> None:
    answers = [Decided(answer(n, score, size)) for n, (score, size) in enumerate(rows)]
    whole = list(corrections(answers, TASK, Sizes(), ORDER, 10, set()))
    published = {event.id for event in whole[:reached]}
    other = Ordered("wear-1", "wear-2", "another reason", "somebody else")
    rest = list(corrections(answers, TASK, Sizes(), other, 10 + later, published))
    assert [event.id for event in rest] == [event.id for event in whole[reached:]]
    everything = {event.id for event in whole}
    assert not list(corrections(answers, TASK, Sizes(), other, 10 + later, everything))
    assert len(everything) == len(whole)
    wanted = {f"p{n}" for n, (score, size) in enumerate(rows) if (score >= 0.5) != (size >= 0.5)}
    assert {event.data["of"] for event in whole} == wanted
