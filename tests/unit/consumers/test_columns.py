from __future__ import annotations

import pytest

from consumers.history.columns import (
    UnsupportedType,
    column_type,
    nullable_type,
    record_columns,
    widened,
)


@pytest.mark.parametrize(
    ("avro", "clickhouse"),
    [
        ("long", "Int64"),
        (["null", "double"], "Nullable(Float64)"),
        ({"type": "long", "logicalType": "timestamp-millis"}, "DateTime64(3, 'UTC')"),
        (
            ["null", {"type": "long", "logicalType": "timestamp-millis"}],
            "Nullable(DateTime64(3, 'UTC'))",
        ),
        ({"type": "array", "items": "long"}, "Array(Int64)"),
        (["null", {"type": "array", "items": "string"}], "Array(String)"),
        ({"type": "map", "values": "double"}, "Map(String, Float64)"),
        (
            {
                "type": "array",
                "items": {
                    "type": "record",
                    "name": "R",
                    "fields": [
                        {"name": "a", "type": "string"},
                        {"name": "b", "type": ["null", "long"]},
                    ],
                },
            },
            "Array(Tuple(a String, b Nullable(Int64)))",
        ),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, "LowCardinality(String)"),
    ],
)
def test_avro_type_has_its_column_type(avro: object, clickhouse: str) -> None:
    assert column_type(avro, ("field",)) == clickhouse


def test_a_union_of_two_types_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedType, match=r"a\.b: a union of 2 types"):
        column_type(["null", "string", "long"], ("a", "b"))


def test_nested_records_are_flattened_and_an_optional_record_makes_its_fields_optional() -> None:
    inner = {"type": "record", "name": "In", "fields": [{"name": "x", "type": "double"}]}
    schema = {
        "type": "record",
        "name": "Out",
        "fields": [{"name": "always", "type": inner}, {"name": "maybe", "type": ["null", inner]}],
    }
    columns = {column.name: column.type for column in record_columns(schema)}
    assert columns == {"always_x": "Float64", "maybe_x": "Nullable(Float64)"}


@pytest.mark.parametrize(
    ("stored", "wanted", "result"),
    [
        ("Int32", "Int64", "Int64"),
        ("Int64", "Int32", "Int64"),
        ("Int32", "Nullable(Int64)", "Nullable(Int64)"),
        ("Nullable(Int32)", "Int64", "Nullable(Int64)"),
        ("LowCardinality(String)", "String", "LowCardinality(String)"),
        ("String", "LowCardinality(Nullable(String))", "Nullable(String)"),
        (
            "Array(Tuple(a String))",
            "Array(Tuple(a String, b Int64))",
            "Array(Tuple(a String, b Int64))",
        ),
        (
            "Array(Tuple(a String, b Int64))",
            "Array(Tuple(a String))",
            "Array(Tuple(a String, b Int64))",
        ),
        ("Array(Tuple(\n    a String))", "Array(Tuple(a String))", "Array(Tuple(\n    a String))"),
        ("String", "Int64", None),
        ("Float64", "String", None),
        ("Array(Int64)", "Int64", None),
    ],
)
def test_the_wider_type_holds_both(stored: str, wanted: str, result: str | None) -> None:
    assert widened(stored, wanted) == result


def test_arrays_and_maps_are_never_nullable() -> None:
    assert nullable_type("Array(Int64)") == "Array(Int64)"
    assert nullable_type("LowCardinality(String)") == "LowCardinality(Nullable(String))"
    assert nullable_type("Nullable(Int64)") == "Nullable(Int64)"
