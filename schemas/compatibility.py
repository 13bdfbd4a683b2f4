"""May a schema follow the ones before it? Judged by the `avro` package's checker, told in words.

BACKWARD: the new schema reads what old ones wrote. FORWARD: old schemas read what the new one writes.
FULL: both. `_TRANSITIVE`: against every earlier version, not only the newest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import avro.errors
import avro.schema
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType

LEVELS = (
    "NONE",
    "BACKWARD",
    "BACKWARD_TRANSITIVE",
    "FORWARD",
    "FORWARD_TRANSITIVE",
    "FULL",
    "FULL_TRANSITIVE",
)
DEFAULT_LEVEL = "FULL_TRANSITIVE"


class InvalidSchema(ValueError):
    """Not an Avro schema; the message says why."""


def parse_avro(schema: Any) -> avro.schema.Schema:
    """The schema as the `avro` package sees it; raises InvalidSchema."""
    try:
        return avro.schema.parse(json.dumps(schema))
    except (avro.errors.AvroException, ValueError, TypeError, AttributeError, KeyError) as error:
        raise InvalidSchema(f"not an Avro schema: {error}") from error
    except RecursionError as error:
        raise InvalidSchema("not an Avro schema: nested too deeply") from error


def incompatibilities(level: str, new: Any, earlier: Sequence[Any]) -> list[str]:
    """What forbids `new` (JSON) after `earlier` (oldest first) under `level`; empty if nothing does.

    Each line names the field and the rule, e.g.
    "field 'score' was removed and has no default (FORWARD)".
    """
    if level not in LEVELS:
        raise ValueError(f"compatibility level {level!r} is none of {', '.join(LEVELS)}")
    rule = level.removesuffix("_TRANSITIVE")
    judged = earlier if level.endswith("_TRANSITIVE") else earlier[-1:]
    found: dict[str, None] = {}
    newest = parse_avro(new) if rule != "NONE" and judged else None
    for old in map(parse_avro, judged if newest is not None else ()):
        if rule in {"BACKWARD", "FULL"}:
            found.update(dict.fromkeys(_differences(newest, old, "BACKWARD")))
        if rule in {"FORWARD", "FULL"}:
            found.update(dict.fromkeys(_differences(old, newest, "FORWARD")))
    return list(found)


def _differences(reader: Any, writer: Any, rule: str) -> Iterator[str]:
    result = _judge(reader, writer)
    if result.compatibility is SchemaCompatibilityType.compatible:
        return
    told = list(dict.fromkeys(_explain(reader, writer, "", rule)))
    if told:
        yield from told
    else:  # the checker is the judge; where words are missing its own stand in
        yield f"{'; '.join(sorted(result.messages))} ({rule})"


def _explain(reader: Any, writer: Any, path: str, rule: str) -> Iterator[str]:
    """Walk both schemas side by side down to the smallest parts that the checker refuses."""
    if _reads(reader, writer):
        return
    here = f"field '{path}'" if path else "the schema"
    kinds = (reader.type, writer.type)
    if kinds == ("record", "record") and reader.name == writer.name:
        yield from _explain_fields(reader, writer, path, rule)
    elif kinds == ("array", "array"):
        yield from _explain(reader.items, writer.items, f"{path}[]", rule)
    elif kinds == ("map", "map"):
        yield from _explain(reader.values, writer.values, f"{path}{{}}", rule)
    elif writer.type == "union":
        for branch in writer.schemas:
            yield from _explain(reader, branch, path, rule)
    elif reader.type == "union":
        twin = next((branch for branch in reader.schemas if _name(branch) == _name(writer)), None)
        verb = "removed" if rule == "BACKWARD" else "added"
        told = f"{here}: type {_name(writer)} was {verb} ({rule})"
        yield from (told,) if twin is None else _explain(twin, writer, path, rule)
    elif kinds == ("enum", "enum") and reader.name == writer.name:
        lost = ", ".join(sorted(set(writer.symbols) - set(reader.symbols)))
        verb = "removed" if rule == "BACKWARD" else "added"
        yield f"{here}: symbol {lost} was {verb} and the enum has no default ({rule})"
    elif kinds == ("fixed", "fixed") and reader.name == writer.name:
        old, new = _order(f"{reader.size} bytes", f"{writer.size} bytes", rule)
        yield f"{here} changed its size from {old} to {new} ({rule})"
    else:
        old, new = _order(_name(reader), _name(writer), rule)
        yield f"{here} changed its type from {old} to {new} ({rule})"


def _explain_fields(reader: Any, writer: Any, path: str, rule: str) -> Iterator[str]:
    for field in reader.fields:
        inner = f"{path}.{field.name}" if path else field.name
        names = [field.name, *(field.props.get("aliases") or ())]
        written = next((writer.fields_dict[n] for n in names if n in writer.fields_dict), None)
        if written is not None:
            yield from _explain(field.type, written.type, inner, rule)
        elif not field.has_default:
            verb = "added" if rule == "BACKWARD" else "removed"
            yield f"field '{inner}' was {verb} and has no default ({rule})"


def _reads(reader: Any, writer: Any) -> bool:
    return _judge(reader, writer).compatibility is SchemaCompatibilityType.compatible


def _judge(reader: Any, writer: Any) -> Any:
    checker = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]
    return checker.get_compatibility(reader, writer)


def _name(schema: Any) -> str:
    named = getattr(schema, "name", None) if schema.type in {"record", "enum", "fixed"} else None
    if schema.type == "union":
        return f"union of {', '.join(map(_name, schema.schemas))}"
    return f"{schema.type} {named}" if named else str(schema.type)


def _order(reader: str, writer: str, rule: str) -> tuple[str, str]:
    """(old, new): under BACKWARD the reader is the new schema, under FORWARD the writer is."""
    return (writer, reader) if rule == "BACKWARD" else (reader, writer)
