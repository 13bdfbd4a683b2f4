"""A learner that takes one label at a time, in the order in which they became known (river)."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river import linear_model, optim

from models import onnx_graph
from models.dataset import Dataset
from models.recipes.contract import check_parity
from models.recipes.encoding import encode
from streams.task import Task

BLOCKS = 20


def online(
    task: Task,
    rows: Dataset,
    seed: int,
    learning_rate: float = 0.05,
    l2: float = 0.0,
    category_smoothing: float = 50.0,
) -> bytes:
    """Logistic regression by stochastic gradient descent, a step a label: the newest labels count most.

    Columns are standardised once, over all rows; a missing value counts as the mean. The file's curve
    'prequential' is the mean log-loss of each twentieth of the labels, each scored before it is learned.
    """
    encoder, matrix = encode(task, rows, seed, category_smoothing)
    x = matrix.astype(np.float64)
    known = ~np.isnan(x)
    total = np.maximum(known.sum(axis=0), 1)
    center = (np.where(known, x, 0.0).sum(axis=0) / total).astype(np.float32).astype(np.float64)
    centered = np.where(known, x - center, 0.0)
    spread = np.sqrt((centered**2).sum(axis=0) / total)
    scale = np.where(spread > 0, spread, 1.0)
    order = np.lexsort((rows.ids.astype(str), rows.label_times))
    model, losses = _learn(centered[order] / scale, rows.labels[order], learning_rate, l2)
    weight = np.array([model.weights[name] for name in range(len(center))]) / scale
    curves = {onnx_graph.CURVES: json.dumps({"prequential": losses})}
    intercept = float(model.intercept)
    data = onnx_graph.linear(center, weight, intercept, encoder, curves)

    def library(values: NDArray[np.float64]) -> NDArray[np.float64]:
        filled = np.where(np.isnan(values), 0.0, values - center) / scale
        return np.array([model.predict_proba_one(_named(row)).get(True, 0.5) for row in filled])

    check_parity(data, rows, encoder, library)
    return data


def _learn(
    x: NDArray[np.float64], labels: NDArray[Any], learning_rate: float, l2: float
) -> tuple[Any, list[float]]:
    model: Any = linear_model.LogisticRegression(optim.SGD(learning_rate), l2=l2)
    losses = []
    for row, label in zip(x, labels, strict=True):
        named = _named(row)
        score = model.predict_proba_one(named)[True]
        losses.append(-math.log(min(max(score if label else 1 - score, 1e-6), 1.0)))
        model.learn_one(named, bool(label))
    blocks = np.array_split(np.array(losses), min(BLOCKS, len(losses)))
    return model, [round(float(block.mean()), 6) for block in blocks]


def _named(row: NDArray[np.float64]) -> dict[int, float]:
    return dict(enumerate(row.tolist()))
