"""Recipes: labelled rows -> an ONNX file. The same rows, seed and parameters give the same bytes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import TargetEncoder
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from models import onnx_graph
from models.dataset import Dataset
from models.encoder import Encoder, FeatureCode
from models.scorer import Scorer
from streams.task import Task

MAX_DIFFERENCE = 1e-5
"""The file's scores may differ by so much from the library's (single against double precision)."""
_LARGEST = np.finfo(np.float32).max


class CannotTrain(Exception):
    """No model can come out of these rows with this recipe; the message says why."""


Fit = Callable[..., bytes]
"""(task, rows, seed, **parameters) -> ONNX bytes."""


def fit(task: Task, rows: Dataset, recipe: str, parameters: Mapping[str, Any], seed: int) -> bytes:
    """Train with the named recipe; raises CannotTrain."""
    function = RECIPES.get(recipe)
    if function is None:
        raise CannotTrain(f"there is no recipe {recipe!r}; there are {', '.join(sorted(RECIPES))}")
    known = list(inspect.signature(function).parameters)[3:]
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        names = ", ".join(known) or "none"
        raise CannotTrain(f"recipe {recipe} has no parameter {unknown[0]!r}; it has {names}")
    if recipe != "constant" and len(np.unique(rows.labels)) < 2:
        raise CannotTrain(f"all {len(rows)} training rows have the same label")
    # One thread: the same sums on any machine, and no spinning beside busy brokers.
    with threadpool_limits(limits=1):
        return function(task, rows, seed, **parameters)


def constant(task: Task, rows: Dataset | None, seed: int, score: float | None = None) -> bytes:  # noqa: ARG001
    """The same score for every request (default: the task's prior)."""
    value = task.prior_score if score is None else score
    return onnx_graph.constant(value, _blank_encoder(task))


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
) -> bytes:
    """Histogram gradient boosting (log-loss) over numbers as they are and target-encoded categories."""
    encoder, matrix = _encode(task, rows, seed, category_smoothing)
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
    model.fit(np.where(empty, 0.0, matrix.astype(np.float64)), rows.labels)
    trees = [_tree(predictor.nodes) for (predictor,) in model._predictors]
    baseline = float(np.ravel(model._baseline_prediction)[0])
    data = onnx_graph.tree_ensemble(trees, baseline, encoder)
    _check_parity(data, rows, encoder, lambda x: model.predict_proba(x)[:, 1])
    return data


def logistic_regression(
    task: Task, rows: Dataset, seed: int, penalty: float = 1.0, category_smoothing: float = 50.0
) -> bytes:
    """L2-penalised logistic regression over standardised numbers and target-encoded categories.

    A missing value counts as the mean of its column; a column that never changes counts nothing.
    """
    encoder, matrix = _encode(task, rows, seed, category_smoothing)
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

    _check_parity(data, rows, encoder, library)
    return data


RECIPES: Mapping[str, Fit] = {
    "constant": constant,
    "gradient_boosting": gradient_boosting,
    "logistic_regression": logistic_regression,
}


def _blank_encoder(task: Task) -> Encoder:
    """Every feature of the task, no category known."""
    return Encoder(
        task.name,
        tuple(
            FeatureCode(name, {} if kind == "string" else None)
            for name, kind in task.vector.items()
        ),
    )


def _encode(
    task: Task, rows: Dataset, seed: int, smoothing: float
) -> tuple[Encoder, NDArray[np.float32]]:
    """The code book, and the matrix to train on.

    A category's code is the smoothed share of positives among its rows; the codes to train on are
    cross-fitted (each row's code comes from other rows), so that rare ones do not give labels away.
    """
    codes: list[FeatureCode] = []
    fitted: dict[int, NDArray[np.float64]] = {}
    for index, (name, kind) in enumerate(task.vector.items()):
        if kind == "double":
            codes.append(FeatureCode(name))
            continue
        code, fitted[index] = _target_code(name, rows, seed, smoothing)
        codes.append(code)
    encoder = Encoder(task.name, tuple(codes))
    matrix = encoder.encode_columns(rows.columns, len(rows))
    for index, column in fitted.items():
        matrix[:, index] = column
    return encoder, matrix


def _target_code(
    name: str, rows: Dataset, seed: int, smoothing: float
) -> tuple[FeatureCode, NDArray[np.float64]]:
    values = rows.columns[name]
    known = np.array([value is not None for value in values], dtype=np.bool_)
    column = np.full(len(values), np.nan)
    labels = rows.labels[known]
    if len(labels) < 10 or len(np.unique(labels)) < 2:
        return FeatureCode(name, {}, float(rows.labels.mean())), column
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    encoder = TargetEncoder(target_type="binary", smooth=smoothing, cv=folds)
    column[known] = encoder.fit_transform(values[known].reshape(-1, 1), labels)[:, 0]
    found = zip(encoder.categories_[0], encoder.encodings_[0], strict=True)
    shares = {str(category): float(np.float32(share)) for category, share in found}
    return FeatureCode(name, shares, float(np.float32(encoder.target_mean_))), column


def _tree(nodes: NDArray[Any]) -> onnx_graph.Tree:
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


def round_down(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest finite float32 that is not above each value (the smallest finite one for -inf)."""
    clipped = np.clip(values, -_LARGEST, _LARGEST)
    single = clipped.astype(np.float32)
    above = single.astype(np.float64) > clipped
    return np.where(above, np.nextafter(single, np.float32(-np.inf)), single).astype(np.float32)


def _check_parity(
    data: bytes,
    rows: Dataset,
    encoder: Encoder,
    library: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> None:
    """The file must score as the library does, on real rows."""
    sample = encoder.encode_columns(
        {n: v[:4096] for n, v in rows.columns.items()}, min(len(rows), 4096)
    )
    difference = np.abs(
        Scorer.from_bytes(data).score_matrix(sample) - library(sample.astype(np.float64))
    )
    if not difference.max(initial=0.0) <= MAX_DIFFERENCE:
        raise CannotTrain(
            f"the ONNX file's scores differ from scikit-learn's by {difference.max():.2g},"
            f" more than {MAX_DIFFERENCE:g}"
        )
