"""Forests: many trees on random parts of the data, their shares of positives averaged."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

from models import onnx_graph
from models.dataset import Dataset
from models.recipes.contract import check_parity
from models.recipes.encoding import encode
from models.recipes.thresholds import round_down
from streams.task import Task


def random_forest(
    task: Task,
    rows: Dataset,
    seed: int,
    trees: int = 100,
    leaves: int = 256,
    min_leaf: int = 5,
    features_share: float = 0.5,
    category_smoothing: float = 50.0,
) -> bytes:
    """Breiman's random forest (2001): each tree sees a bootstrap sample, each split some of the columns."""
    made = RandomForestClassifier(
        trees,
        max_leaf_nodes=leaves,
        min_samples_leaf=min_leaf,
        max_features=features_share,
        random_state=seed,
    )
    return _forest(task, rows, seed, made, category_smoothing)


def extra_trees(
    task: Task,
    rows: Dataset,
    seed: int,
    trees: int = 100,
    leaves: int = 256,
    min_leaf: int = 5,
    features_share: float = 0.5,
    category_smoothing: float = 50.0,
) -> bytes:
    """Extremely randomised trees (Geurts, Ernst, Wehenkel 2006): thresholds are drawn, not searched."""
    made = ExtraTreesClassifier(
        trees,
        max_leaf_nodes=leaves,
        min_samples_leaf=min_leaf,
        max_features=features_share,
        random_state=seed,
    )
    return _forest(task, rows, seed, made, category_smoothing)


def _forest(task: Task, rows: Dataset, seed: int, model: Any, smoothing: float) -> bytes:
    encoder, matrix = encode(task, rows, seed, smoothing)
    model.fit(matrix, rows.labels)
    count = len(model.estimators_)
    trees = [tree(one.tree_, count) for one in model.estimators_]
    data = onnx_graph.forest(trees, encoder)
    check_parity(data, rows, encoder, lambda x: model.predict_proba(x.astype(np.float32))[:, 1])
    return data


def tree(found: Any, count: int) -> onnx_graph.Tree:
    """A classification tree of scikit-learn whose leaves weigh 1 / `count`."""
    leaf = found.children_left < 0
    return onnx_graph.Tree(
        feature=np.where(leaf, 0, found.feature).astype(np.int64),
        threshold=round_down(np.where(leaf, 0.0, found.threshold)),
        missing_left=found.missing_go_to_left.astype(np.bool_) & ~leaf,
        left=np.where(leaf, -1, found.children_left).astype(np.int64),
        right=found.children_right.astype(np.int64),
        value=(found.value[:, 0, 1] / count).astype(np.float32),
    )
