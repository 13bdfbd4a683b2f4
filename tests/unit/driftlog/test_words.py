"""Every system event can be told in words, whatever its fields hold."""

from __future__ import annotations

from typing import Any

import pytest

from driftlog.words import describe, line
from schemas.catalogue import system_topics, task_topics
from schemas.event import Event, Position

TOPICS = (*system_topics(), *task_topics("toy", {"speed": "double", "kind": "string"}, ["wind"]))


def example(schema: Any) -> Any:
    """Some value of an Avro type."""
    if isinstance(schema, list):
        return example(schema[-1])
    kind = schema["type"] if isinstance(schema, dict) else schema
    if kind == "record":
        return {field["name"]: example(field["type"]) for field in schema["fields"]}
    if kind == "array":
        return [example(schema["items"])] if isinstance(schema["items"], str) else []
    if kind == "map":
        return {}
    plain = {"string": "text", "double": 0.25, "long": 1_357_000_000_000, "int": 3, "boolean": True}
    return plain[kind] if isinstance(kind, str) else example(kind)


@pytest.mark.parametrize(
    ("topic", "schema"),
    [(topic, schema) for topic in TOPICS for schema in topic.schemas],
    ids=lambda each: each["name"] if isinstance(each, dict) else "",
)
def test_each_event_is_a_line_that_says_when_and_where(topic: Any, schema: Any) -> None:
    event = Event(topic.name, schema["name"], example(schema), Position(topic.name, 2, 81))
    told = line(event)
    assert told.startswith("2013-01-01 00:26  " + f"{topic.name}[2]@81")
    assert schema["name"] in told
    assert "\n" not in told
    assert describe(event)


def test_what_is_not_understood_is_told_field_by_field() -> None:
    event = Event(
        "t", "ModelPromoted", {"event_id": "x", "event_time": 0, "colour": "red", "n": [1]}
    )
    assert describe(event) == "colour=red n=(1)"


def test_a_promotion_names_both_versions_and_the_reason() -> None:
    data = {"model_version": "toy-2", "previous_version": "toy-1", "reason": "gates passed"}
    assert describe(Event("t", "ModelPromoted", data)) == "toy-2 replaces toy-1: gates passed"


def test_a_trial_says_how_far_the_search_is_and_what_it_found() -> None:
    data = {
        "model_version": "digits-2",
        "trial": 3,
        "trials": 20,
        "parameters": '{"learning_rate": 0.01}',
        "value": 0.31234,
        "reason": "",
    }
    assert describe(Event("driftlog.trials", "TrialFinished", data)) == (
        "digits-2 trial 4 of 20: log-loss 0.3123 with learning_rate 0.01"
    )
    failed = {**data, "value": None, "reason": "no rows"}
    assert "FAILED: no rows" in describe(Event("driftlog.trials", "TrialFinished", failed))
