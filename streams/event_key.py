"""The 128 bits that stand for an event id in columns, for readers of single events."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from infra.jit import compiled
from schemas.columnar.identity import hashed

_UUID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def event_key(event_id: str) -> bytes:
    """16 bytes, high half first: those of kind "id" in `schemas.columnar.Columns`."""
    if _UUID.fullmatch(event_id):
        return bytes.fromhex(event_id.replace("-", ""))
    text = event_id.encode()
    high, low = _hashed(np.frombuffer(text or b"\0", np.uint8), len(text))
    return int(high).to_bytes(8, "big") + int(low).to_bytes(8, "big")


def key_bytes(ids: NDArray[np.uint64]) -> list[bytes]:
    """The same for ids of shape (n, 2)."""
    raw = ids.astype(">u8").tobytes()
    return [raw[at : at + 16] for at in range(0, len(raw), 16)]


def keys_of(raw: list[bytes]) -> NDArray[np.uint64]:
    """Ids of shape (n, 2) from their bytes."""
    return np.frombuffer(b"".join(raw), ">u8").astype(np.uint64).reshape(-1, 2)


@compiled
def _hashed(text: NDArray[np.uint8], size: int) -> tuple[np.uint64, np.uint64]:
    return hashed(text.ctypes.data, size)
