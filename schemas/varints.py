"""The zigzag varints of Avro, by their longs."""

from __future__ import annotations

KEPT_VARINTS = 1 << 15
"""At most 4 MB."""
_MORE = [bytes((0x80 | bits,)) for bits in range(128)]
_LAST = [bytes((bits,)) for bits in range(128)]
_TWO_MORE = [low + high for high in _MORE for low in _MORE]
"""14 bits of a varint that goes on."""
_LAST_TWO = _LAST + [low + high for high in _LAST[1:] for low in _MORE]
"""The last 14 bits."""


class Varints(dict[int, bytes]):
    """The zigzag varint of each long; those asked for last are kept. Raises OverflowError."""

    def __missing__(self, value: int) -> bytes:
        rest, found = (value << 1) ^ (value >> 63), b""
        if rest >= 1 << 64:
            raise OverflowError(f"{value} is no long")
        while rest >= 1 << 14:
            found += _TWO_MORE[rest & 0x3FFF]
            rest >>= 14
        found += _LAST_TWO[rest]
        if len(self) >= KEPT_VARINTS:
            self.clear()  # times are as many as events
        self[value] = found
        return found


VARINTS = Varints()
