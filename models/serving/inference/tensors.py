"""Tensors of the Open Inference Protocol: name, datatype, shape and flat values; and their raw bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

TEXT = "BYTES"
DTYPES = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
"""The datatypes of fixed size as NumPy writes them; `TEXT` is the other one."""
MAX_DEPTH = 8
_LENGTH = struct.Struct("<I")


class BadTensor(ValueError):
    """Bytes or shape that do not fit the tensor's datatype; the message says how."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """Values in row-major order. Text is str or bytes; a missing value is None or NaN."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Sequence[Any]


def flat(data: Any) -> list[Any]:
    """JSON's nested lists as one; raises BadTensor beyond MAX_DEPTH."""
    if not isinstance(data, list):
        raise BadTensor("data must be a list")
    return list(_leaves(data, MAX_DEPTH))


def _leaves(data: list[Any], depth: int) -> Iterator[Any]:
    if depth == 0:
        raise BadTensor(f"data is nested more than {MAX_DEPTH} deep")
    for item in data:
        if isinstance(item, list):
            yield from _leaves(item, depth - 1)
        else:
            yield item


def decode(datatype: str, raw: bytes) -> list[Any]:
    """The values in `raw`: little endian; text as a length (uint32) and so many bytes, one after another.

    Raises BadTensor for an unknown datatype and for bytes that are cut off.
    """
    if datatype == TEXT:
        return list(_texts(raw))
    if datatype not in DTYPES:
        raise BadTensor(f"datatype {datatype[:20]!r} is not known")
    size = np.dtype(DTYPES[datatype]).itemsize
    if len(raw) % size:
        raise BadTensor(f"{len(raw)} bytes are no whole number of {datatype} ({size} bytes each)")
    values: list[Any] = np.frombuffer(raw, DTYPES[datatype]).tolist()
    return values


def _texts(raw: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(raw):
        if at + _LENGTH.size > len(raw):
            raise BadTensor("the bytes end within the length of a text")
        (length,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size
        if at + length > len(raw):
            raise BadTensor("the bytes end within a text")
        yield raw[at : at + length]
        at += length


def encode(tensor: Tensor) -> bytes:
    """The inverse of `decode`, for a tensor of ours."""
    if tensor.datatype == TEXT:
        texts = [text.encode() for text in tensor.values]
        return b"".join(_LENGTH.pack(len(text)) + text for text in texts)
    return np.asarray(tensor.values, DTYPES[tensor.datatype]).tobytes()
