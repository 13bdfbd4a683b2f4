"""A batch of events of one partition as columns."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["double", "long", "code", "id", "text"]
"""What a field becomes: see `Columns.data`."""
NULL_CODE = -1
UNKNOWN_CODE = -2
"""A text beyond the capacity of its dictionary."""
NULL_BITS = 0x7FF8_0000_6E75_6C6C
"""Those of the NaN that stands for null in a column of doubles; its payload spells "null"."""
NULL_DOUBLE: float = struct.unpack("<d", struct.pack("<q", NULL_BITS))[0]


@dataclass(slots=True)
class Columns:
    """`n` events of one partition in offset order.

    `data` maps a field's path ('event_time', 'features.carrier') to an array whose first axis is n:

    - double: float64, NULL_DOUBLE for null (int, long, float and boolean fields are widened);
    - long: int64, 0 for null;
    - code: int32 into the decoder's dictionary of that path; NULL_CODE for null, UNKNOWN_CODE beyond it;
    - id: uint64 of shape (n, 2): the 128 bits of a UUID text (high, low), two seeded 64-bit hashes of any
      other text, 0 for null;
    - text: a `pyarrow.StringArray`.

    A field that the event does not have is null.
    """

    topic: str
    partition: int
    offset: NDArray[np.int64]
    recorded: NDArray[np.int64]
    data: dict[str, Any] = field(default_factory=dict)
    others: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """Offsets of events of other types, which have no row here."""

    def __len__(self) -> int:
        return len(self.offset)

    def rows(self, keep: NDArray[np.bool_] | slice) -> Columns:
        """Those that `keep`, a mask of shape (n,) or a slice, names; `others` stay."""
        return replace(
            self,
            offset=self.offset[keep],
            recorded=self.recorded[keep],
            data={path: values[keep] for path, values in self.data.items()},
        )


def is_null(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Where a column of doubles, (n,), is null and not only NaN."""
    found: NDArray[np.bool_] = np.ascontiguousarray(values).view(np.int64) == NULL_BITS
    return found
