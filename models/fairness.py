"""Fairness per group: how far apart groups lie in what is decided about them (fairlearn)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

DECIMALS = 9


def large_groups(groups: NDArray[Any], least: int) -> NDArray[np.bool_]:
    """Which rows belong to a group of at least `least` rows: of a small one, chance alone tells."""
    names, inverse, counts = np.unique(groups.astype(str), return_inverse=True, return_counts=True)
    known = np.fromiter((value is not None for value in groups), np.bool_, len(groups))
    return known & (counts >= least)[inverse] if len(names) else known


def gap(
    metric: str, labels: NDArray[np.int8], decided: NDArray[np.bool_], groups: NDArray[Any]
) -> float:
    """Difference (0..1) between the groups that fare best and worst; 0 with fewer than two groups.

    `demographic_parity`: of the share that is decided 1. `equalized_odds`: of the true or
    the false positive rate, whichever is larger (Hardt, Price & Srebro 2016).
    """
    from fairlearn import metrics  # it takes a second to import

    names = groups.astype(str)
    if len(np.unique(names)) < 2:
        return 0.0
    function = getattr(metrics, f"{metric}_difference")
    found = function(labels, decided.astype(np.int8), sensitive_features=names)
    return round(float(found), DECIMALS)


def by_group(
    labels: NDArray[np.int8], decided: NDArray[np.bool_], groups: NDArray[Any]
) -> dict[str, dict[str, float]]:
    """Group -> rows, share decided 1, true and false positive rate."""
    from fairlearn import metrics

    frame = metrics.MetricFrame(
        metrics={
            "rows": metrics.count,
            "selection_rate": metrics.selection_rate,
            "true_positive_rate": metrics.true_positive_rate,
            "false_positive_rate": metrics.false_positive_rate,
        },
        y_true=labels,
        y_pred=decided.astype(np.int8),
        sensitive_features=groups.astype(str),
    )
    return {str(name): dict(row) for name, row in frame.by_group.astype(float).iterrows()}
