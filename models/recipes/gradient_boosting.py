"""Gradient boosting over histograms, scikit-learn's trees written as ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from models import onnx_graph
from models.dataset import Dataset
from models.recipes.contract import check_parity
from models.recipes.encoding import encode
from models.recipes.errors import CannotTrain
from models.recipes.thresholds import round_down
from streams.task import Task


def gradient_boosting(
    task: Task,
    rows: Dataset,
    seed: int,
    iterations: int = 120,
    learning_rate: float = 0.08,
    leaves: int = 24,
    min_leaf: int = 80,
    l2: float = 1.0,
    category_smoothing: float = 50.0,
    *,
    targets: NDArray[np.float64] | None = None,
) -> bytes:
    """Histogram gradient boosting (log-loss) over numbers as they are and target-encoded categories.

    `targets` (n,): probabilities to learn instead of the labels, as from a teacher.
    """
    encoder, matrix = encode(task, rows, seed, category_smoothing)
    model = HistGradientBoostingClassifier(
        learning_rate=learning_rate,
        max_iter=iterations,
        max_leaf_nodes=leaves,
        min_samples_leaf=min_leaf,
        l2_regularization=l2,
        early_stopping=False,
        random_state=seed,
    )
    # The library cannot bin a column without any value; without two values it is never split by.
    empty = np.isnan(matrix).all(axis=0)
    filled = np.where(empty, 0.0, matrix.astype(np.float64))
    if targets is None:
        model.fit(filled, rows.labels)
    else:  # a row with probability p is a positive of weight p and a negative of weight 1 - p
        twice = np.concatenate([filled, filled])
        labels = np.repeat([1, 0], len(rows))
        model.fit(twice, labels, sample_weight=np.concatenate([targets, 1 - targets]))
    trees = [tree(predictor.nodes) for (predictor,) in model._predictors]
    baseline = float(np.ravel(model._baseline_prediction)[0])
    data = onnx_graph.tree_ensemble(trees, baseline, encoder)
    check_parity(data, rows, encoder, lambda x: model.predict_proba(x)[:, 1])
    return data


def tree(nodes: NDArray[Any]) -> onnx_graph.Tree:
    """A tree of scikit-learn's gradient boosting; its thresholds rounded down to single precision.

    Inputs are single precision, so x <= t and x <= round_down(t) decide alike for every input. An infinite
    threshold (missing goes apart from all known) becomes the largest number that the encoder gives.
    """
    if nodes["is_categorical"].any():
        raise CannotTrain("a tree splits categories by name, which this recipe does not write")
    leaf = nodes["is_leaf"].astype(np.bool_)
    threshold = round_down(np.where(leaf, 0.0, nodes["num_threshold"]))
    return onnx_graph.Tree(
        feature=np.where(leaf, 0, nodes["feature_idx"]).astype(np.int64),
        threshold=threshold,
        missing_left=nodes["missing_go_to_left"].astype(np.bool_) & ~leaf,
        left=np.where(leaf, -1, nodes["left"].astype(np.int64)),
        right=nodes["right"].astype(np.int64),
        value=nodes["value"].astype(np.float32),
    )
