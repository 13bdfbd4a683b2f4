"""Predictions as Avro in Confluent's wire format, by one compiled loop: millions of events in seconds."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from benchmarks.drift_windows.workload import MODELS, Workload
from infra.jit import compiled

_LARGEST = 5 + 37 + 10 + 1 + 16 + 8 + 1 + 9 * 8
"""Bytes of an event: header, id, time, cause, model version, score, label, features."""
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)


def encode(
    work: Workload, schema_id: int, first: int, last: int
) -> tuple[bytes, NDArray[np.int64]]:
    """(payloads one after another, their ends) of the events `first`..`last`-1 of the workload."""
    names = np.zeros((len(MODELS), 16), np.uint8)
    for row, name in enumerate(MODELS):
        assert len(name) < names.shape[1]
        names[row, : len(name)] = np.frombuffer(name.encode(), np.uint8)
    rows = slice(first, last)
    out = np.empty((last - first) * _LARGEST, np.uint8)
    ends = np.empty(last - first, np.int64)
    used = _encode(
        np.frombuffer(struct.pack(">bI", 0, schema_id), np.uint8),
        work.ids[rows],
        work.time[rows],
        names,
        np.array([len(name) for name in MODELS]),
        work.model[rows],
        np.ascontiguousarray(work.score[rows]).view(np.uint64),
        work.label[rows],
        np.ascontiguousarray(work.features[rows]).view(np.uint64),
        np.isnan(work.features[rows]),
        _HEX,
        out,
        ends,
    )
    return out[:used].tobytes(), ends


def keys(work: Workload, first: int, last: int) -> bytes:
    """The event ids as text, 36 bytes each."""
    out = np.empty((last - first) * 36, np.uint8)
    _keys(work.ids[first:last], _HEX, out)
    return out.tobytes()


@compiled
def _keys(ids, digits, out):  # type: ignore[no-untyped-def]
    for row in range(ids.shape[0]):
        _uuid(ids[row, 0], ids[row, 1], digits, out, 36 * row)


@compiled
def _encode(  # type: ignore[no-untyped-def]
    head, ids, time, names, name_sizes, model, score, label, features, null, digits, out, ends
):
    at = 0
    for row in range(time.shape[0]):
        for byte in head:
            out[at] = byte
            at += 1
        out[at] = 72  # 36 characters
        at = _uuid(ids[row, 0], ids[row, 1], digits, out, at + 1)
        at = _long(time[row], out, at)
        out[at] = 0  # no cause
        at += 1
        size = name_sizes[model[row]]
        at = _long(size, out, at)
        for place in range(size):
            out[at] = names[model[row], place]
            at += 1
        at = _double(score[row], out, at)
        at = _long(label[row], out, at)
        for place in range(features.shape[1]):
            if null[row, place]:
                out[at] = 0
                at += 1
            else:
                out[at] = 2
                at = _double(features[row, place], out, at + 1)
        out[at] = 0  # no route
        out[at + 1] = 0  # nothing was missing
        at += 2
        ends[row] = at
    return at


@compiled
def _uuid(high, low, digits, out, at):  # type: ignore[no-untyped-def]
    for place in range(32):
        if place in (8, 12, 16, 20):
            out[at] = 45
            at += 1
        half = high if place < 16 else low
        shift = np.uint64(60 - 4 * (place & 15))
        out[at] = digits[(half >> shift) & np.uint64(15)]
        at += 1
    return at


@compiled
def _long(value, out, at):  # type: ignore[no-untyped-def]
    left = np.uint64((value << 1) ^ (value >> 63))
    while left >= np.uint64(128):
        out[at] = np.uint8(left & np.uint64(127)) | np.uint8(128)
        left >>= np.uint64(7)
        at += 1
    out[at] = np.uint8(left)
    return at + 1


@compiled
def _double(bits, out, at):  # type: ignore[no-untyped-def]
    for place in range(8):
        out[at + place] = np.uint8((bits >> np.uint64(8 * place)) & np.uint64(255))
    return at + 8
