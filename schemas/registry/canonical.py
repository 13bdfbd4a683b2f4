"""When are two schema texts the same schema? When their canonical forms are equal.

Blanks, the order of members, where a namespace is written and `{"type": "int"}` for `"int"` make no
difference; docs, defaults, aliases and properties do, as in Confluent's registry.
"""

from __future__ import annotations

import json
from typing import Any

from schemas.safety import PRIMITIVES, full_name


def canonical(schema: Any) -> str:
    """The canonical form of a schema (JSON) that check_safe accepts."""
    return json.dumps(_walk(schema, ""), sort_keys=True, separators=(",", ":"))


def _walk(schema: Any, namespace: str) -> Any:
    if isinstance(schema, str):
        known = schema in PRIMITIVES or "." in schema or not namespace
        return schema if known else f"{namespace}.{schema}"
    if isinstance(schema, list):
        return [_walk(branch, namespace) for branch in schema]
    kind = schema["type"]
    rest = {key: value for key, value in schema.items() if key not in {"type", "namespace"}}
    if isinstance(kind, (dict, list)):
        inner = _walk(kind, namespace)
        return {**rest, "type": inner} if rest else inner
    if kind in {"array", "map"}:
        part = "items" if kind == "array" else "values"
        return {**rest, "type": kind, part: _walk(schema[part], namespace)}
    if kind in {"record", "error", "enum", "fixed"}:
        return _named(schema, kind, rest, namespace)
    plain = _walk(kind, namespace)
    return {**rest, "type": plain} if rest else plain


def _named(schema: Any, kind: str, rest: dict[str, Any], namespace: str) -> dict[str, Any]:
    full, inner = full_name(schema, namespace)
    named = {**rest, "type": kind, "name": full}
    if not named.get("aliases", True):
        del named["aliases"]
    if "fields" in schema:
        named["fields"] = [
            {**field, "type": _walk(field["type"], inner)} for field in schema["fields"]
        ]
    return named
