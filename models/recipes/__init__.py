"""Recipes: labelled rows -> an ONNX file. The same rows, seed and parameters give the same bytes.

One recipe a file. Those that need PyTorch (extra `deep`) import it when they are called, not before.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from models.dataset import Dataset
from models.recipes.cnn import cnn
from models.recipes.constant import constant
from models.recipes.contract import MAX_DIFFERENCE, CannotTrain, Fit
from models.recipes.forest import extra_trees, random_forest
from models.recipes.gradient_boosting import gradient_boosting
from models.recipes.logistic_regression import logistic_regression
from models.recipes.mlp import mlp
from models.recipes.online import online
from models.recipes.sklearn_estimator import sklearn_estimator
from models.recipes.text_linear import text_linear
from models.recipes.text_transformer import text_transformer
from streams.task import Task

__all__ = [
    "MAX_DIFFERENCE",
    "RECIPES",
    "CannotTrain",
    "constant",
    "fit",
    "parameters_of",
    "unknown_parameters",
]

RECIPES: Mapping[str, Fit] = {
    "cnn": cnn,
    "constant": constant,
    "extra_trees": extra_trees,
    "gradient_boosting": gradient_boosting,
    "logistic_regression": logistic_regression,
    "mlp": mlp,
    "online": online,
    "random_forest": random_forest,
    "sklearn": sklearn_estimator,
    "text_linear": text_linear,
    "text_transformer": text_transformer,
}


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
    function = RECIPES.get(recipe)
    if function is None:
        raise CannotTrain(f"there is no recipe {recipe!r}; there are {', '.join(sorted(RECIPES))}")
    unknown = unknown_parameters(recipe, parameters)
    if unknown:
        names = ", ".join(parameters_of(recipe)) or "none"
        raise CannotTrain(f"recipe {recipe} has no parameter {unknown[0]!r}; it has {names}")
    if recipe != "constant" and len(np.unique(rows.labels)) < 2:
        raise CannotTrain(f"all {len(rows)} training rows have the same label")
    resumable = "checkpoints" in inspect.signature(function).parameters
    where = {"checkpoints": checkpoints} if resumable else {}
    # One thread: the same sums on any machine, and no spinning beside busy brokers.
    with threadpool_limits(limits=1):
        return function(task, rows, seed, **parameters, **where)


def parameters_of(recipe: str) -> list[str]:
    """What `Recipe.parameters` may hold, in order."""
    given = list(inspect.signature(RECIPES[recipe]).parameters.values())[3:]
    return [each.name for each in given if each.kind is each.POSITIONAL_OR_KEYWORD]


def unknown_parameters(recipe: str, parameters: Mapping[str, Any]) -> list[str]:
    """Those that the recipe does not take, sorted; none for one that hands them on to a user's function."""
    given = inspect.signature(RECIPES[recipe]).parameters.values()
    if any(each.kind is each.VAR_KEYWORD for each in given):
        return []
    return sorted(set(parameters) - set(parameters_of(recipe)))
