"""Logistic regression over standardised numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from models import onnx_graph
from models.dataset import Dataset
from models.recipes.contract import check_parity
from models.recipes.encoding import encode
from streams.task import Task


def logistic_regression(
    task: Task, rows: Dataset, seed: int, penalty: float = 1.0, category_smoothing: float = 50.0
) -> bytes:
    """L2-penalised logistic regression over standardised numbers and target-encoded categories.

    A missing value counts as the mean of its column; a column that never changes counts nothing.
    """
    encoder, matrix = encode(task, rows, seed, category_smoothing)
    x = matrix.astype(np.float64)
    known = ~np.isnan(x)
    center = np.where(known, x, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    center = center.astype(np.float32).astype(np.float64)
    centered = np.where(known, x - center, 0.0)
    spread = np.sqrt((centered**2).mean(axis=0))
    scale = np.where(spread > 0, spread, 1.0)
    model = LogisticRegression(C=1.0 / penalty, max_iter=1000, random_state=seed)
    model.fit(centered / scale, rows.labels)
    weight = np.where(spread > 0, model.coef_[0] / scale, 0.0)
    data = onnx_graph.linear(center, weight, float(model.intercept_[0]), encoder)

    def library(values: NDArray[np.float64]) -> NDArray[np.float64]:
        filled = np.where(np.isnan(values), 0.0, values - center) / scale
        return np.asarray(model.predict_proba(filled)[:, 1])

    check_parity(data, rows, encoder, library)
    return data
