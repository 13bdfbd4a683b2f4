"""The memory of a batch's columns while it is decoded: the machine writes by address, Python by value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from infra.jit import compiled
from schemas.columnar.columns import NULL_CODE, NULL_DOUBLE, Kind
from schemas.columnar.dictionary import Dictionary
from schemas.columnar.identity import identify
from schemas.columnar.instructions import NO_TEXT
from schemas.columnar.memory import copy
from schemas.errors import UndecodableEvent

MAX_TEXTS_BYTES = 2**31 - 1
"""Of one column in one batch: Arrow's string offsets are 32 bits."""


class Cells:
    """Room for `n` rows of each column of a projection."""

    def __init__(
        self, projection: Mapping[str, Kind], dictionaries: Mapping[str, Dictionary], n: int
    ) -> None:
        self._projection, self._by_path = projection, dictionaries
        self._arrays = {path: _room(kind, n) for path, kind in projection.items()}
        self._owned: list[NDArray[np.uint8]] = []
        self.addresses = np.array([a.ctypes.data for a in self._arrays.values()], np.int64)
        """Of each column's first value."""
        self.dictionaries = np.array(
            [dictionaries[p].address if p in dictionaries else 0 for p in projection], np.int64
        )
        """Of each column's dictionary, 0 for none."""

    def fill(self, row: int, data: Mapping[str, Any]) -> None:
        """Set a row from an event's data; raises UndecodableEvent if a value does not fit its column."""
        values = {path: _look_up(data, path, kind) for path, kind in self._projection.items()}
        for path, value in values.items():
            self._set(path, row, value)

    def columns(self, rows: int) -> dict[str, Any]:
        """The first `rows` rows, as `Columns.data` has them."""
        return {
            path: _string_array(array[:rows]) if self._projection[path] == "text" else array[:rows]
            for path, array in self._arrays.items()
        }

    def _set(self, path: str, row: int, value: Any) -> None:
        kind, array = self._projection[path], self._arrays[path]
        if kind == "code":
            array[row] = NULL_CODE if value is None else self._by_path[path].code_within(value)
        elif kind == "id":
            array[row] = 0
            if value is not None:
                identify(*self._own(value), array[row].ctypes.data)
        elif kind == "text":
            array[row] = (0, NO_TEXT) if value is None else self._own(value)
        elif kind == "double":
            array[row] = NULL_DOUBLE if value is None else value
        else:
            array[row] = 0 if value is None else value

    def _own(self, text: bytes) -> tuple[int, int]:
        """(address, bytes) of a copy that lives as long as this object."""
        self._owned.append(np.frombuffer(text + b"\0", np.uint8))
        return int(self._owned[-1].ctypes.data), len(text)


def _room(kind: Kind, n: int) -> NDArray[Any]:
    if kind == "double":
        return np.empty(n, np.float64)
    if kind == "long":
        return np.empty(n, np.int64)
    if kind == "code":
        return np.empty(n, np.int32)
    if kind == "id":
        return np.empty((n, 2), np.uint64)
    return np.empty((n, 2), np.int64)  # address and bytes of a text


_PYTHON = {"double": int | float, "long": int, "code": str, "id": str, "text": str}


def _look_up(data: Any, path: str, kind: Kind) -> Any:
    """The value at a path (a text's bytes), None for none; raises UndecodableEvent if it is no `kind`."""
    for name in path.split("."):
        if data is None:
            return None
        if not isinstance(data, Mapping):
            raise UndecodableEvent(f"{path}: {str(data)[:80]!r} is no record that holds {name}")
        data = data.get(name)
    if data is not None and not isinstance(data, _PYTHON[kind]):
        raise UndecodableEvent(f"{path}: {str(data)[:80]!r} does not fit a column of kind {kind}")
    try:
        return data.encode() if isinstance(data, str) else data
    except UnicodeEncodeError as error:  # a default may hold half a surrogate pair
        raise UndecodableEvent(f"{path}: {error}") from error


def _string_array(places: NDArray[np.int64]) -> pa.StringArray:
    """Texts at (address, bytes) as an Arrow array of their own; NO_TEXT bytes are null."""
    missing = places[:, 1] == NO_TEXT
    lengths = np.where(missing, 0, places[:, 1])
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    if total > MAX_TEXTS_BYTES:
        raise ValueError(f"{total} bytes of text in one column: decode fewer records at once")
    starts = np.zeros(len(places) + 1, np.int32)
    starts[1:] = ends
    texts = np.empty(total, np.uint8)
    _copy(places, starts, texts.ctypes.data)
    bits = pa.py_buffer(np.packbits(~missing, bitorder="little")) if missing.any() else None
    return pa.StringArray.from_buffers(
        len(places), pa.py_buffer(starts), pa.py_buffer(texts), bits, int(missing.sum())
    )


@compiled
def _copy(places: NDArray[np.int64], starts: NDArray[np.int32], target: int) -> None:
    for row in range(len(places)):
        if places[row, 1] > 0:
            copy(target + starts[row], places[row, 0], places[row, 1])
