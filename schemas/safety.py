"""Schemas that could crash or drown a reader are refused before they are registered or decoded with.

A decoder follows the schema, not the bytes: a recursive schema lets 1 MB of bytes nest until the stack
ends, and items that take no bytes let a count of 6 bytes ask for all memory. What is measured here is
what the bytes of one event can cost: how deep it nests, and how many values one byte can stand for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

MAX_SCHEMA_BYTES = 256 * 1024
MAX_DEPTH = 24
MAX_VALUES = 20_000
"""Values that an event can hold without the help of an array or a map."""
MAX_VALUES_PER_BYTE = 4
"""Values that one byte inside an array or a map can stand for (a plain record needs at most 2 or 3)."""

PRIMITIVES = {"null", "boolean", "int", "long", "float", "double", "bytes", "string"}
_PRIMITIVE_BYTES = {"null": 0, "float": 4, "double": 8}
_NAMED = {"record", "error", "enum", "fixed"}


class UnsafeSchema(ValueError):
    """The message says where in the schema the danger is, and what it is."""


class _Cost(NamedTuple):
    """What a value can cost: the least bytes, the most values, the depth.

    `excess` is the most that (values - MAX_VALUES_PER_BYTE * bytes) can be; an item of an array whose
    excess is not positive stays within that ratio however often it is repeated.
    """

    bytes: int
    values: int
    depth: int
    excess: int

    @classmethod
    def leaf(cls, size: int) -> _Cost:
        return cls(size, 1, 1, 1 - MAX_VALUES_PER_BYTE * size)


def parse_text(text: str) -> Any:
    """The JSON of a schema's text (a bare name such as `string` counts); raises UnsafeSchema."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_SCHEMA_BYTES:
        raise UnsafeSchema(f"the schema is larger than {MAX_SCHEMA_BYTES} bytes")
    if text.strip() in PRIMITIVES:
        return text.strip()
    try:
        return json.loads(text, parse_constant=_no_constant)
    except ValueError as error:
        raise UnsafeSchema(f"the schema is not JSON: {error}") from error
    except RecursionError as error:
        raise UnsafeSchema("the schema is nested too deeply") from error


def check_safe(schema: Any) -> None:
    """Raises UnsafeSchema if bytes written with `schema` could crash or drown who decodes them."""
    _Walk().cost(schema, "", "schema", 0)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


