"""The reference of a model: frozen bins and histograms of its training data, and what counts as drift.

Bins come from the reference alone and travel in ModelRegistered, so that a distance measured today can
be compared with one measured next year, and one outlier cannot squeeze all other rows into one bin.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri

from kernels.reference import bin_index, psi
from streams.bins import Bins
from streams.task import DriftPolicy

Kind = Literal["double", "string"]

MAX_CATEGORIES = 200
"""Known categories of a column at most; rarer ones share the last bin with the unknown."""
MIN_WINDOWS = 5
"""Fewer windows say nothing about how far windows usually lie from the whole."""
CONSTANT_GAP = 1e-6
"""Relative width of a constant's own bin: wide enough to survive single precision."""
DECIMALS = 9
"""Statistics are rounded before they enter the log, so that libraries' last bits do not."""


def build_reference(
    columns: Mapping[str, Sequence[Any]],
    kinds: Mapping[str, Kind],
    scores: Sequence[float],
    window_of_row: Sequence[int],
    policy: DriftPolicy,
) -> list[dict[str, Any]]:
    """`ReferenceColumn`s of the columns, in order, then of 'score'. All columns have one entry per row.

    Numeric: edges at quantiles of the reference, so at most `policy.bins` bins; a constant c gets three
    bins (below, c, above), so that leaving it shows. Categories by falling frequency, ties by name.
    None and NaN are missing. `window_of_row`: number of each row's event-time window, for `swing`.
    """
    windows = np.asarray(window_of_row, dtype=np.int64)
    built = []
    for name, values in [*columns.items(), ("score", scores)]:
        if len(values) != len(windows):
            raise ValueError(f"column {name}: {len(values)} values for {len(windows)} rows")
        if name != "score" and kinds[name] == "string":
            built.append(_category(name, values, windows, policy))
        else:
            built.append(_numeric(name, values, windows, policy))
    return built


def histogram_with_missing(column: Mapping[str, Any]) -> list[int]:
    """Counts of a `ReferenceColumn` or `ColumnSketch`, with the missing as one more bin."""
    return [*column["counts"], column["missing"]]


def psi_threshold(
    reference_column: Mapping[str, Any], n: int, m: int, n_columns: int, policy: DriftPolicy
) -> float:
    """The PSI above which `n` rows, held against `m` rows of reference, have drifted.

    The largest of three: `min_psi` (smaller does not matter); what chance alone exceeds with
    probability alpha / n_columns (Bonferroni over the columns), chi2.ppf(1 - alpha / n_columns, B - 1)
    * (1/n + 1/m) after Yurdakul & Naranjo (2020), B being the bins that the reference fills; and
    `swing`, what the reference's own windows usually reach. Infinite without rows.
    """
    if n <= 0 or m <= 0:
        return math.inf
    filled = sum(count > 0 for count in histogram_with_missing(reference_column))
    chance = float(chdtri(max(1, filled - 1), policy.alpha / max(1, n_columns)))
    swing = float(reference_column["swing"])
    return round(max(policy.min_psi, chance * (1 / n + 1 / m), swing), DECIMALS)


def _numeric(
    name: str, values: Sequence[Any], windows: NDArray[np.int64], policy: DriftPolicy
) -> dict[str, Any]:
    x = np.asarray(values, dtype=np.float64)  # None becomes NaN
    edges = _edges(x[np.isfinite(x)], policy.bins)
    return _column(name, bin_index(x, edges), len(edges) + 1, windows, policy, edges=edges)


def _edges(x: NDArray[np.float64], bins: int) -> list[float]:
    if x.size == 0:
        return []
    low, high = float(x.min()), float(x.max())
    if low == high:
        return [low, low + CONSTANT_GAP * max(1.0, abs(low))]
    # inverted_cdf picks observed values: no interpolation, hence no rounding
    quantiles = np.quantile(x, np.arange(1, bins) / bins, method="inverted_cdf")
    return [float(edge) + 0.0 for edge in np.unique(quantiles)]


def _category(
    name: str, values: Sequence[Any], windows: NDArray[np.int64], policy: DriftPolicy
) -> dict[str, Any]:
    known = Counter(value for value in values if value is not None and value == value)
    ranked = sorted(known, key=lambda category: (-known[category], category))[:MAX_CATEGORIES]
    bins = Bins(name, categories={category: i for i, category in enumerate(ranked)})
    index = np.fromiter((bins.index(value) for value in values), np.int64, len(values))
    return _column(name, index, bins.size, windows, policy, categories=ranked)


def _column(
    name: str,
    index: NDArray[np.int64],
    size: int,
    windows: NDArray[np.int64],
    policy: DriftPolicy,
    *,
    edges: Sequence[float] = (),
    categories: Sequence[str] = (),
) -> dict[str, Any]:
    index = np.where(index < 0, size, index)  # the missing are the last bin of `counts`
    counts = np.bincount(index, minlength=size + 1)
    return {
        "name": name,
        "edges": list(edges),
        "categories": list(categories),
        "counts": counts[:size].tolist(),
        "missing": int(counts[size]),
        "swing": _swing(index, counts, windows, policy.min_rows),
    }


def _swing(
    index: NDArray[np.int64], whole: NDArray[np.int64], windows: NDArray[np.int64], min_rows: int
) -> float:
    """Mean + 3 standard deviations of the PSI of the reference's own windows against the whole.

    Data that hang together in time (weather) differ from day to day by more than chance says; a
    threshold that knew only chance would call every day a drift. 0 with fewer than MIN_WINDOWS windows
    of `min_rows` rows.
    """
    distances = []
    for window in np.unique(windows):
        rows = index[windows == window]
        if len(rows) >= max(1, min_rows):
            distances.append(psi(np.bincount(rows, minlength=len(whole)), whole))
    if len(distances) < MIN_WINDOWS:
        return 0.0
    return round(statistics.fmean(distances) + 3 * statistics.stdev(distances), DECIMALS)
