"""Recipes: labelled rows -> an ONNX file. The same rows, seed and parameters give the same bytes.

One recipe a file, imported when it is asked for: libraries take seconds to load, and not all processes train.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from models.dataset import Dataset
from models.recipes.constant import constant
from models.recipes.errors import CannotTrain
from streams.task import Task

__all__ = [
    "RECIPES",
    "CannotTrain",
    "constant",
    "fit",
    "parameters_of",
    "unknown_parameters",
]

Fit = Callable[..., bytes]
"""(task, rows, seed, **parameters) -> ONNX bytes."""

RECIPES: Mapping[str, str] = {
    "cnn": "cnn.cnn",
    "constant": "constant.constant",
    "extra_trees": "forest.extra_trees",
    "gradient_boosting": "gradient_boosting.gradient_boosting",
    "logistic_regression": "logistic_regression.logistic_regression",
    "mlp": "mlp.mlp",
    "online": "online.online",
    "random_forest": "forest.random_forest",
    "sklearn": "sklearn_estimator.sklearn_estimator",
    "text_linear": "text_linear.text_linear",
    "text_transformer": "text_transformer.text_transformer",
}
"""Name -> module and function in this package."""


def _function(recipe: str) -> Fit:
    module, _, name = RECIPES[recipe].partition(".")
    found: Fit = getattr(import_module(f"{__name__}.{module}"), name)
    return found


def fit(
    task: Task,
    rows: Dataset,
    recipe: str,
    parameters: Mapping[str, Any],
    seed: int,
    checkpoints: Path | None = None,
) -> bytes:
    """Train with the named recipe; raises CannotTrain.

    `checkpoints`: a folder in which a recipe that takes long leaves where it stands, and goes on from there.
    """
    if recipe not in RECIPES:
        raise CannotTrain(f"there is no recipe {recipe!r}; there are {', '.join(sorted(RECIPES))}")
    unknown = unknown_parameters(recipe, parameters)
    if unknown:
        names = ", ".join(parameters_of(recipe)) or "none"
        raise CannotTrain(f"recipe {recipe} has no parameter {unknown[0]!r}; it has {names}")
    if recipe != "constant" and len(np.unique(rows.labels)) < 2:
        raise CannotTrain(f"all {len(rows)} training rows have the same label")
    function = _function(recipe)
    resumable = "checkpoints" in inspect.signature(function).parameters
    where = {"checkpoints": checkpoints} if resumable else {}
    # One thread: the same sums on any machine, and no spinning beside busy brokers.
    with threadpool_limits(limits=1):
        return function(task, rows, seed, **parameters, **where)


def parameters_of(recipe: str) -> list[str]:
    """What `Recipe.parameters` may hold, in order."""
    given = list(inspect.signature(_function(recipe)).parameters.values())[3:]
    return [each.name for each in given if each.kind is each.POSITIONAL_OR_KEYWORD]


def unknown_parameters(recipe: str, parameters: Mapping[str, Any]) -> list[str]:
    """Those that the recipe does not take, sorted; none for one that hands them on to a user's function."""
    given = inspect.signature(_function(recipe)).parameters.values()
    if any(each.kind is each.VAR_KEYWORD for each in given):
        return []
    return sorted(set(parameters) - set(parameters_of(recipe)))
