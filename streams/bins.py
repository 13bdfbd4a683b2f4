"""Frozen bins of a model's reference: the same value always falls into the same bin."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MISSING = -1


@dataclass(frozen=True)
class Bins:
    """Bins of one column, read from a `ReferenceColumn` of ModelRegistered.

    Numeric: `edges` are the n inner edges of n+1 bins, a value on an edge belongs to the bin above.
    Category: bin i is category i; the last bin is every category that the reference does not know.
    """

    name: str
    edges: tuple[float, ...] = ()
    categories: Mapping[str, int] | None = None

    @classmethod
    def from_reference(cls, column: Mapping[str, Any]) -> Bins:
        categories = column["categories"]
        return cls(
            column["name"],
            tuple(column["edges"]),
            {name: index for index, name in enumerate(categories)} if categories else None,
        )

    @property
    def size(self) -> int:
        return len(self.edges if self.categories is None else self.categories) + 1

    def index(self, value: Any) -> int:
        """The bin of `value`; MISSING for None and NaN."""
        if value is None or value != value:
            return MISSING
        if self.categories is None:
            return bisect_right(self.edges, value)
        return self.categories.get(value, len(self.categories))
