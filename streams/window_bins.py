"""A model version's frozen bins, and the tallies of one window over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

import kernels
from streams import derived
from streams.reference import input_columns

Codes = NDArray[np.int32]
Texts = Mapping[str, Sequence[str]]


@dataclass(slots=True)
class Tallies:
    """Mergeable counts of one window, over the bins of one `ModelBins`."""

    counts: NDArray[np.int64]
    """(bins of all columns,) one column after the other."""
    missing: NDArray[np.int64]
    """(columns,) Nulls and NaNs."""
    sums: NDArray[np.int64]
    """(columns, 4) For mean and variance, see `kernels.cpu.moments`."""
    ranges: NDArray[np.float64]
    """(columns, 2) Least and greatest value."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the reference; its bins are `begin : begin + size` of the counts."""

    name: str
    path: str
    begin: int
    size: int
    edges: NDArray[np.float64]
    categories: Mapping[str, int] | None
    center: float
    """Near the reference's median."""
    scale: float
    """Near the reference's spread."""


class ModelBins:
    """Built from `reference` of ModelRegistered."""

    def __init__(self, reference: Sequence[Mapping[str, Any]]) -> None:
        self.columns: list[Column] = []
        self.bins = 0
        for entry in input_columns(reference):
            categories = entry["categories"]
            edges = np.asarray(entry["edges"], np.float64)
            size = (len(categories) if categories else len(edges)) + 1
            name = entry["name"]
            path = name if name == "score" else f"features.{name}"
            known = {text: index for index, text in enumerate(categories)} if categories else None
            self.columns.append(
                Column(name, path, self.bins, size, edges, known, *_center_and_scale(edges))
            )
            self.bins += size
        self._derived = derived.from_reference(reference)
        self._luts: dict[str, NDArray[np.int32]] = {}

    def tallies(self) -> Tallies:
        columns = len(self.columns)
        return Tallies(
            np.zeros(self.bins, np.int64),
            np.zeros(columns, np.int64),
            np.zeros((columns, 4), np.int64),
            kernels.no_ranges(columns),
        )

    def add(
        self,
        tallies: Sequence[Tallies],
        data: Mapping[str, NDArray[Any]],
        texts: Texts,
        rows: NDArray[np.int64],
        sizes: NDArray[np.int64],
    ) -> None:
        """Add `rows` of the columns, (m,), to the tallies: the first `sizes[0]` to the first, and so on.

        sizes: (len(tallies),).
        """
        if not self.columns:
            return
        slot = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        # Column by column: each one's part is contiguous, so the kernels are compiled once, for such arrays.
        counts = [np.zeros((len(tallies), column.size), np.int64) for column in self.columns]
        missing = np.zeros((len(self.columns), len(tallies)), np.int64)
        sums = np.zeros((*missing.shape, 4), np.int64)
        ranges = kernels.no_ranges(missing.size).reshape(*missing.shape, 2)
        more = self._more(data, rows)
        stored: list[kernels.Column] = []
        derived: list[kernels.Column] = []
        for place, column in enumerate(self.columns):
            made = more.get(column.name)
            values = data.get(column.path) if made is None else made
            wanted = "f" if column.categories is None else "i"
            if values is None or values.dtype.kind != wanted:
                missing[place] += sizes  # the task no longer has it, or as another kind
            elif column.categories is None:
                about = column.edges, column.center, column.scale
                into = counts[place], missing[place], sums[place], ranges[place]
                (stored if made is None else derived).append(kernels.Column(values, *about, *into))
            else:
                lut = self._lut(column, texts[column.path])
                codes = cast("Codes", values.take(rows))
                kernels.tally(codes, lut, slot, counts[place], missing[place])
        kernels.accumulate(stored, rows, sizes)
        if derived:
            kernels.accumulate(derived, np.arange(len(rows)), sizes)
        of_all = np.concatenate(counts, axis=1)
        for place, tally in enumerate(tallies):
            tally.counts += of_all[place]
            tally.missing += missing[:, place]
            tally.sums += sums[:, place]
            np.minimum(tally.ranges[:, 0], ranges[:, place, 0], out=tally.ranges[:, 0])
            np.maximum(tally.ranges[:, 1], ranges[:, place, 1], out=tally.ranges[:, 1])

    def _more(
        self, data: Mapping[str, NDArray[Any]], rows: NDArray[np.int64]
    ) -> Mapping[str, NDArray[np.float64]]:
        """The derived columns of these rows."""
        if not self._derived:
            return {}
        absent = np.full(len(rows), np.nan)
        found = {n: data.get(f"features.{n}") for n in self._derived.inputs}
        return self._derived.columns(
            {n: absent if values is None else values.take(rows) for n, values in found.items()}
        )

    def describe(self, tallies: Tallies) -> list[dict[str, Any]]:
        """`ColumnSketch`es of SketchTaken."""
        all_counts, missing = tallies.counts.tolist(), tallies.missing.tolist()
        sums, ranges = tallies.sums.tolist(), tallies.ranges.tolist()
        found = []
        for place, column in enumerate(self.columns):
            counts = all_counts[column.begin : column.begin + column.size]
            found.append(
                {
                    "name": column.name,
                    "counts": counts,
                    "missing": missing[place],
                    "unseen": counts[-1] if column.categories is not None else 0,
                    **_moments(sum(counts), column, sums[place], ranges[place]),
                }
            )
        return found

    def _lut(self, column: Column, texts: Sequence[str]) -> NDArray[np.int32]:
        """Bin of each dictionary code; dictionaries only grow."""
        assert column.categories is not None
        known = self._luts.get(column.name)
        if known is None or len(known) < len(texts):
            other = len(column.categories)
            size = len(known) if known is not None else 0
            rest = [column.categories.get(text, other) for text in texts[size:]]
            tail = np.asarray(rest, np.int32)
            known = tail if known is None else np.concatenate((known, tail))
            self._luts[column.name] = known
        return known


def _center_and_scale(edges: NDArray[np.float64]) -> tuple[float, float]:
    if not len(edges):
        return 0.0, 1.0
    center, spread = float(edges[len(edges) // 2]), float(edges[-1] - edges[0])
    return center, spread if 1e-300 < spread < 1e300 else max(1.0, abs(center))


def _moments(
    count: int, column: Column, sums: Sequence[int], ranges: Sequence[float]
) -> dict[str, float | None]:
    """Mean, population variance and range of the values that are there; null without any."""
    found = kernels.mean_and_variance(sums, column.center, column.scale)
    least, greatest = ranges
    present = count > 0 and column.categories is None
    return {
        "mean": found[0] if found else None,
        "variance": found[1] if found else None,
        "minimum": least if present else None,
        "maximum": greatest if present else None,
    }
