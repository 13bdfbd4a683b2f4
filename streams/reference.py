"""The reference of a model: frozen bins and histograms of its training data, and what counts as drift.

Bins come from the reference alone and travel in ModelRegistered, so that a distance measured today can
be compared with one measured next year, and one outlier cannot squeeze all other rows into one bin.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri, stdtrit

from kernels import reference as exact
from kernels.reference import bin_index, psi
from streams import derived
from streams.bins import Bins
from streams.components import transforms, watched
from streams.task import LABEL, SCORE, TEXT, DriftPolicy
from streams.texts import word_hash

Kind = Literal["double", "string", "text"]
Values = Sequence[Any] | NDArray[Any]

MAX_CATEGORIES = 200
"""Known categories of a column at most; rarer ones share the last bin with the unknown."""
MIN_WINDOWS = 5
"""Fewer windows say nothing about how far windows usually lie from the whole."""
ALTERNATE_WINDOWS = 20
MOST_PERSISTENT = 0.8
"""Autocorrelation of successive windows, at most: a dozen of them cannot tell more from a trend."""
ROOT, SQUARED_ROOT = 4, 8
SKEWNESS_BIAS = 1.5
"""A dozen values show about two thirds of the skewness of where they come from."""
MOST_SKEWED = 2.0
MOST_ALIKE = 0.6
"""Share of the windows that, being alike, count as one."""
CONSTANT_GAP = 1e-6
"""Relative width of a constant's own bin: wide enough to survive single precision."""
FROM_LABELS = "label"
"""Transform of the column that is counted from labels, not from predictions."""
DECIMALS = exact.DECIMALS


def build_reference(
    columns: Mapping[str, Sequence[Any]],
    kinds: Mapping[str, Kind],
    scores: Sequence[float],
    window_of_row: Sequence[int],
    policy: DriftPolicy,
    labels: Sequence[int] | NDArray[np.integer[Any]] | None = None,
) -> list[dict[str, Any]]:
    """`ReferenceColumn`s of the columns, in order, of what is derived from them, of 'score', and of 'label'
    (bins: 0 and 1) if there are `labels`. All have one entry per row.

    Numeric: edges at quantiles of the reference, so at most `policy.bins` bins; a constant c gets three
    bins (below, c, above), so that leaving it shows. Categories by falling frequency, ties by name.
    None and NaN are missing. `window_of_row`: number of each row's event-time window, for `swing`.
    Texts and the coordinates of an embedding have no column of their own (see `DriftPolicy`, `Text`).
    """
    windows = np.asarray(window_of_row, dtype=np.int64)
    for name, values in [*columns.items(), (SCORE, scores), (LABEL, labels)]:
        if values is not None and len(values) != len(windows):
            raise ValueError(f"column {name}: {len(values)} values for {len(windows)} rows")
    own = watched(kinds, policy)
    built = [
        (_category if kinds[name] == "string" else _numeric)(name, values, windows, policy)
        for name, values in columns.items()
        if name in own
    ]
    built += _derived(columns, kinds, windows, policy)
    built.append(_numeric(SCORE, scores, windows, policy))
    if labels is not None:
        index = np.asarray(labels, dtype=np.int64)
        labelled = _column(LABEL, index, 2, windows, policy, edges=[0.5])
        built.append({**labelled, "transform": FROM_LABELS})
    return built