class _Walk:
    """One pass over a schema; every named type is measured once."""

    def __init__(self) -> None:
        self._known: dict[str, _Cost] = {}
        self._open: set[str] = set()

    def cost(self, schema: Any, namespace: str, at: str, depth: int) -> _Cost:
        if depth > MAX_DEPTH:
            raise UnsafeSchema(f"{at}: nested more than {MAX_DEPTH} deep")
        if isinstance(schema, str):
            return self._reference(schema, namespace, at)
        if isinstance(schema, list):
            return self._union(schema, namespace, at, depth)
        if not isinstance(schema, dict) or "type" not in schema:
            raise UnsafeSchema(f"{at}: {_short(schema)} is no Avro type")
        kind = schema["type"]
        if isinstance(kind, (dict, list)):
            return self.cost(kind, namespace, at, depth + 1)
        if not isinstance(kind, str):
            raise UnsafeSchema(f"{at}: {_short(kind)} is no Avro type")
        if kind in {"array", "map"}:
            return self._items(schema, kind, namespace, at, depth)
        if kind in _NAMED:
            return self._named(schema, kind, namespace, at, depth)
        return self._reference(kind, namespace, at)

    def _reference(self, name: str, namespace: str, at: str) -> _Cost:
        if name in PRIMITIVES:
            return _Cost.leaf(_PRIMITIVE_BYTES.get(name, 1))
        for full in (name, f"{namespace}.{name}" if namespace and "." not in name else name):
            if full in self._open:
                raise UnsafeSchema(
                    f"{at}: {name} contains itself; bytes can nest it until the reader's stack ends"
                )
            if full in self._known:
                return self._known[full]
        raise UnsafeSchema(f"{at}: {_short(name)} is no Avro type")

    def _union(self, branches: list[Any], namespace: str, at: str, depth: int) -> _Cost:
        costs = [self.cost(branch, namespace, at, depth + 1) for branch in branches]
        if not costs:
            raise UnsafeSchema(f"{at}: a union of no types")
        cost = _Cost(
            bytes=1 + min(cost.bytes for cost in costs),
            values=max(cost.values for cost in costs),
            depth=1 + max(cost.depth for cost in costs),
            excess=max(cost.excess for cost in costs) - MAX_VALUES_PER_BYTE,
        )
        return self._bounded(cost, at)

    def _items(self, schema: Any, kind: str, namespace: str, at: str, depth: int) -> _Cost:
        part = "items" if kind == "array" else "values"
        if part not in schema:
            raise UnsafeSchema(f"{at}: {kind} without {part}")
        here = f"{at}.{part}"
        item = self.cost(schema[part], namespace, here, depth + 1)
        if item.bytes == 0:
            raise UnsafeSchema(
                f"{here}: {kind} of values that take no bytes; a few bytes can ask for billions of them"
            )
        key_bytes = 1 if kind == "map" else 0
        if item.excess > MAX_VALUES_PER_BYTE * key_bytes:
            raise UnsafeSchema(
                f"{here}: up to {item.values} values in as little as {item.bytes + key_bytes} bytes; "
                f"at most {MAX_VALUES_PER_BYTE} per byte can be read safely"
            )
        return self._bounded(_Cost.leaf(1)._replace(depth=item.depth + 1), at)

    def _named(self, schema: Any, kind: str, namespace: str, at: str, depth: int) -> _Cost:
        name = schema.get("name")
        if not isinstance(name, str) or not name:
            raise UnsafeSchema(f"{at}: {kind} without a name")
        full, inner = full_name(schema, namespace)
        if full in self._open or full in self._known:
            raise UnsafeSchema(f"{at}: {full} is defined twice")
        if kind == "fixed":
            cost = self._fixed(schema, at)
        elif kind == "enum":
            cost = _Cost.leaf(1)
        else:
            self._open.add(full)
            cost = self._record(schema, inner, f"{at}.{name}" if at != "schema" else name, depth)
            self._open.remove(full)
        self._known[full] = cost
        return cost

    def _fixed(self, schema: Any, at: str) -> _Cost:
        size = schema.get("size")
        if type(size) is not int or not 0 <= size <= 1_000_000:
            raise UnsafeSchema(f"{at}: fixed of size {_short(size)}; 0 to 1000000 is possible")
        return _Cost.leaf(size)

    def _record(self, schema: Any, namespace: str, at: str, depth: int) -> _Cost:
        costs = [
            self.cost(field["type"], namespace, f"{at}.{field.get('name')}", depth + 1)
            for field in _fields(schema, at)
        ]
        values = 1 + sum(cost.values for cost in costs)
        deepest = 1 + max((cost.depth for cost in costs), default=0)
        excess = 1 + sum(cost.excess for cost in costs)
        return self._bounded(_Cost(sum(cost.bytes for cost in costs), values, deepest, excess), at)

    def _bounded(self, cost: _Cost, at: str) -> _Cost:
        if cost.values > MAX_VALUES:
            raise UnsafeSchema(f"{at}: more than {MAX_VALUES} values in one event")
        if cost.depth > MAX_DEPTH:
            raise UnsafeSchema(f"{at}: nested more than {MAX_DEPTH} deep")
        return cost


def full_name(schema: Any, namespace: str) -> tuple[str, str]:
    """(full name, namespace for what is inside) of a named type inside `namespace` (Avro 1.12, Names)."""
    name = schema["name"]
    if "." in name:
        return name, name.rpartition(".")[0]
    own = schema.get("namespace", namespace)
    own = own if isinstance(own, str) else namespace
    return (f"{own}.{name}" if own else name), own


def _fields(schema: Any, at: str) -> Iterator[Any]:
    fields = schema.get("fields")
    if not isinstance(fields, list):
        raise UnsafeSchema(f"{at}: record without fields")
    for field in fields:
        if not isinstance(field, dict) or "type" not in field or "name" not in field:
            raise UnsafeSchema(f"{at}: a field needs a name and a type")
        yield field


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
