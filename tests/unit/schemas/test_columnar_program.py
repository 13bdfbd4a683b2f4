from __future__ import annotations

import random
import struct
from typing import Any

import pytest

from schemas.codec import Codec
from schemas.columnar import Kind
from schemas.columnar.instructions import REFUSAL, Op, Unsupported
from schemas.columnar.program import compile_event
from schemas.columnar.projection import Leaf, sinks
from tests.unit.schemas.build import event_record, field, framed, record
from tests.unit.schemas.columnar import Case, DictRegistry
from tests.unit.schemas.columnar_random import body


def compiled(writer: Any, projection: dict[str, Kind]) -> list[int]:
    """The program of a schema that is read as written."""
    branches = Codec(DictRegistry({1: writer}), []).written(1)
    return compile_event(branches, [True], sinks(projection)).code.tolist()


def test_a_projection_becomes_a_tree() -> None:
    tree = sinks({"a": "long", "b.c": "code", "b.d.e": "id"})
    assert tree == {"a": Leaf(0, "long"), "b": {"c": Leaf(1, "code"), "d": {"e": Leaf(2, "id")}}}


def test_the_program_of_a_prediction_is_short() -> None:
    """Runs of nullable doubles, wanted or not, are one instruction each."""
    features = record(
        *(field(f"x{number}", ["null", "double"]) for number in range(6)), name="Features"
    )
    thing = event_record(field("caused_by", ["null", "string"]), field("features", features))
    wanted: dict[str, Kind] = {
        "event_time": "long",
        "features.x0": "double",
        "features.x1": "double",
    }
    assert compiled(thing, wanted) == [
        *(Op.SKIP_STRING,),
        *(Op.LONG, 0),
        *(Op.OPTION, 0, 2, 5),
        *(Op.SKIP_STRING,),
        *(Op.NULLABLE_DOUBLES, 2, 0, 1, 2),
        *(Op.SKIP_OPTIONS, 4, 0, 8),
        *(Op.END,),
    ]


def test_a_run_does_not_go_on_where_something_may_jump_to() -> None:
    """The double after the union is read whichever branch came before it."""
    thing = event_record(
        field("a", ["null", "string"]),
        field("b", ["int", "double", "string"]),
        field("c", "double"),
    )
    case = Case(None, {"c": "double"}, {1: thing})
    head = b"\x02a\x02" + b"\x00"
    payloads = [
        framed(1, head + branch + struct.pack("<d", 7.0))
        for branch in (b"\x00\x02", b"\x02" + struct.pack("<d", 1.0), b"\x04\x00")
    ]
    columns, bad = case.agree(payloads)
    assert (columns.data["c"].tolist(), bad) == ([7.0, 7.0, 7.0], [])


def test_a_union_of_many_types_is_left_to_the_row_codec() -> None:
    enums = [{"type": "enum", "name": f"E{n}", "symbols": ["A", "B"]} for n in range(65)]
    thing = event_record(field("x", enums), field("y", "double"))
    with pytest.raises(Unsupported, match="65 types"):
        compiled(thing, {"y": "double"})
    rng = random.Random(0)
    case = Case(None, {"y": "double"}, {1: thing})
    _, bad = case.agree([framed(1, body(thing, rng)) for _ in range(50)])
    assert bad == []
    assert case.decoder._programs[1] is REFUSAL


def test_unions_that_unfold_into_a_mountain_are_left_to_the_row_codec() -> None:
    """Each of four levels names all eight records of the level below in each of its eight fields."""

    def level(number: int, below: list[Any]) -> list[Any]:
        types = [below, *([[one["name"] for one in below]] * 63)] if below else ["int"] * 64
        return [
            {
                "type": "record",
                "name": f"L{number}R{place}",
                "fields": [
                    field(f"f{at}", types[0] if place == at == 0 else types[-1]) for at in range(8)
                ],
            }
            for place in range(8)
        ]

    below: list[Any] = []
    for number in range(4):
        below = level(number, below)
    thing = event_record(field("x", below))
    with pytest.raises(Unsupported, match="words of code"):
        compiled(thing, {"event_time": "long"})


def test_named_types_that_are_used_again() -> None:
    inner = record(field("v", ["null", "double"]), field("s", "string"), name="Inner")
    thing = event_record(
        field("a", inner), field("b", "demo.Inner"), field("c", ["null", "demo.Inner"])
    )
    projection: dict[str, Kind] = {"a.v": "double", "b.v": "double", "b.s": "code", "c.s": "text"}
    rng = random.Random(0)
    case = Case(thing, projection, {1: thing})
    _, bad = case.agree(
        [framed(1, body({**thing, "fields": _inlined(thing, inner)}, rng)) for _ in range(50)]
    )
    assert bad == []
    assert case.decoder._programs[1] is not REFUSAL


def _inlined(thing: Any, inner: Any) -> list[Any]:
    types = {"a": inner, "b": inner, "c": ["null", inner]}
    return [{**one, "type": types.get(one["name"], one["type"])} for one in thing["fields"]]
