"""Avro types as ClickHouse column types, and which changes of a type are safe (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from schemas.catalogue import Schema

_PRIMITIVES = {
    "boolean": "Bool",
    "int": "Int32",
    "long": "Int64",
    "float": "Float32",
    "double": "Float64",
    "string": "String",
    "bytes": "String",
    "enum": "LowCardinality(String)",
    "fixed": "String",
}
_LOGICAL = {
    "timestamp-millis": "DateTime64(3, 'UTC')",
    "timestamp-micros": "DateTime64(6, 'UTC')",
    "date": "Date32",
}
_FEW_VALUES = frozenset(
    [
        "task",
        "model_version",
        "kind",
        "feature",
        "subject",
        "entity",
        "key",
        "fold",
        "tool",
        "target",
        "recipe",
        "action",
        "phase",
        "status",
    ]
)
_WIDER = {
    "Int32": ("Int64", "Float64"),
    "Int64": ("Float64",),
    "Float32": ("Float64",),
}


class UnsupportedType(ValueError):
    """An Avro type that has no column type; the message names the field."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name, ClickHouse type, the path of its field in the event, and its comment."""

    name: str
    type: str
    path: tuple[str, ...] = ()
    comment: str = ""
    expression: str = ""
    """`DEFAULT ...` or `MATERIALIZED ...`; empty for a column that is always written."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A field of a record that is no record itself."""

    path: tuple[str, ...]
    type: Any
    """In Avro, without null."""
    optional: bool
    """Whether it, or a record around it, may be null."""
    doc: str

    @property
    def name(self) -> str:
        """Of its column."""
        return "_".join(self.path)


def leaves(schema: Schema, path: tuple[str, ...] = (), *, optional: bool = False) -> Iterator[Leaf]:
    """The leaf fields of a record at `path`, in order."""
    for field in schema["fields"]:
        here = (*path, str(field["name"]))
        inner, may_be_null = split_optional(field["type"], here)
        if kind(inner) == "record":
            yield from leaves(inner, here, optional=optional or may_be_null)
        else:
            yield Leaf(here, inner, optional or may_be_null, str(field.get("doc", "")))


def record_columns(schema: Schema) -> Iterator[Column]:
    """The columns of a record: nested records flattened with `_`, all else one column a field."""
    for leaf in leaves(schema):
        type_ = column_type(leaf.type, leaf.path, nullable=leaf.optional)
        if type_ in ("String", "Nullable(String)") and (
            len(leaf.path) > 1 or leaf.name in _FEW_VALUES
        ):
            type_ = f"LowCardinality({type_})"
        yield Column(leaf.name, type_, leaf.path, leaf.doc)


def split_optional(avro: Any, path: tuple[str, ...] = ()) -> tuple[Any, bool]:
    """(type, whether null is allowed); raises UnsupportedType for a union of more than one type."""
    if not isinstance(avro, list):
        return avro, False
    types = [type_ for type_ in avro if type_ != "null"]
    if len(types) != 1:
        raise UnsupportedType(f"{'.'.join(path)}: a union of {len(types)} types is no column")
    return types[0], len(avro) > 1


def kind(avro: Any) -> str:
    """The name of an Avro type, e.g. 'record' or 'long'."""
    return str(avro["type"] if isinstance(avro, dict) else avro)


def column_type(avro: Any, path: tuple[str, ...], *, nullable: bool = False) -> str:
    """The ClickHouse type of an Avro type; arrays and maps are never Nullable, they are empty."""
    inner, optional = split_optional(avro, path)
    nullable = nullable or optional
    if kind(inner) == "array":
        return f"Array({column_type(inner['items'], path)})"
    if kind(inner) == "map":
        return f"Map(String, {column_type(inner['values'], path)})"
    if kind(inner) == "record":
        fields = (
            f"{field['name']} {column_type(field['type'], (*path, field['name']))}"
            for field in inner["fields"]
        )
        return f"Tuple({', '.join(fields)})"
    logical = inner.get("logicalType", "") if isinstance(inner, dict) else ""
    plain = _LOGICAL.get(logical) or _PRIMITIVES.get(kind(inner))
    if plain is None:
        raise UnsupportedType(f"{'.'.join(path)}: Avro type {inner!r} has no column type")
    return nullable_type(plain) if nullable else plain


def nullable_type(type_: str) -> str:
    """The type with null allowed; arrays and maps stay as they are."""
    if type_.startswith(("Array(", "Map(", "Tuple(")) or "Nullable(" in type_:
        return type_
    if type_.startswith("LowCardinality("):
        return f"LowCardinality(Nullable({type_[15:-1]}))"
    return f"Nullable({type_})"


def widened(stored: str, wanted: str) -> str | None:
    """The type that holds both: `stored` itself where that suffices; None if none does."""
    if _canonical(stored) == _canonical(wanted):
        return stored
    stored_base, wanted_base = _unwrapped(stored), _unwrapped(wanted)
    if stored_base == wanted_base or stored_base in _WIDER.get(wanted_base, ()):
        base = stored
    elif wanted_base in _WIDER.get(stored_base, ()):
        base = wanted
    elif _tuple_fields(stored) and _tuple_fields(stored) < _tuple_fields(wanted):
        return wanted
    elif _tuple_fields(wanted) and _tuple_fields(wanted) < _tuple_fields(stored):
        return stored
    else:
        return None
    return nullable_type(base) if "Nullable(" in stored + wanted else base


def _canonical(type_: str) -> str:
    return re.sub(r"\s+", "", type_)


def _unwrapped(type_: str) -> str:
    match = re.fullmatch(r"(?:LowCardinality|Nullable)\((.*)\)", _canonical(type_))
    return _unwrapped(match[1]) if match else _canonical(type_)


def _tuple_fields(type_: str) -> frozenset[str]:
    """The fields of `Array(Tuple(...))` as written; empty for any other type."""
    match = re.fullmatch(r"Array\(Tuple\((.*)\)\)", type_.strip(), re.DOTALL)
    if not match:
        return frozenset()
    fields, depth, start = [], 0, 0
    for index, char in enumerate(match[1] + ","):
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            fields.append(" ".join(match[1][start:index].split()))
            start = index + 1
    return frozenset(fields)