def input_columns(reference: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The columns of a reference that windows of predictions are summarised in, in order."""
    return [column for column in reference if column.get("transform") != FROM_LABELS]


def label_column(reference: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The column of the labels, if the reference has one."""
    return next((c for c in reference if c.get("transform") == FROM_LABELS), None)


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
    `swing_limit`, what the reference's own windows usually reach. Infinite without rows.
    """
    if n <= 0 or m <= 0:
        return math.inf
    chance = chance_quantile(reference_column, n_columns, policy)
    swing = swing_limit(reference_column, n_columns, policy)
    return threshold_from(chance, m, swing, n, policy)


def swing_limit(column: Mapping[str, Any], n_columns: int, policy: DriftPolicy) -> float:
    """The PSI that one more window like the reference's own exceeds with probability alpha / n_columns.

    Fourth roots of what behaves like chi-squared, of however few degrees, are close to normal (Hawkins &
    Wixley 1986). So their mean and deviation over W windows give a prediction limit with Student's t,
    (mean + q deviation sqrt(1 + 1/W))^4, where q = t + (t^2 - 1) skewness / 6 (Cornish & Fisher 1938) makes
    room for windows of which few lie far out. References of before that say `swing` alone.

    So far out it leans on a deviation that W windows hardly know. Chi-squared reaches furthest with one
    degree, and of that only the mean need be known: the next of it, over the mean of W, goes by
    F(1, W - 1) = t^2, t at alpha / 2. That is a limit as well, and the smaller one counts.

    A derived column is a square: a level d of what it is made of moves its PSI by a multiple of d^4 beyond
    chance. For normal levels of deviation s that is 3 s^4 in the mean (Isserlis 1918), so its limit by F is
    the mean excess / 3 * t^4. A dozen windows hardly show so long a tail: the larger one counts.
    """
    windows = int(column.get("swing_windows", 0))
    if windows < MIN_WINDOWS:
        return float(column["swing"])
    tail = policy.alpha / max(1, n_columns)
    t, far = (float(stdtrit(windows - 1, 1 - share)) for share in (tail, tail / 2))
    mean, deviation = float(column["swing_mean"]), float(column["swing_deviation"])
    skewness, root = float(column["swing_skewness"]), int(column["swing_root"])
    reach = (t + (t * t - 1) * skewness / 6) * deviation * math.sqrt(1 + 1 / windows)
    usual = (mean + reach) ** root
    if root == SQUARED_ROOT:
        return _rounded(max(usual, float(column.get("swing_excess", 0.0)) / 3 * far**4))
    return _rounded(min(usual, _fourth_moment(mean, deviation, skewness) * far**2))


def _fourth_moment(mean: float, deviation: float, skewness: float) -> float:
    """The mean of x^4, x being normal but for its skewness."""
    return (
        mean**4
        + 6 * (mean * deviation) ** 2
        + 4 * mean * deviation**3 * skewness
        + 3 * deviation**4
    )


def chance_quantile(
    reference_column: Mapping[str, Any], n_columns: int, policy: DriftPolicy
) -> float:
    """chi2.ppf(1 - alpha / n_columns, B - 1), B being the bins that the reference fills."""
    filled = sum(count > 0 for count in histogram_with_missing(reference_column))
    return float(chdtri(max(1, filled - 1), policy.alpha / max(1, n_columns)))


def threshold_from(chance: float, m: int, swing: float, n: int, policy: DriftPolicy) -> float:
    """`psi_threshold`, given the reference's `chance_quantile`, its `m` rows and its swing."""
    return round(max(policy.min_psi, chance * (1 / n + 1 / m), swing), DECIMALS)


def _derived(
    columns: Mapping[str, Sequence[Any]],
    kinds: Mapping[str, Kind],
    windows: NDArray[np.int64],
    policy: DriftPolicy,
) -> list[dict[str, Any]]:
    """Derived columns: fitted to every other window, their bins and counts taken from the rest.

    Rows that the components were fitted to lie closer to them than rows to come. A reference of fewer than
    ALTERNATE_WINDOWS windows gives every other row instead: else too few windows were left to tell how
    far windows lie apart.
    """
    texts = {n: _objects(v) for n, v in columns.items() if kinds[n] == TEXT}
    if not (policy.groups or policy.multivariate or policy.embeddings or texts):
        return []
    numeric = {
        name: np.asarray(values, dtype=np.float64)
        for name, values in columns.items()
        if kinds[name] == "double"
    }
    told = [_text_keys(values) for values in texts.values()]
    inputs: dict[str, NDArray[Any]] = {**numeric, **texts}
    order = np.unique(windows, return_inverse=True)[1]
    many = order.max(initial=0) + 1 >= ALTERNATE_WINDOWS
    ranked = np.lexsort(
        [*told, *numeric.values(), windows]
    )  # within each window, whatever the rows' order
    place = np.empty(len(windows), np.int64)
    place[ranked] = np.arange(len(windows))
    fitted = (order if many else place) % 2 == 0
    described = transforms({n: x[fitted] for n, x in inputs.items()}, kinds, policy)
    made = derived.from_reference(described)
    assert made is not None
    rest = made.columns({name: inputs[name][~fitted] for name in made.inputs})
    apart = windows[~fitted]
    return [
        {
            **_numeric(
                *(c["name"], rest[c["name"]], apart, policy),
                squared=c["transform"] not in derived.OF_TEXT,
            ),
            **c,
        }
        for c in described
    ]


def _objects(values: Values) -> NDArray[np.object_]:
    made = np.empty(len(values), object)
    made[:] = values
    return made


def _text_keys(texts: NDArray[np.object_]) -> NDArray[np.int64]:
    """A number each, by which equal texts stand together."""
    return np.fromiter((-1 if t is None else word_hash(t) for t in texts), np.int64, len(texts))


def _numeric(
    name: str,
    values: Values,
    windows: NDArray[np.int64],
    policy: DriftPolicy,
    *,
    squared: bool = False,
) -> dict[str, Any]:
    x = np.asarray(values, dtype=np.float64)  # None becomes NaN
    edges = _edges(x[np.isfinite(x)], policy.bins)
    index, size = bin_index(x, edges), len(edges) + 1
    return _column(name, index, size, windows, policy, edges=edges, squared=squared)


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
    name: str, values: Values, windows: NDArray[np.int64], policy: DriftPolicy
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
    squared: bool = False,
) -> dict[str, Any]:
    index = np.where(index < 0, size, index)  # the missing are the last bin of `counts`
    counts = np.bincount(index, minlength=size + 1)
    return {
        "name": name,
        "edges": list(edges),
        "categories": list(categories),
        "counts": counts[:size].tolist(),
        "missing": int(counts[size]),
        **_swing(index, counts, windows, policy.min_rows, squared),
    }


