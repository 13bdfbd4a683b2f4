"""Parts of a schema as fastavro parses it: full names everywhere, a type always a plain word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.columnar.instructions import Unsupported

PRIMITIVES = {"null", "boolean", "int", "long", "float", "double", "bytes", "string"}
NAMED = {"record", "enum", "fixed"}


def resolve(schema: Any, named: Mapping[str, Any]) -> Any:
    """What a reference refers to; any other schema as it is."""
    return named[schema] if isinstance(schema, str) and schema not in PRIMITIVES else schema


def kind_of(schema: Any) -> str:
    """The name of a type that is no union; raises Unsupported."""
    if isinstance(schema, list):
        raise Unsupported("a union in a union")
    kind = schema["type"] if isinstance(schema, dict) else schema
    if not isinstance(kind, str) or kind not in PRIMITIVES | NAMED | {"array", "map"}:
        raise Unsupported(f"{kind} is none of Avro's plain types")
    return kind
