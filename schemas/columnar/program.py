"""An Avro schema as a table of integers that `machine` follows: what to store where, what to step over.

Schema resolution happens here, once a schema, by the rules of fastavro's reader, which is what the row
codec runs. The program is strict: it accepts only bytes that the row codec accepts, and gives the same
values. Where it is not sure, it has REFUSE, and the event goes to the row codec.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from schemas.columnar.avro import NAMED, kind_of, resolve
from schemas.columnar.columns import NULL_BITS, Kind
from schemas.columnar.instructions import MAX_DEPTH, NO_TEXT, Code, Op, Program, Unsupported
from schemas.columnar.projection import Leaf, Sink


def compile_event(
    branches: Sequence[tuple[str, Any, Any]], wanted: Sequence[bool | None], tree: Sink
) -> Program:
    """The program of a writer's schema; raises Unsupported.

    `branches` are what `Codec.written` gives (they passed check_safe); `wanted` says of each whether it is
    the wanted type (True), another that may be there (False) or one that must not (None).
    """
    code = Code()
    heads = []
    head = code.branch(len(branches)) if len(branches) > 1 else None
    for (_, writer, reader), want in zip(branches, wanted, strict=True):
        heads.append(code.here())
        if want is None:
            code.emit(Op.REFUSE)
            continue
        _Compiler(code, writer, reader).value(writer, reader, tree if want else None)
        code.emit(Op.END if want else Op.END_OTHER)
    if head is not None:
        code.aim(head, 2, heads)
    texts = (np.frombuffer(text + b"\0", np.uint8) for text in code.texts)
    return Program(np.array(code.words, np.int64), tuple(texts))


_PROMOTED = {
    ("int", "long"),
    ("int", "float"),
    ("int", "double"),
    ("long", "float"),
    ("long", "double"),
    ("float", "double"),
    ("string", "bytes"),
    ("bytes", "string"),
}
_SIZES = {"boolean": 1, "float": 4, "double": 8}
_STRING_OPS = {"code": Op.STRING_CODE, "id": Op.STRING_ID, "text": Op.STRING_TEXT}
_CONSTANT_OPS = {"code": Op.CONSTANT_CODE, "id": Op.CONSTANT_ID, "text": Op.CONSTANT_TEXT}
_NUMBER_OPS = {
    ("boolean", "double"): Op.BOOLEAN_TO_DOUBLE,
    ("boolean", "long"): Op.BOOLEAN_TO_LONG,
    ("int", "double"): Op.LONG_TO_DOUBLE,
    ("int", "long"): Op.LONG,
    ("float", "double"): Op.FLOAT_TO_DOUBLE,
}

_MISMATCH = object()


class _Compiler:
    """One event's schema. `writer` and `reader` are as fastavro parses them; no reader: as written."""

    def __init__(self, code: Code, writer: Any, reader: Any) -> None:
        self._code = code
        self._writers: dict[str, Any] = writer["__named_schemas"]
        self._readers: dict[str, Any] = reader["__named_schemas"] if reader else {}
        self._depth = 0

    def value(self, writer: Any, reader: Any, sink: Sink) -> None:
        if isinstance(writer, list):
            self._union(writer, reader, sink)
            return
        if isinstance(reader, list):
            reader = self._first_match(writer, reader)
        elif reader is not None and not self._match(writer, reader):
            reader = _MISMATCH
        if reader is _MISMATCH:
            self._code.emit(Op.REFUSE)
            return
        self._plain(resolve(writer, self._writers), resolve(reader, self._readers), sink)

    def _plain(self, writer: Any, reader: Any, sink: Sink) -> None:
        kind = kind_of(writer)
        if kind == "record":
            self._record(writer, reader, sink)
        elif kind == "enum":
            self._enum(writer, reader, sink)
        elif kind in {"array", "map"}:
            self._items(writer, reader, sink, kind)
        elif kind == "fixed":
            self._unless(sink, writer["size"])
        elif kind == "null":
            self._absent(sink)
        elif kind in {"string", "bytes"}:
            self._string(kind, kind if reader is None else kind_of(reader), sink)
        else:
            self._number(kind, kind if reader is None else kind_of(reader), sink)

    def _number(self, kind: str, read: str, sink: Sink) -> None:
        """`kind` is what was written, `read` what it is promoted to."""
        if sink is None:
            if kind in {"int", "long"}:
                self._code.emit(Op.SKIP_VARINT)
            else:
                self._code.skip(_SIZES[kind])
            return
        kind = "int" if kind == "long" else kind
        whole = read in {"int", "long", "boolean"}
        if not isinstance(sink, Leaf) or (sink.kind == "long" and not whole):
            self._code.emit(Op.REFUSE)
        elif (kind, sink.kind) == ("double", "double"):
            self._code.run(Op.DOUBLES, (), sink.column)
        elif (kind, sink.kind) in _NUMBER_OPS:
            self._code.emit(_NUMBER_OPS[kind, sink.kind], sink.column)
        else:
            self._code.emit(Op.REFUSE)

    def _string(self, kind: str, read: str, sink: Sink) -> None:
        if sink is None:
            self._code.emit(Op.SKIP_BLOB if kind == read == "bytes" else Op.SKIP_STRING)
        elif isinstance(sink, Leaf) and sink.kind in _STRING_OPS and read == "string":
            self._code.emit(_STRING_OPS[sink.kind], sink.column)
        else:
            self._code.emit(Op.REFUSE)

    def _unless(self, sink: Sink, size: int) -> None:
        """Step over `size` bytes, which fit no column."""
        if sink is None:
            self._code.skip(size)
        else:
            self._code.emit(Op.REFUSE)

    def _enum(self, writer: Any, reader: Any, sink: Sink) -> None:
        symbols = [_symbol(symbol, reader) for symbol in writer["symbols"]]
        if sink is None and None not in symbols:
            self._code.emit(Op.SKIP_ENUM, len(symbols))
            return
        if not isinstance(sink, Leaf | None) or not symbols:
            self._code.emit(Op.REFUSE)
            return
        head, targets, exits = self._code.branch(len(symbols)), [], []
        for symbol in symbols:
            targets.append(self._code.here())
            if symbol is None:
                self._code.emit(Op.REFUSE)
                continue
            self._constant(symbol, sink)
            exits.append(self._code.emit(Op.JUMP, 0))
        self._join(head, 2, targets, exits)

    def _items(self, writer: Any, reader: Any, sink: Sink, kind: str) -> None:
        if sink is not None:
            self._code.emit(Op.REFUSE)
            return
        if self._depth == MAX_DEPTH:
            raise Unsupported(f"arrays and maps more than {MAX_DEPTH} deep")
        part = "items" if kind == "array" else "values"
        self._code.here()
        block = self._code.emit(Op.BLOCK, self._depth, 0)
        body = self._code.here()
        self._depth += 1
        if kind == "map":
            self._code.emit(Op.SKIP_STRING)
        self.value(writer[part], None if reader is None else reader[part], None)
        self._depth -= 1
        again = self._code.emit(Op.AGAIN, self._depth, 0, 0)
        self._code.aim(again, 2, [body, block])
        self._code.aim(block, 2, [self._code.here()])

    def _record(self, writer: Any, reader: Any, sink: Sink) -> None:
        if isinstance(sink, Leaf):
            self._code.emit(Op.REFUSE)
            return
        fields = writer["fields"]
        if len({field["name"] for field in fields}) < len(fields):
            raise Unsupported(f"{writer['name']} has two fields of one name")
        wanted = sink or {}
        if reader is None:
            for field in fields:
                self.value(field["type"], None, wanted.get(field["name"]))
            seen = {field["name"] for field in fields}
            self._absent({name: inner for name, inner in wanted.items() if name not in seen})
            return
        self._resolved(fields, reader["fields"], wanted)

    def _resolved(self, fields: Any, readers: Any, wanted: Mapping[str, Any]) -> None:
        left = {field["name"]: field for field in readers}
        aliases = {alias: field for field in readers for alias in field.get("aliases", ())}
        for field in fields:
            found = left.get(field["name"], aliases.get(field["name"]))
            if found is None:
                self.value(field["type"], None, None)
                continue
            self.value(field["type"], found["type"], wanted.get(found["name"]))
            if left.pop(found["name"], None) is None:  # two fields by one alias
                self._code.emit(Op.REFUSE)
        for name, field in left.items():
            if "default" in field:
                self._constant(field["default"], wanted.get(name))
            else:
                self._code.emit(Op.REFUSE)
        known = {field["name"] for field in readers}
        self._absent({name: inner for name, inner in wanted.items() if name not in known})

    def _union(self, writer: Any, reader: Any, sink: Sink) -> None:
        kinds = [kind_of(resolve(branch, self._writers)) for branch in writer]
        if len(writer) == 2 and "null" in kinds:
            self._option(writer, reader, sink, kinds)
            return
        head, targets, exits = self._code.branch(len(writer)), [], []
        for branch in writer:
            targets.append(self._code.here())
            self.value(branch, reader, sink)
            exits.append(self._code.emit(Op.JUMP, 0))
        self._join(head, 2, targets, exits)

    def _option(self, writer: Any, reader: Any, sink: Sink, kinds: Sequence[str]) -> None:
        """A union of null and one other type."""
        null = kinds.index("null")
        other, kind, null_tag, other_tag = writer[1 - null], kinds[1 - null], 2 * null, 2 - 2 * null
        nullable = reader is None or self._reads_null(reader)
        if (
            isinstance(sink, Leaf)
            and sink.kind == "double"
            and kind_of(other) == "double"
            and nullable
        ):
            read = reader if reader is None else self._first_match(other, reader)
            if read is not _MISMATCH:
                self._code.run(Op.NULLABLE_DOUBLES, (null_tag,), sink.column)
                return
        size = _SIZES.get(kind, 0)
        if sink is None and reader is None and size:
            self._code.skip_options(null_tag, size)
            return
        head = self._code.emit(Op.OPTION, null_tag, other_tag, 0)
        self._code.here()
        self.value(other, reader, sink)
        if nullable and sink is None:
            self._code.aim(head, 3, [self._code.here()])
            return
        over = self._code.emit(Op.JUMP, 0)
        target = self._code.here()
        self.value(writer[null], reader, sink)
        self._join(head, 3, [target], [over])

    def _join(self, head: int, word: int, targets: Sequence[int], exits: Sequence[int]) -> None:
        self._code.aim(head, word, targets)
        end = self._code.here()
        for place in exits:
            self._code.aim(place, 1, [end])

    def _reads_null(self, reader: Any) -> bool:
        found = self._first_match("null", reader if isinstance(reader, list) else [reader])
        return found is not _MISMATCH

    def _first_match(self, writer: Any, reader: Any) -> Any:
        """The branch of the reader's union that takes a value of `writer`, or _MISMATCH."""
        if not isinstance(reader, list):
            return reader if self._match(writer, reader) else _MISMATCH
        kind = kind_of(resolve(writer, self._writers))
        named = [branch for branch in reader if kind_of(resolve(branch, self._readers)) in NAMED]
        if kind in NAMED and (
            len(named) > 1
            or (isinstance(writer, str) and isinstance(named[0], dict) if named else False)
        ):
            raise Unsupported("a named type may fit several branches of the reader's union")
        for branch in reader:
            if self._match(writer, branch):
                return branch
        return _MISMATCH

    def _match(self, writer: Any, reader: Any) -> bool:
        """Whether fastavro resolves the two (`match_types`)."""
        if isinstance(writer, list) or isinstance(reader, list):
            return True
        writer, reader = resolve(writer, self._writers), resolve(reader, self._readers)
        wrote, reads = kind_of(writer), kind_of(reader)
        if wrote in NAMED and reads in NAMED:
            return _same_name(writer, reader)
        if wrote == reads and wrote in {"array", "map"}:
            part = "items" if wrote == "array" else "values"
            return self._match(writer[part], reader[part])
        return wrote == reads or (wrote, reads) in _PROMOTED

    def _absent(self, sink: Sink) -> None:
        """Null in every column of `sink`."""
        self._constant(None, sink)

    def _constant(self, value: Any, sink: Sink) -> None:
        if sink is None:
            return
        if isinstance(sink, dict):
            for name, inner in sink.items():
                if value is None or isinstance(value, dict):
                    self._constant((value or {}).get(name), inner)
                else:
                    self._code.emit(Op.REFUSE)
            return
        column, kind = sink
        if value is None:
            self._null(column, kind)
        elif kind == "double" and isinstance(value, int | float):
            self._code.emit(Op.STORE_WORD, column, struct.unpack("<q", struct.pack("<d", value))[0])
        elif kind == "long" and isinstance(value, int) and -(2**63) <= value < 2**63:
            self._code.emit(Op.STORE_WORD, column, int(value))
        elif kind in _CONSTANT_OPS and isinstance(value, str):
            self._code.emit(_CONSTANT_OPS[kind], column, self._code.text(value))
        else:
            self._code.emit(Op.REFUSE)

    def _null(self, column: int, kind: Kind) -> None:
        if kind == "double":
            self._code.emit(Op.STORE_WORD, column, NULL_BITS)
        elif kind == "long":
            self._code.emit(Op.STORE_WORD, column, 0)
        elif kind == "code":
            self._code.emit(Op.STORE_CODE, column, -1)
        else:
            self._code.emit(Op.STORE_PAIR, column, 0, NO_TEXT if kind == "text" else 0)


def _same_name(writer: Any, reader: Any) -> bool:
    if kind_of(writer) != kind_of(reader):
        raise Unsupported(f"{writer['name']} was another kind of type")
    if kind_of(writer) == "fixed" and writer["size"] != reader["size"]:
        return False
    name, aliases = writer["name"].rpartition(".")[2], reader.get("aliases", ())
    return bool(
        name == reader["name"].rpartition(".")[2] or name in aliases or writer["name"] in aliases
    )


def _symbol(symbol: str, reader: Any) -> str | None:
    """What the reader makes of a written symbol; None if it knows none for it."""
    if reader is None or symbol in reader["symbols"]:
        return symbol
    return reader.get("default") or None
