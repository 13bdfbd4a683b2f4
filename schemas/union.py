"""A topic's record types as one union, and back: a named type is defined once, later uses name it.

Avro forbids a second definition of a name within a schema, even an equal one; two record types that
share a nested type (`GateResult`) can therefore stand in one union only by reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from schemas.safety import PRIMITIVES, full_name

NAMED = {"record", "error", "enum", "fixed"}


def union_of(records: Sequence[Any]) -> list[Any]:
    """The union of self-contained record schemas; raises ValueError if a name has two meanings."""
    defined: dict[str, Any] = {}

    def define(full: str, schema: Any) -> Any:
        if full not in defined:
            defined[full] = schema
            return None
        if defined[full] != schema:
            raise ValueError(f"{full} is defined in two ways")
        return full

    return [_walk(record, "", define, lambda full: full) for record in records]


def branches_of(union: Sequence[Any]) -> list[Any]:
    """Each type of a union that check_safe accepts, as a schema that stands by itself."""
    defined: dict[str, Any] = {}
    return [_self_contained(branch, defined) for branch in union]


def _self_contained(branch: Any, defined: dict[str, Any]) -> Any:
    here: set[str] = set()

    def define(full: str, schema: Any) -> Any:
        here.add(full)
        namespace, _, name = full.rpartition(".")
        defined[full] = {**schema, "name": name, "namespace": namespace}

    def refer(full: str) -> Any:
        if full in here or full not in defined:
            return full
        return _walk(defined[full], "", define, refer)

    return _walk(branch, "", define, refer)


def _walk(
    schema: Any, namespace: str, define: Callable[[str, Any], Any], refer: Callable[[str], Any]
) -> Any:
    """A copy of `schema`; `define` may give what stands for a definition, `refer` for a reference."""
    if isinstance(schema, str):
        if schema in PRIMITIVES:
            return schema
        return refer(schema if "." in schema or not namespace else f"{namespace}.{schema}")
    if isinstance(schema, list):
        return [_walk(branch, namespace, define, refer) for branch in schema]
    kind = schema["type"]
    if isinstance(kind, str) and kind in NAMED:
        full, inner = full_name(schema, namespace)
        stands_for = define(full, schema)
        if stands_for is not None or "fields" not in schema:
            return stands_for or schema
        fields = [
            {**field, "type": _walk(field["type"], inner, define, refer)}
            for field in schema["fields"]
        ]
        return {**schema, "fields": fields}
    parts = {"array": "items", "map": "values"}
    part = parts.get(kind, "type") if isinstance(kind, str) else "type"
    return {**schema, part: _walk(schema[part], namespace, define, refer)}
