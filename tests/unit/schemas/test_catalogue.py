from __future__ import annotations

import dataclasses
from importlib import resources

import pytest

from schemas.catalogue import Topic, load_schema, system_topics, task_topics
from schemas.compatibility import parse_avro
from schemas.registry.canonical import canonical
from schemas.safety import check_safe
from schemas.union import branches_of, union_of
from tests.unit.schemas.build import field, record

TASK = task_topics("demo", {"distance": "double", "carrier": "string"}, ["wind"])
ALL = [*system_topics(), *TASK]


@pytest.mark.parametrize("topic", ALL, ids=lambda topic: topic.name)
def test_every_topic_can_be_registered(topic: Topic) -> None:
    check_safe(topic.value_schema)
    parse_avro(topic.value_schema)


@pytest.mark.parametrize("topic", ALL, ids=lambda topic: topic.name)
def test_every_event_has_the_envelope_and_the_key_of_its_topic(topic: Topic) -> None:
    envelope = load_schema("SketchTaken")["fields"][:3]
    for schema in topic.schemas:
        assert schema["fields"][:3] == envelope
        assert topic.key in [part["name"] for part in schema["fields"]]


def test_every_avsc_is_on_exactly_one_topic_and_documented() -> None:
    files = {
        file.name.removesuffix(".avsc")
        for file in resources.files("schemas").joinpath("events").iterdir()
        if file.name.endswith(".avsc")
    }
    used = [schema["name"] for topic in system_topics() for schema in topic.schemas]
    assert sorted(used) == sorted(files)
    for topic in system_topics():
        for schema in topic.schemas:
            assert schema["doc"] and all(part.get("doc") for part in schema["fields"])


def test_topic_names_are_unique_and_give_the_subject() -> None:
    names = [topic.name for topic in ALL]
    assert len(set(names)) == len(names)
    assert TASK[0].subject == "demo.predictions-value"


def test_the_features_of_a_task_are_nullable_and_in_order() -> None:
    vector = next(part for part in TASK[0].schemas[0]["fields"] if part["name"] == "features")
    assert [(part["name"], part["type"]) for part in vector["type"]["fields"]] == [
        ("distance", ["null", "double"]),
        ("carrier", ["null", "string"]),
    ]


def test_a_type_that_the_topic_does_not_carry_is_named() -> None:
    with pytest.raises(KeyError, match="carries LabelObserved, not PredictionMade"):
        TASK[1].schema("PredictionMade")
    assert TASK[1].schema("LabelObserved")["name"] == "LabelObserved"


GATE = record(field("value", "double"), name="Gate")
GATES = {"type": "array", "items": GATE}


def test_a_union_defines_a_shared_type_once_and_its_branches_stand_alone() -> None:
    first = record(field("gates", GATES), name="First")
    second = record(
        field("gate", ["null", GATE], default=None), field("more", GATES), name="Second"
    )
    union = union_of([first, second])
    assert union[1]["fields"][0]["type"] == ["null", "demo.Gate"]
    parse_avro(union)
    alone = branches_of(union)
    assert canonical(alone[0]) == canonical(first)
    assert alone[1]["fields"][0]["type"] == ["null", GATE]
    assert alone[1]["fields"][1]["type"] == {"type": "array", "items": "demo.Gate"}
    for schema in alone:
        check_safe(schema)


def test_a_name_with_two_meanings_is_refused() -> None:
    other = record(field("value", "int"), name="Gate")
    with pytest.raises(ValueError, match=r"demo\.Gate is defined in two ways"):
        union_of([record(field("g", GATE), name="A"), record(field("g", other), name="B")])
    topic = dataclasses.replace(TASK[0], schemas=(GATE, other))
    with pytest.raises(ValueError, match="two ways"):
        topic.value_schema  # noqa: B018 - a property


def test_branches_resolve_names_by_namespace() -> None:
    inner = {"type": "fixed", "name": "Hash", "size": 4}
    union = [
        record(field("a", inner), name="A"),
        record(field("b", "Hash"), field("c", "demo.Hash"), name="B"),
    ]
    second = branches_of(union)[1]
    assert second["fields"][0]["type"]["size"] == 4
    assert second["fields"][1]["type"] == "demo.Hash"
    check_safe(second)
