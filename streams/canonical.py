"""Fingerprints: SHA-256 over a canonical encoding of plain data, equal on any machine."""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

_DOUBLE = struct.Struct(">d")


def transient(**options: Any) -> Any:
    """A dataclass field that is no part of the fingerprint (caches, what is due to be said)."""
    return dataclasses.field(metadata={"transient": True}, **options)


def fingerprint(state: object) -> str:
    """SHA-256 (hex) of `state`: None, bool, int, float, str, bytes, list, tuple, dict, set, array, dataclass.

    Dicts and sets are ordered by their encoded keys, so insertion order does not matter; -0.0 is 0.0 and
    every NaN is one NaN. Raises TypeError for anything else.
    """
    digest = hashlib.sha256()
    encode(state, digest.update)
    return digest.hexdigest()


def encode(value: Any, write: Callable[[bytes], Any]) -> None:  # noqa: PLR0912 - a case a type
    """Write the canonical encoding of `value`, piece by piece."""
    if value is None:
        write(b"N")
    elif value is True or value is False:
        write(b"T" if value else b"F")
    elif isinstance(value, int):
        write(b"i%d;" % value)
    elif isinstance(value, float):
        write(b"d" + _DOUBLE.pack(value + 0.0 if value == value else float("nan")))
    elif isinstance(value, str):
        raw = value.encode()
        write(b"s%d:" % len(raw) + raw)
    elif isinstance(value, bytes):
        write(b"b%d:" % len(value) + value)
    elif isinstance(value, np.ndarray):
        encode(value.tolist(), write)
    elif isinstance(value, list | tuple):
        write(b"l%d:" % len(value))
        for item in value:
            encode(item, write)
    elif isinstance(value, dict):
        write(b"m%d:" % len(value))
        for raw_key, key in sorted((_bytes(key), key) for key in value):
            write(raw_key)
            encode(value[key], write)
    elif isinstance(value, set | frozenset):
        write(b"u%d:" % len(value))
        for raw in sorted(_bytes(item) for item in value):
            write(raw)
    elif dataclasses.is_dataclass(value):
        for spec in dataclasses.fields(value):
            if not spec.metadata.get("transient"):
                encode(spec.name, write)
                encode(getattr(value, spec.name), write)
    else:
        raise TypeError(f"no canonical encoding for {type(value).__name__}")


def _bytes(value: Any) -> bytes:
    parts: list[bytes] = []
    encode(value, parts.append)
    return b"".join(parts)


def plain(value: Any) -> Any:
    """The state as JSON-ready data (for people to look at; fingerprints are made from the state itself)."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        shown = [f for f in dataclasses.fields(value) if not f.metadata.get("transient")]
        return {spec.name: plain(getattr(value, spec.name)) for spec in shown}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {k if isinstance(k, str) else repr(k): plain(item) for k, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    return value
