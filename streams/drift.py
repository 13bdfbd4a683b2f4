"""How far one column's window lies from its reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kernels.reference import js, ks, psi
from streams.reference import DECIMALS, histogram_with_missing, psi_threshold
from streams.task import DriftPolicy


@dataclass(frozen=True, slots=True)
class Drift:
    """Distances of a column's window from its reference (see `kernels.reference`), and the verdict."""

    psi: float
    ks: float
    js: float
    threshold: float
    drifted: bool


def score_drift(
    reference: Mapping[str, Any], column: Mapping[str, Any], n_columns: int, policy: DriftPolicy
) -> Drift:
    """Compare a column's counts with its `ReferenceColumn`; the missing are one more bin on both sides.

    A window of fewer than `min_rows` rows is measured but never counts as drifted.
    """
    window, whole = histogram_with_missing(column), histogram_with_missing(reference)
    n, m = sum(window), sum(whole)
    distance = round(psi(window, whole), DECIMALS)
    threshold = psi_threshold(reference, max(n, 1), max(m, 1), n_columns, policy)
    return Drift(
        psi=distance,
        ks=round(ks(window, whole), DECIMALS),
        js=round(js(window, whole), DECIMALS),
        threshold=threshold,
        drifted=distance > threshold and n >= policy.min_rows,
    )
