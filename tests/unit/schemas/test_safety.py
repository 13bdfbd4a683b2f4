from __future__ import annotations

import json
from typing import Any

import pytest

from schemas.safety import (
    MAX_DEPTH,
    MAX_SCHEMA_BYTES,
    MAX_VALUES,
    UnsafeSchema,
    check_safe,
    parse_text,
)
from tests.unit.schemas.build import bomb, field, record


def nested(depth: int) -> Any:
    schema: Any = "int"
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def doubling(steps: int) -> dict[str, Any]:
    """Each step holds the one before twice: 2 ** steps values in one event."""
    fields = [field("x0", record(field("x", "int"), name="R0"))]
    for step in range(1, steps):
        two = [field("a", f"demo.R{step - 1}"), field("b", f"demo.R{step - 1}")]
        fields.append(field(f"x{step}", record(*two, name=f"R{step}")))
    return record(*fields)


NOTHING = record(name="Nothing")
MANY_NULLS = record(field("n", "int"), *[field(f"x{i}", "null") for i in range(30)], name="Many")


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (bomb(), r"Thing\.next: demo\.Thing contains itself"),
        (record(field("xs", {"type": "array", "items": "Thing"})), "contains itself"),
        ({"type": "array", "items": "null"}, "take no bytes"),
        ({"type": "array", "items": NOTHING}, "take no bytes"),
        ({"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}}, "take no bytes"),
        (record(field("m", {"type": "array", "items": MANY_NULLS})), r"Thing\.m\.items: up to 32"),
        (nested(MAX_DEPTH + 1), "deep"),
        (doubling(20), f"more than {MAX_VALUES} values"),
        ([], "a union of no types"),
        ("text", "is no Avro type"),
        ({"type": "record", "fields": []}, "without a name"),
        ({"type": "record", "name": "R"}, "without fields"),
        (record({"name": "x"}), "a field needs a name and a type"),
        ({"type": "map"}, "map without values"),
        ({"type": "fixed", "name": "F", "size": -1}, "size -1"),
        (record(field("a", NOTHING), field("b", NOTHING)), r"demo\.Nothing is defined twice"),
        (None, "null is no Avro type"),
        ({"type": 3}, "3 is no Avro type"),
    ],
)
def test_danger_is_refused_and_located(schema: Any, why: str) -> None:
    with pytest.raises(UnsafeSchema, match=why):
        check_safe(schema)


@pytest.mark.parametrize(
    "schema",
    [
        "string",
        ["null", "long"],
        nested(MAX_DEPTH - 2),
        record(field("m", {"type": "map", "values": "double"})),
        record(field("a", record(field("x", "int"), name="In")), field("b", "In")),
        record(field("a", {"type": "array", "items": ["null", "int"]})),
        doubling(8),
    ],
)
def test_what_real_events_need_is_allowed(schema: Any) -> None:
    check_safe(schema)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not JSON"),
        ("[" * 5_000, "not JSON|nested too deeply"),
        ("NaN", "NaN is not JSON"),
        ('"' + "x" * MAX_SCHEMA_BYTES + '"', "larger than"),
    ],
)
def test_texts_that_are_no_schema_are_refused(text: str, why: str) -> None:
    with pytest.raises(UnsafeSchema, match=why):
        parse_text(text)


def test_texts_are_json_or_a_bare_primitive() -> None:
    assert parse_text(" string ") == "string"
    assert parse_text(json.dumps(bomb())) == bomb()
