"""A scikit-learn estimator or pipeline that the user brings."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from models import foreign_graph
from models.artifacts import ArtifactRefused
from models.dataset import Dataset
from models.recipes.contract import check_parity
from models.recipes.encoding import encode
from models.recipes.errors import CannotTrain
from streams.task import Task

SOURCE = "driftlog.estimator"
"""Metadata: 'module:function sha256' of the module that made the estimator."""


def sklearn_estimator(
    task: Task,
    rows: Dataset,
    seed: int,
    estimator: str = "",
    category_smoothing: float = 50.0,
    **arguments: Any,
) -> bytes:
    """What `estimator` ('module:function') gives when it is called with `seed` and the other parameters.

    It must have `fit` and `predict_proba`, and get by with NaN for what is missing (or impute it). It gets
    numbers as they are and categories as their share of positives. skl2onnx converts it; the file is used
    only if it scores real rows as the library does, and each row alike in any batch.
    """
    make, source = _function(estimator)
    try:
        model = make(seed=seed, **arguments)
    except Exception as error:
        raise CannotTrain(f"{estimator}(seed=..., ...) failed: {_line(error)}") from error
    encoder, matrix = encode(task, rows, seed, category_smoothing)
    try:
        model.fit(matrix, rows.labels)
        graph = foreign_graph.from_sklearn(model, matrix[:1])
    except Exception as error:  # whatever the user's estimator or its converter raises
        raise CannotTrain(f"{estimator}: {type(error).__name__}: {_line(error)}") from error
    try:
        data = foreign_graph.adopt(graph, encoder, matrix, {SOURCE: f"{estimator} {source}"})
    except ArtifactRefused as error:
        raise CannotTrain(f"{estimator}: as ONNX it cannot be served: {error}") from error
    check_parity(
        data, rows, encoder, lambda x: np.asarray(model.predict_proba(x.astype(np.float32)))[:, 1]
    )
    return data


def _function(name: str) -> tuple[Callable[..., Any], str]:
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name:
        raise CannotTrain(f"estimator={name!r}: say where it is made: 'module:function'")
    try:
        module = importlib.import_module(module_name)
        function = getattr(module, function_name)
    except (ImportError, AttributeError) as error:
        raise CannotTrain(f"estimator {name!r} is not found: {_line(error)}") from error
    source = inspect.getsource(module).encode()
    return function, hashlib.sha256(source).hexdigest()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
