"""Random Avro schemas, how they may have looked to an older or newer writer, and random bytes for them."""

from __future__ import annotations

import itertools
import random
import struct
from typing import Any

from schemas.columnar import Kind
from tests.unit.schemas.build import event_record, field

PRIMITIVES = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"]
PROMOTED = {
    "int": ["long", "float", "double"],
    "long": ["float", "double"],
    "float": ["double"],
    "string": ["bytes"],
    "bytes": ["string"],
}
KINDS: dict[str, list[Kind]] = {
    "boolean": ["double", "long"],
    "int": ["double", "long"],
    "long": ["double", "long"],
    "float": ["double"],
    "double": ["double"],
    "string": ["code", "id", "text"],
    "enum": ["code", "id", "text"],
}
SYMBOLS = ["A", "B", "C", "D"]
DEFAULTS = {
    "boolean": True,
    "int": 7,
    "long": -7,
    "float": 0.5,
    "double": -0.5,
    "string": "by default",
}


class Schemas:
    """Draws schemas; names are unique within one object."""

    def __init__(self, rng: random.Random) -> None:
        self._rng, self._names = rng, itertools.count()

    def event(self) -> Any:
        """A record type `Thing` with an envelope and some fields."""
        return event_record(*self._fields(2))

    def type(self, depth: int) -> Any:
        choice = self._rng.random()
        if depth == 0 or choice < 0.45:
            return self._rng.choice(PRIMITIVES)
        if choice < 0.5:
            return {"type": self._rng.choice(["long", "string", "double"]), "note": "as an object"}
        if choice < 0.65:
            other = self._plain(depth - 1)
            return ["null", other] if self._rng.random() < 0.7 else [other, "null"]
        if choice < 0.7:
            return self._rng.sample(["null", "int", "string", "double", "boolean"], 3)
        return self._complex(depth)

    def later(self, schema: Any) -> Any:
        """What a reader may have instead of the written `schema`."""
        choice = self._rng.random()
        if isinstance(schema, dict) and schema["type"] == "record":
            return {**schema, "fields": self._later_fields(schema["fields"])}
        if choice < 0.1:
            return self.type(1)
        if choice < 0.2 and isinstance(schema, str) and schema != "null":
            return ["null", schema]
        if choice < 0.4 and isinstance(schema, str):
            return self._rng.choice(PROMOTED.get(schema, [schema]))
        if isinstance(schema, list):
            branches = [self.later(b) if self._rng.random() < 0.3 else b for b in schema]
            flat = [b for b in branches if not isinstance(b, list)]
            unique = list({str(kind_of(branch)): branch for branch in flat}.values())
            self._rng.shuffle(unique)
            return unique or schema
        return self._later_complex(schema)

    def _later_complex(self, schema: Any) -> Any:
        kind = kind_of(schema)
        if kind in {"array", "map"}:
            part = "items" if kind == "array" else "values"
            return {**schema, part: self.later(schema[part])}
        if kind == "enum" and self._rng.random() < 0.5:
            changed = {**schema, "symbols": self._rng.sample(SYMBOLS, 3)}
            if self._rng.random() < 0.5:
                changed["default"] = changed["symbols"][0]
            return changed
        if kind == "fixed" and self._rng.random() < 0.2:
            return {**schema, "size": schema["size"] + 1}
        return schema

    def _later_fields(self, fields: list[Any]) -> list[Any]:
        kept = []
        for one in fields:
            choice = self._rng.random()
            if choice < 0.15:
                continue
            changed = {**one, "type": self.later(one["type"])} if choice < 0.6 else one
            if choice > 0.9:
                changed = {**one, "name": f"r{next(self._names)}", "aliases": [one["name"]]}
            kept.append(changed)
        kept += [self._added() for _ in range(self._rng.randrange(3))]
        self._rng.shuffle(kept)
        return kept

    def _added(self) -> Any:
        kind = self._rng.choice(list(DEFAULTS))
        name = f"f{next(self._names)}"
        choice = self._rng.random()
        if choice < 0.05:
            return field(name, kind)  # no default: nothing can be read
        if choice < 0.5:
            return field(name, ["null", kind], default=None)
        return field(name, kind, default=DEFAULTS[kind])

    def _plain(self, depth: int) -> Any:
        drawn = self.type(depth)
        return "double" if isinstance(drawn, list) or drawn == "null" else drawn

    def _complex(self, depth: int) -> Any:
        kind = self._rng.choice(["record", "record", "enum", "fixed", "array", "map"])
        name = f"T{next(self._names)}"
        if kind == "record":
            return {"type": "record", "name": name, "fields": self._fields(depth - 1)}
        if kind == "enum":
            return {"type": "enum", "name": name, "symbols": self._rng.sample(SYMBOLS, 3)}
        if kind == "fixed":
            return {"type": "fixed", "name": name, "size": self._rng.randrange(1, 5)}
        part = "items" if kind == "array" else "values"
        inner = self.type(depth - 1)
        return {"type": kind, part: "int" if inner == "null" else inner}

    def _fields(self, depth: int) -> list[Any]:
        count = self._rng.randrange(1, 6)
        return [field(f"f{next(self._names)}", self.type(depth)) for _ in range(count)]


