"""Which fields are wanted as columns, and whether a schema has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from schemas.columnar.avro import kind_of, resolve
from schemas.columnar.columns import Kind


class Leaf(NamedTuple):
    """A wanted field: its column's number and kind."""

    column: int
    kind: Kind


Sink = Leaf | dict[str, Any] | None
"""Where a value goes: into a column, its fields into columns (by name), or nowhere."""


def sinks(projection: Mapping[str, Kind]) -> dict[str, Any]:
    """Paths ('features.carrier') as a tree; raises ValueError where one path is inside another."""
    tree: dict[str, Any] = {}
    for column, (path, kind) in enumerate(projection.items()):
        *parents, name = path.split(".")
        at = tree
        for parent in parents:
            at = at.setdefault(parent, {})
            if not isinstance(at, dict):
                raise ValueError(f"{path}: {parent} is wanted as a column itself")
        if name in at:
            raise ValueError(f"{path} is wanted twice, or fields inside it are")
        at[name] = Leaf(column, kind)
    return tree


def check_kinds(schema: Any, projection: Mapping[str, Kind]) -> None:
    """Raises KeyError for a field that a parsed record schema lacks, ValueError if it cannot be that kind."""
    for path, kind in projection.items():
        at = [schema]
        for name in path.split("."):
            at = [_field(record, name, path, schema) for record in at]
            at = [part for inner in at for part in _types(inner, schema["__named_schemas"])]
        wrong = {kind_of(part) for part in at} - _KINDS[kind]
        if wrong:
            raise ValueError(f"{path} is {' or '.join(sorted(wrong))}, which is no {kind}")


_KINDS: dict[Kind, set[str]] = {
    "double": {"boolean", "int", "long", "float", "double"},
    "long": {"boolean", "int", "long"},
    "code": {"string", "enum"},
    "id": {"string", "enum"},
    "text": {"string", "enum"},
}


def _field(record: Any, name: str, path: str, schema: Any) -> Any:
    fields = {field["name"]: field["type"] for field in record.get("fields", ())}
    if name not in fields:
        known = ", ".join(fields) or "no fields"
        raise KeyError(f"{path}: {schema['name']} has no {name} there; it has {known}")
    return fields[name]


def _types(schema: Any, named: Mapping[str, Any]) -> list[Any]:
    """What a value can be, but for null."""
    branches = schema if isinstance(schema, list) else [schema]
    plain = [resolve(branch, named) for branch in branches]
    whole = [part if isinstance(part, dict) else {"type": part} for part in plain]
    return [part for part in whole if part["type"] != "null"]