def _swing(
    index: NDArray[np.int64],
    whole: NDArray[np.int64],
    windows: NDArray[np.int64],
    min_rows: int,
    squared: bool,
) -> dict[str, float]:
    """How far each of the reference's windows lies from all others, as `swing_limit` wants it.

    Data that hang together in time (weather) differ from day to day by more than chance says; a
    threshold that knew only chance would call every day a drift. A window is held against the *others*:
    one of seven that is a part of what it is compared with looks a quarter too near. All 0 with fewer than
    MIN_WINDOWS windows of `min_rows` rows. `squared`: the column's values are squares of what moves (a
    distance from a plane), so its PSI is a square of a PSI. `swing` (mean + 3 deviations) is for readers
    of before.
    """
    rows_of = [index[windows == window] for window in np.unique(windows)]
    counts = [np.bincount(r, minlength=len(whole)) for r in rows_of if len(r) >= max(1, min_rows)]
    if len(counts) < MIN_WINDOWS:
        return {"swing": 0.0}
    distances = [psi(one, whole - one) for one in counts]
    alike = _autocorrelation(np.array(counts), whole, squared)
    lasting = _persistence(alike, len(counts))
    root = SQUARED_ROOT if squared else ROOT
    roots = [(lasting ** (root // ROOT) * distance) ** (1 / root) for distance in distances]
    mean, deviation = statistics.fmean(roots), statistics.stdev(roots)
    third = statistics.fmean([(value - mean) ** 3 for value in roots])
    skewness = SKEWNESS_BIAS * third / deviation**3 if deviation > 0 else 0.0
    return {
        "swing": _rounded(statistics.fmean(distances) + 3 * statistics.stdev(distances)),
        "swing_mean": _rounded(mean),
        "swing_deviation": _rounded(deviation),
        "swing_skewness": _rounded(min(max(skewness, 0.0), MOST_SKEWED)),
        "swing_excess": _rounded(_excess(distances, counts, whole)) if squared else 0.0,
        "swing_windows": _worth(alike, len(distances)),
        "swing_root": root,
    }


def _excess(
    distances: Sequence[float], counts: Sequence[NDArray[np.int64]], whole: NDArray[np.int64]
) -> float:
    """Mean PSI of the windows beyond its mean by chance and one standard error of that (as chi-squared, see
    `psi_threshold`); 0 if there is none.
    """
    free, rows = max(1, int((whole > 0).sum()) - 1), int(whole.sum())
    chance = [free * (1 / n + 1 / max(1, rows - n)) for n in (int(c.sum()) for c in counts)]
    noise = math.sqrt(2 / (free * len(distances)))
    return max(0.0, statistics.fmean(distances) - statistics.fmean(chance) * (1 + noise))


def _persistence(r: float, n: int) -> float:
    """How much further (as PSI) the next window lies than the n own ones do, because neighbours are alike.

    With the autocorrelation r of successive windows the mean of n of them is worth that of n / k, with
    k = (1 + r) / (1 - r): the whole lies nearer to its own windows and further from the next. In units
    of independent windows' distances that is a factor of (1 + k/n) / (1 - k/n), over the same at k = 1.
    """
    k = min((1 + r) / (1 - r), MOST_ALIKE * n)
    return (n + k) / (n - k) * (n - 1) / (n + 1)


def _worth(r: float, n: int) -> int:
    """Independent windows that n with autocorrelation r are worth for telling how far windows lie apart:
    n (1 - r^2) / (1 + r^2) (Bayley & Hammersley 1946).
    """
    return max(MIN_WINDOWS, math.floor(n * (1 - r * r) / (1 + r * r)))


def _autocorrelation(counts: NDArray[np.int64], whole: NDArray[np.int64], squared: bool) -> float:
    """Of successive windows, that of all bins together, its bias (1 + 3 r) / n (Kendall 1954) taken off; of
    squares it is the square of that of what moves (Granger & Newbold 1976), so its root is taken.
    """
    filled = whole > 0
    share = whole[filled] / whole.sum()
    apart = (counts[:, filled] / counts.sum(axis=1, keepdims=True) - share) / np.sqrt(share)
    spread = math.fsum((apart * apart).sum(axis=1).tolist())
    if spread <= 0:
        return 0.0
    n = len(counts)
    r = math.fsum((apart[1:] * apart[:-1]).sum(axis=1).tolist()) / spread
    r = min(max((r + 1 / n) / (1 - 3 / n), 0.0), MOST_PERSISTENT)
    return min(math.sqrt(r), MOST_PERSISTENT) if squared else r


def _rounded(value: float) -> float:
    return round(value, DECIMALS)
