"""Values -> Avro bytes: functions generated from the schema check a value and write it in one pass.

They take plain Python values (exactly dict, list, str, bytes, int, float, bool, None) and write what fastavro
would write after a strict check. They refuse everything else, so that fastavro says what is wrong, or accepts
a value of a rarer kind (NumPy's scalars, tuples, subclasses).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from itertools import groupby
from operator import countOf
from typing import Any, NamedTuple, NoReturn

from schemas.varints import VARINTS

Encode = Callable[[Any], bytes]
"""The Avro body of a value; raises Unfit."""


class Unfit(Exception):
    """The value does not fit the schema, or only fastavro knows whether it does."""


class _Uncovered(Exception):
    """The schema has something that is left to fastavro."""


class _Code(NamedTuple):
    """Two Python expressions about the variable `v`."""

    test: str
    """Whether `v` is a plain value of this type; true for a union. It does not look into a container."""
    write: str
    """The bytes of such a `v`; raises if it is wrong all the same: too large, or in what it holds."""

    @property
    def checked(self) -> str:
        """The bytes of any `v`; raises if it is wrong."""
        return f"({self.write} if {self.test} else refuse())"


_PRIMITIVES = {
    "null": _Code("v is None", r"b''"),
    "boolean": _Code("type(v) is bool", r"(b'\1' if v else b'\0')"),
    "int": _Code("type(v) is int and -0x80000000 <= v <= 0x7FFFFFFF", "varints[v]"),
    "long": _Code("type(v) is int", "varints[v]"),
    "float": _Code("(type(v) is float or type(v) is int)", "float32(v)"),
    "double": _Code("(type(v) is float or type(v) is int)", "float64(v)"),
    "bytes": _Code("type(v) is bytes", "varints[len(v)] + v"),
    "string": _Code("type(v) is str", "varints[len(e := v.encode())] + e"),
}
_KEY = "(varints[len(e := k.encode())] + e if type(k) is str else refuse())"
_LIST, _DICT = "type(v) is list", "type(v) is dict"


def encoder(schema: Any) -> Encode | None:
    """For a schema from fastavro.parse_schema; None if its values are left to fastavro."""
    source = _Source()
    try:
        whole = source.code(schema).checked
    except _Uncovered:
        return None
    name = source.function(f"try: return {whole}", "except Exception: raise Unfit from None")
    exec("\n".join(source.lines), source.scope)  # noqa: S102 - names are quoted, sizes are numbers
    encode: Encode = source.scope[name]
    return encode


def _refuse() -> NoReturn:
    raise Unfit


class _Source:
    """Functions of one argument `v` that return bytes, and the objects that they use."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.scope: dict[str, Any] = {
            "Unfit": Unfit,
            "refuse": _refuse,
            "varints": VARINTS,
            "varint": VARINTS.__getitem__,
            "count_of": countOf,
            "float32": struct.Struct("<f").pack,
            "float64": struct.Struct("<d").pack,
        }
        self._named: dict[str, _Code] = {}

    def function(self, *body: str) -> str:
        """The name of a new function."""
        name = f"part{len(self.lines)}"
        self.lines += [f"def {name}(v):", *(f"    {line}" for line in body)]
        return name

    def code(self, schema: Any) -> _Code:
        """Raises _Uncovered."""
        if isinstance(schema, list):
            return self._union(schema)
        if isinstance(schema, str):
            found = _PRIMITIVES.get(schema) or self._named.get(schema)
            if found is None:
                raise _Uncovered(f"{schema} contains itself")  # or nobody knows it
            return found
        kind = schema["type"]
        if "logicalType" in schema or not isinstance(kind, str):
            raise _Uncovered(f"{kind} with more to it")
        if kind in _PRIMITIVES:
            return _PRIMITIVES[kind]
        make = {
            "array": self._array,
            "map": self._map,
            "enum": self._enum,
            "fixed": self._fixed,
            "record": self._record,
        }.get(kind)
        if make is None:
            raise _Uncovered(kind)
        made = make(schema)
        if "name" in schema:
            self._named[schema["name"]] = made
        return made

    def _union(self, branches: list[Any]) -> _Code:
        if any(isinstance(branch, list) for branch in branches):
            raise _Uncovered("a union in a union")
        codes = [self.code(branch) for branch in branches]
        tests = [code.test for code in codes]
        if len(set(tests)) < len(tests) or (_LIST in tests and "bytes" in str(tests)):
            raise _Uncovered("branches that the type alone does not tell apart")
        choice = "refuse()"
        for index, code in reversed(list(enumerate(codes))):
            choice = f"{VARINTS[index]!r} + {code.write} if {code.test} else {choice}"
        return _Code("True", f"({choice})")

    def _array(self, schema: Any) -> _Code:
        if schema["items"] == "long":  # the histograms of sketches: no Python code for each item
            check = "if count_of(map(type, v), int) != len(v): refuse()"
            return self._block(_LIST, "map(varint, v)", check)
        return self._block(_LIST, f"[{self.code(schema['items']).checked} for v in v]")

    def _map(self, schema: Any) -> _Code:
        value = self.code(schema["values"]).checked
        return self._block(_DICT, f"[{_KEY} + {value} for k, v in v.items()]")

    def _block(self, test: str, items: str, *check: str) -> _Code:
        whole = rf"varints[len(v)] + b''.join({items}) + b'\0' if v else b'\0'"
        return _Code(test, f"{self.function(*check, f'return {whole}')}(v)")

    def _enum(self, schema: Any) -> _Code:
        symbols = self._object({text: VARINTS[i] for i, text in enumerate(schema["symbols"])})
        return _Code(f"type(v) is str and v in {symbols}", f"{symbols}[v]")

    def _fixed(self, schema: Any) -> _Code:
        return _Code(f"type(v) is bytes and len(v) == {int(schema['size'])}", "v")

    def _record(self, schema: Any) -> _Code:
        fields, size = schema["fields"], len(schema["fields"])
        defaults = self._object({one["name"]: one["default"] for one in fields if "default" in one})
        body = [
            f"d = v if len(v) == {size} else {{**{defaults}, **v}}",
            f"if len(d) != {size}: refuse()",  # a field too many; one too few is a KeyError below
        ]
        parts: list[str] = []
        for before, group in groupby(fields, lambda one: _before_double(one["type"])):
            for run in [list(group)] if before is not None else [[one] for one in group]:
                parts.append(f"p{len(parts)}")
                body += self._fields(parts[-1], run, before)
        made = self.function(*body, f"return b''.join([{', '.join(parts)}])")
        return _Code(_DICT, f"{made}(v)")

    def _fields(self, part: str, run: list[Any], before: list[int] | None) -> Iterator[str]:
        """Lines that set `part` to the bytes of one field, or of a run of alike doubles."""
        write = self.code(run[0]["type"]).checked
        if before is None:
            yield f"v = d[{run[0]['name']!r}]; {part} = {write}"
            return
        values = [f"{part}_{number}" for number in range(len(run))]
        yield from (f"{value} = d[{one['name']!r}]" for value, one in zip(values, run, strict=True))
        # Where all are there, one call packs the run.
        pack = self._object(struct.Struct("<" + ("B" * len(before) + "d") * len(run)).pack)
        packed = ", ".join(str(one) for value in values for one in (*before, value))
        yield f"if {' is '.join(f'type({value})' for value in values)} is float: {part} = {pack}({packed})"
        yield f"else: {part} = b''.join([{write} for v in ({', '.join(values)},)])"

    def _object(self, value: Any) -> str:
        name = f"object{len(self.scope)}"
        self.scope[name] = value
        return name


def _before_double(schema: Any) -> list[int] | None:
    """The bytes before a double of this type: its place in a union. None if it is no (nullable) double."""
    if schema == "double":
        return []
    if schema in (["null", "double"], ["double", "null"]):
        return [2 * schema.index("double")]
    return None
