"""What must hold of a training set before anything is learned from it (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas
from numpy.typing import NDArray

from models.dataset import Dataset
from models.leakage import Fit, leakage_checks
from streams.expectations import STOP
from streams.quality import Check
from streams.task import Task

_SHIFT, _ODD = np.uint64(31), np.uint64(0x9E3779B97F4A7C15)


def training_checks(
    task: Task, rows: Dataset, fit: Fit, before: Mapping[str, float]
) -> list[Check]:
    """Every check of a training set. `fit`: trains as the task does (rows -> what scores other rows).

    `before`: feature -> AUC of the feature alone in the training set of the version before (see
    `feature_aucs`). The same rows and seed give the same numbers.
    """
    checks = [*_balance(task, rows), *_duplicates(task, rows), *_constants(task, rows)]
    if task.quality.leakage:
        checks += leakage_checks(rows, fit, task.quality, task.recipe.seed, before)
    return checks


def feature_aucs(checked: Mapping[str, Any] | None) -> dict[str, float]:
    """feature -> AUC of the feature alone, as a QualityChecked of a training set told it."""
    checks = checked["checks"] if checked else ()
    return {c["column"]: c["value"] for c in checks if c["name"] == "single_feature"}


def refusal(checked: Mapping[str, Any]) -> str | None:
    """Why the training ends here, in one line; None if no failed check of a QualityChecked stops it."""
    failed = [check for check in checked["checks"] if not check["passed"]]
    pairs = zip(failed, checked["failures"], strict=True)
    reasons = [text for check, text in pairs if check["severity"] == STOP]
    return f"quality: {'; '.join(reasons)}" if reasons else None


def _balance(task: Task, rows: Dataset) -> list[Check]:
    rarer = min(rows.positives, len(rows) - rows.positives)
    share, least = rarer / len(rows), task.quality.min_class_share
    text = f"{rarer} of {len(rows)} rows have the rarer label: {share:.2%}, at least {least:.2%} expected"
    severity = task.quality.severity("balance")
    return [Check("balance", None, share, least, share >= least, severity, text)]


def _duplicates(task: Task, rows: Dataset) -> list[Check]:
    """Rows whose label and features all equal those of an earlier row."""
    keys = rows.labels.astype(np.uint64)
    for values in rows.columns.values():
        mixed = (
            keys ^ (keys >> _SHIFT)
        ) * _ODD  # 64 bits of the row so far: chance does not meet twice
        keys = mixed + _codes(values)
    repeated = len(rows) - len(np.unique(keys))
    share, most = repeated / len(rows), task.quality.max_duplicates
    text = (
        f"{repeated} of {len(rows)} rows repeat another: {share:.1%}, at most {most:.1%} expected"
    )
    severity = task.quality.severity("duplicates")
    return [Check("duplicates", None, share, most, share <= most, severity, text)]


def _constants(task: Task, rows: Dataset) -> list[Check]:
    """Features that tell nothing: one value, or none, in every row. Only the failures."""
    severity, found = task.quality.severity("constant"), []
    for name, values in rows.columns.items():
        first = values[0]
        same = pandas.isna(values) if pandas.isna(first) else values == first
        if same.all():
            text = f"{name} has the same value in all {len(rows)} rows"
            found.append(Check("constant", name, 1.0, 1.0, False, severity, text))
    return found


def _codes(values: NDArray[Any]) -> NDArray[np.uint64]:
    """The same whole number for the same value (what is missing is a value, too), from 0 on."""
    codes, _ = pandas.factorize(values, use_na_sentinel=False)
    return np.asarray(codes, np.uint64)
