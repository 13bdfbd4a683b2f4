from __future__ import annotations

from typing import Any

import pytest

from schemas.compatibility import (
    DEFAULT_LEVEL,
    LEVELS,
    InvalidSchema,
    incompatibilities,
    parse_avro,
)
from tests.unit.schemas.build import field, record

SCORE, LABEL = field("score", "double"), field("label", "int")
HINT = field("hint", "string", default="")
BASE = record(SCORE, LABEL)
COLOURS = {"type": "enum", "name": "Colour", "symbols": ["red", "green"]}
SHORT = {"type": "fixed", "name": "Hash", "size": 4}


def enum(*symbols: str) -> dict[str, Any]:
    return {**COLOURS, "symbols": list(symbols)}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (BASE, record(SCORE), ["field 'label' was removed and has no default (FORWARD)"]),
        (record(SCORE), BASE, ["field 'label' was added and has no default (BACKWARD)"]),
        (
            BASE,
            record(SCORE, field("label", "string")),
            [
                "field 'label' changed its type from int to string (BACKWARD)",
                "field 'label' changed its type from int to string (FORWARD)",
            ],
        ),
        (
            BASE,
            record(SCORE, field("label", "long")),
            ["field 'label' changed its type from int to long (FORWARD)"],
        ),
        (
            BASE,
            record(SCORE, field("label", ["null", "int"])),
            ["field 'label' changed its type from int to null (FORWARD)"],
        ),
        (
            record(field("c", COLOURS)),
            record(field("c", enum("red", "green", "blue"))),
            ["field 'c': symbol blue was added and the enum has no default (FORWARD)"],
        ),
        (
            record(field("c", COLOURS)),
            record(field("c", enum("red"))),
            ["field 'c': symbol green was removed and the enum has no default (BACKWARD)"],
        ),
        (
            record(field("h", SHORT)),
            record(field("h", {**SHORT, "size": 8})),
            [
                "field 'h' changed its size from 4 bytes to 8 bytes (BACKWARD)",
                "field 'h' changed its size from 4 bytes to 8 bytes (FORWARD)",
            ],
        ),
        (
            record(field("xs", {"type": "array", "items": record(SCORE, name="In")})),
            record(field("xs", {"type": "array", "items": record(name="In")})),
            ["field 'xs[].score' was removed and has no default (FORWARD)"],
        ),
        (
            record(field("m", {"type": "map", "values": "int"})),
            record(field("m", {"type": "map", "values": "string"})),
            [
                "field 'm{}' changed its type from int to string (BACKWARD)",
                "field 'm{}' changed its type from int to string (FORWARD)",
            ],
        ),
        (
            record(field("u", ["int", "string"])),
            record(field("u", ["int"])),
            ["field 'u': type string was removed (BACKWARD)"],
        ),
        (
            [BASE],
            [BASE, record(SCORE, name="Other")],
            ["the schema: type record Other was added (FORWARD)"],
        ),
        (
            BASE,
            record(SCORE, LABEL, name="Renamed"),
            [
                "the schema changed its type from record Thing to record Renamed (BACKWARD)",
                "the schema changed its type from record Thing to record Renamed (FORWARD)",
            ],
        ),
    ],
)
def test_every_breaking_change_is_told_by_field_and_rule(
    old: Any, new: Any, told: list[str]
) -> None:
    assert incompatibilities("FULL", new, [old]) == told


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (BASE, BASE),
        (BASE, record(SCORE, LABEL, HINT)),
        (record(SCORE, LABEL, HINT), BASE),
        (BASE, record(LABEL, SCORE)),
        (BASE, record(SCORE, {**LABEL, "doc": "0 or 1"}, doc="other words")),
    ],
)
def test_harmless_changes_pass(old: Any, new: Any) -> None:
    assert incompatibilities("FULL", new, [old]) == []


def test_levels_ask_in_their_direction_only() -> None:
    def allowed(new: Any, old: Any) -> set[str]:
        return {level for level in LEVELS if not incompatibilities(level, new, [old])}

    both_ways = {"NONE"}
    assert allowed(record(SCORE), BASE) == both_ways | {"BACKWARD", "BACKWARD_TRANSITIVE"}
    assert allowed(BASE, record(SCORE)) == both_ways | {"FORWARD", "FORWARD_TRANSITIVE"}
    assert allowed(BASE, BASE) == set(LEVELS)


def test_transitive_levels_ask_every_version() -> None:
    """hint comes with a default, then its default goes: the first version has no hint to read."""
    versions = [BASE, record(SCORE, LABEL, HINT)]
    newest = record(SCORE, LABEL, field("hint", "string"))
    assert incompatibilities("BACKWARD", newest, versions) == []
    assert incompatibilities(DEFAULT_LEVEL, newest, versions) == [
        "field 'hint' was added and has no default (BACKWARD)"
    ]


def test_the_first_version_is_free() -> None:
    assert incompatibilities(DEFAULT_LEVEL, BASE, []) == []


def test_an_alias_keeps_a_renamed_field_readable() -> None:
    renamed = record({**SCORE, "name": "probability", "aliases": ["score"]}, LABEL)
    assert incompatibilities("BACKWARD", renamed, [BASE]) == []


@pytest.mark.parametrize("schema", [{"type": "strange"}, {"type": "record"}, 7, None])
def test_what_is_no_schema_is_refused(schema: Any) -> None:
    with pytest.raises(InvalidSchema, match="not an Avro schema"):
        parse_avro(schema)


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="'SOMETIMES' is none of"):
        incompatibilities("SOMETIMES", BASE, [])
