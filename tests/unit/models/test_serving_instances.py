"""What serving accepts, and how it says what it does not."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.serving.instances import MAX_ERRORS, InstanceParser, InvalidRequest, parse_labels
from streams.task import DAY_MS, Ask
from tests.unit.models.serving_parts import FLIGHTS, NOW_MS, flight

PARSER = InstanceParser(FLIGHTS)


def ids() -> Callable[[], str]:
    """made-0, made-1, ..."""
    numbers = count()
    return lambda: f"made-{next(numbers)}"


def parse(*instances: Any) -> list[Ask]:
    return PARSER.parse({"instances": list(instances)}, NOW_MS, ids())


def refusal(*instances: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidRequest) as caught:
        parse(*instances)
    return [(error.loc, error.message) for error in caught.value.errors]


def test_a_valid_instance_becomes_an_ask_at_the_clock_with_a_made_id() -> None:
    assert parse(flight()) == [Ask(NOW_MS, "made-0", flight())]


def test_the_callers_event_id_and_time_are_kept() -> None:
    (ask,) = parse(flight(event_id="EV-17", event_time="2013-01-01T05:00:00-05:00"))
    assert (ask.id, ask.time) == ("EV-17", 1_357_034_400_000)
    assert "event_id" not in ask.instance


@pytest.mark.parametrize(
    "text", ["2013-01-01T10:00:00Z", "2013-01-01T10:00:00", "2013-01-01 10:00:00.000"]
)
def test_iso_8601_is_utc_unless_it_says_otherwise(text: str) -> None:
    assert parse(flight(event_time=text))[0].time == 1_357_034_400_000


def test_an_integer_becomes_a_float_as_it_comes_back_from_the_log() -> None:
    (ask,) = parse(flight(hour=5))
    assert str(ask.instance["hour"]) == "5.0"


def test_null_is_a_missing_value() -> None:
    assert parse(flight(distance=None, carrier=None))[0].instance["carrier"] is None


@pytest.mark.parametrize(
    ("change", "loc", "words"),
    [
        ({"distance": ...}, "distance", "is missing"),
        ({"carrier": ...}, "carrier", "is missing"),
        ({"distance": "far"}, "distance", "must be a number, not text"),
        ({"distance": True}, "distance", "must be a number, not true"),
        ({"distance": [1]}, "distance", "must be a number, not a list"),
        ({"distance": math.nan}, "distance", "must be a finite number"),
        ({"distance": -math.inf}, "distance", "must be a finite number"),
        ({"distance": 1e39}, "distance", "32-bit float"),
        ({"distance": 10**400}, "distance", "32-bit float"),
        ({"carrier": 7}, "carrier", "must be text, not the number 7"),
        ({"carrier": "x" * 257}, "carrier", "257 characters"),
        ({"carrier": "\ud800"}, "carrier", "surrogate"),
        ({"speed": 1.0}, "speed", "is no feature of task flights"),
        ({"carrier_late": 0.2}, "carrier_late", "computed by the feature store"),
        ({"wind": 0.2}, "wind", "computed by the feature store"),
        ({"event_id": ""}, "event_id", "1 to 100 characters"),
        ({"event_id": "x" * 101}, "event_id", "1 to 100 characters"),
        ({"event_id": 5}, "event_id", "must be text"),
        ({"event_time": "soon"}, "event_time", "ISO 8601"),
        ({"event_time": True}, "event_time", "not true"),
        ({"event_time": 1.5}, "event_time", "milliseconds"),
        ({"event_time": -1}, "event_time", "before 1970"),
        ({"event_time": NOW_MS + DAY_MS + 1}, "event_time", "in the future"),
    ],
)
def test_a_bad_field_is_named_with_its_place(change: dict[str, Any], loc: str, words: str) -> None:
    ((where, message),) = refusal(flight(), flight(**change))
    assert where == f"instances[1].{loc}"
    assert words in message


def test_all_errors_are_reported_at_once_up_to_a_limit() -> None:
    found = refusal(*[flight(distance="far", hour="late")] * 40)
    assert len(found) == MAX_ERRORS + 1
    assert found[-1] == ("", "and 30 more errors")


def test_one_id_for_two_instances_is_refused() -> None:
    ((where, message),) = refusal(flight(event_id="a"), flight(event_id="b"), flight(event_id="a"))
    assert where == "instances[2].event_id"
    assert "instances[0]" in message


@pytest.mark.parametrize(
    "body", [None, 3, [], {}, {"instances": {}}, {"instances": []}, {"instances": [{}] * 1001}]
)
def test_a_body_of_another_shape_is_refused(body: object) -> None:
    with pytest.raises(InvalidRequest):
        PARSER.parse(body, NOW_MS, ids())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["distance", "carrier", "event_id", "event_time"])
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)
NEARLY = st.fixed_dictionaries(
    {},
    optional={
        name: JSON | st.just(value) for name, value in {**flight(), "event_time": NOW_MS}.items()
    },
)


@given(body=st.fixed_dictionaries({"instances": st.lists(NEARLY | JSON, max_size=3)}) | JSON)
def test_any_json_is_either_accepted_or_refused_with_places(body: Any) -> None:
    asks, refused = outcome(body)
    assert bool(asks) != bool(refused)
    json.dumps(refused).encode()
    for ask in asks:
        assert set(ask.instance) == set(FLIGHTS.given)
        values = ask.instance.values()
        assert all(v is None or isinstance(v, str) or math.isfinite(v) for v in values)


def outcome(body: Any) -> tuple[list[Ask], list[tuple[str, str]]]:
    try:
        return PARSER.parse(body, NOW_MS, ids()), []
    except InvalidRequest as error:
        return [], [(e.loc, e.message) for e in error.errors]


def label_of(*labels: Any) -> list[dict[str, Any]]:
    return [dict(event.data) for event in parse_labels(FLIGHTS, {"labels": list(labels)}, NOW_MS)]


def test_a_label_sent_twice_is_one_fact_and_its_opposite_another() -> None:
    first, again, opposite = label_of(
        {"prediction_id": "p", "label": 1},
        {"prediction_id": "p", "label": 1, "event_time": 5},
        {"prediction_id": "p", "label": 0},
    )
    assert first["event_id"] == again["event_id"] != opposite["event_id"]
    assert (first["event_time"], again["event_time"]) == (NOW_MS, 5)


@pytest.mark.parametrize(
    ("label", "loc"),
    [
        ({"prediction_id": "p", "label": True}, "label"),
        ({"prediction_id": "p", "label": 2}, "label"),
        ({"prediction_id": "p", "label": 1.0}, "label"),
        ({"prediction_id": "p"}, "label"),
        ({"label": 1}, "prediction_id"),
        ({"prediction_id": "", "label": 1}, "prediction_id"),
        ({"prediction_id": "p", "label": 1, "truth": 1}, "truth"),
    ],
)
def test_a_bad_label_is_named_with_its_place(label: dict[str, Any], loc: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        label_of(label)
    assert [error.loc for error in caught.value.errors] == [f"labels[0].{loc}"]
