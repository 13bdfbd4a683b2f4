"""Distillation: a small student learns the scores of its teacher (Hinton, Vinyals, Dean 2015)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.dataset import Dataset
from models.recipes import CannotTrain, parameters_of
from models.recipes.cnn import cnn
from models.recipes.gradient_boosting import gradient_boosting
from models.recipes.mlp import mlp
from models.recipes.transfer import PARAMETERS as TRANSFER
from models.scorer import Scorer
from streams.task import Task

TREES = frozenset(("gradient_boosting", "random_forest", "extra_trees"))


def distil(
    task: Task,
    rows: Dataset,
    teacher: Scorer,
    recipe: str,
    given: Mapping[str, Any],
    seed: int,
    share: float,
) -> bytes:
    """A student of the teacher's kind with `share` of its trees, or of its hidden units.

    `recipe`, `given`: what the teacher was made by. It learns from the teacher's scores of `rows`, not
    from their labels. Raises CannotTrain for a teacher that has no smaller kind.
    """
    scores = teacher.score_columns(rows.columns, len(rows))
    # Weights of another shape are no start for a smaller one.
    given = {name: value for name, value in given.items() if name not in TRANSFER}
    if recipe in TREES:
        kept = {n: v for n, v in given.items() if n in parameters_of("gradient_boosting")}
        kept["iterations"] = max(1, round(share * int(given.get("iterations", 120))))
        return gradient_boosting(task, rows, seed, **kept, targets=scores)
    if recipe == "mlp":
        hidden = [max(1, round(share * width)) for width in given.get("hidden", (64, 32))]
        return mlp(task, rows, seed, **{**given, "hidden": hidden}, targets=scores)
    if recipe == "cnn":
        channels = [max(1, round(share * width)) for width in given.get("channels", (16, 32))]
        smaller = {"channels": channels, "hidden": max(1, round(share * given.get("hidden", 64)))}
        return cnn(task, rows, seed, **{**given, **smaller}, targets=scores)
    raise CannotTrain(f"a model of recipe {recipe} has no smaller student: trees, mlp and cnn have")