def kind_of(schema: Any) -> Any:
    return schema["type"] if isinstance(schema, dict) else schema


def paths(schema: Any, rng: random.Random, prefix: str = "") -> dict[str, Kind]:
    """A projection of all that can be a column."""
    found: dict[str, Kind] = {}
    for one in schema["fields"]:
        path, branches = prefix + one["name"], one["type"]
        branches = branches if isinstance(branches, list) else [branches]
        kinds = [kind_of(branch) for branch in branches if branch != "null"]
        if kinds == ["record"]:
            found |= paths(next(b for b in branches if b != "null"), rng, f"{path}.")
            continue
        fitting = [set(KINDS.get(kind, ())) for kind in kinds]
        shared = sorted(set.intersection(*fitting)) if fitting else []
        if shared and rng.random() < 0.8:
            found[path] = rng.choice(shared)
    return found


def body(schema: Any, rng: random.Random) -> bytes:
    """Random bytes of a value, in any of the forms that Avro allows."""
    if isinstance(schema, list):
        index = rng.randrange(len(schema))
        return number(index) + body(schema[index], rng)
    kind = kind_of(schema)
    if kind == "record":
        return b"".join(body(one["type"], rng) for one in schema["fields"])
    if kind == "enum":
        return number(rng.randrange(len(schema["symbols"])))
    if kind == "fixed":
        return rng.randbytes(schema["size"])
    if kind in {"array", "map"}:
        return _blocks(schema, kind, rng)
    return _primitive(kind, rng)


def number(value: int) -> bytes:
    """A zigzag varint."""
    value = ((value << 1) ^ (value >> 63)) & (2**64 - 1)
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def damaged(payload: bytes, rng: random.Random) -> bytes:
    """The payload cut, lengthened, or with some bits flipped."""
    choice = rng.random()
    if choice < 0.25:
        return payload[: rng.randrange(len(payload))]
    if choice < 0.3:
        return payload + rng.randbytes(rng.randrange(1, 9))
    out = bytearray(payload)
    for _ in range(rng.randrange(1, 4)):
        first = 5 if len(out) > 5 and rng.random() < 0.97 else 0
        out[rng.randrange(first, len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _blocks(schema: Any, kind: str, rng: random.Random) -> bytes:
    out = b""
    for _ in range(rng.randrange(3)):
        items = []
        for _ in range(rng.randrange(1, 4)):
            key = _primitive("string", rng) if kind == "map" else b""
            items.append(key + body(schema["items" if kind == "array" else "values"], rng))
        joined = b"".join(items)
        sized = rng.random() < 0.5
        out += number(-len(items)) + number(len(joined)) if sized else number(len(items))
        out += joined
    return out + number(0)


def _primitive(kind: str, rng: random.Random) -> bytes:
    if kind == "null":
        return b""
    if kind == "boolean":
        return bytes([rng.randrange(2)])
    if kind in {"int", "long"}:
        width = rng.choice([1, 7, 30, 53, 63] if kind == "long" else [1, 7, 31])
        return number(rng.randrange(-(2**width), 2**width))
    if kind == "float":
        return struct.pack("<f", rng.gauss(0, 1))
    if kind == "double":
        return struct.pack("<d", rng.gauss(0, 1))
    if kind == "bytes":
        raw = rng.randbytes(rng.randrange(5)) if rng.random() < 0.5 else b"plain"
        return number(len(raw)) + raw
    text = rng.choice(
        ["", "a", "JFK", "é", "日本語", "a longer text of more than thirty-two bytes", "\U0001f600"]
    )
    return number(len(text.encode())) + text.encode()
