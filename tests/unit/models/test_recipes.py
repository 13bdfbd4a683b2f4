"""Recipes beyond the first three: what they write scores as their library does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from models import foreign_graph, recipes
from models.artifacts import ArtifactRefused
from models.decision_cost import choose_threshold
from models.encoder import Encoder, FeatureCode
from models.gates import auc
from models.onnx_graph import THRESHOLD, note, with_note
from models.recipes import CannotTrain
from models.scorer import Scorer
from models.training import train
from streams.task import Recipe
from tests.unit.models.model_parts import UNTIL_MS, WEAR, rows

ESTIMATORS = "tests.unit.models.estimators"


@pytest.mark.parametrize(
    ("recipe", "parameters", "least"),
    [
        ("random_forest", {"trees": 30}, 0.8),
        ("extra_trees", {"trees": 30}, 0.8),
        ("online", {}, 0.65),
        ("sklearn", {"estimator": f"{ESTIMATORS}:pipeline", "strength": 0.5}, 0.75),
        ("sklearn", {"estimator": f"{ESTIMATORS}:boosted"}, 0.75),
    ],
)
def test_a_recipe_learns(recipe: str, parameters: dict[str, Any], least: float) -> None:
    file = recipes.fit(WEAR, rows(1_200), recipe, parameters, 7)
    later = rows(1_000, seed=5)
    assert auc(later.labels, Scorer.from_bytes(file).score_columns(later.columns, 1_000)) > least


@pytest.mark.parametrize(
    ("estimator", "why"),
    [
        ("", "say where it is made: 'module:function'"),
        ("no.such.module:f", "is not found: No module named 'no'"),
        (f"{ESTIMATORS}:nothing", "is not found"),
        (f"{ESTIMATORS}:broken", "failed: no such thing"),
        (f"{ESTIMATORS}:regressor", "regressor: "),
    ],
)
def test_an_estimator_that_does_not_work_says_why(estimator: str, why: str) -> None:
    with pytest.raises(CannotTrain, match=why):
        recipes.fit(WEAR, rows(200), "sklearn", {"estimator": estimator}, 7)


def test_the_file_says_which_source_made_the_estimator() -> None:
    parameters = {"estimator": f"{ESTIMATORS}:pipeline"}
    file = recipes.fit(WEAR, rows(200), "sklearn", parameters, 7)
    said = (note(file, "driftlog.estimator") or "").split()
    assert said[0] == f"{ESTIMATORS}:pipeline"
    assert len(said[1]) == 64


def test_a_graph_whose_rows_depend_on_each_other_is_refused() -> None:
    """The mean over the batch, as a converter might write it."""
    from onnx import TensorProto, helper

    shape: list[Any] = ["n", 2]
    graph = helper.make_graph(
        [
            helper.make_node(
                *("Imputer", ["x"], ["known"]),
                domain="ai.onnx.ml",
                imputed_value_floats=[0.0, 0.0],
                replaced_value_float=float("nan"),
            ),
            helper.make_node("ReduceMean", ["known"], ["mean"], axes=[0]),
            helper.make_node("Sub", ["known", "mean"], ["apart"]),
            helper.make_node("Softmax", ["apart"], ["probabilities"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, shape)],
    )
    encoder = Encoder("wear", (FeatureCode("a"), FeatureCode("b")))
    matrix = np.random.default_rng(0).random((50, 2)).astype(np.float32)
    with pytest.raises(ArtifactRefused, match="depends on the rows"):
        foreign_graph.adopt(helper.make_model(graph), encoder, matrix, {})


def test_the_cheapest_threshold_weighs_both_mistakes() -> None:
    labels, scores = np.array([0, 0, 1, 0, 1, 1]), np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.9])
    even = choose_threshold(labels, scores, (1.0, 1.0), 0.5)
    assert (even.threshold, even.cost) == (0.5, round(1 / 6, 9))
    dear_misses = choose_threshold(labels, scores, (1.0, 5.0), 0.5)
    assert dear_misses.threshold == 0.25
    assert dear_misses.cost == round(1 / 6, 9)
    assert dear_misses.before == round(5 / 6, 9)
    assert choose_threshold(labels, scores, (1.0, 0.0), 0.5).cost == 0


def test_no_threshold_is_cheaper_than_the_one_that_is_chosen() -> None:
    chance = np.random.default_rng(4)
    scores = chance.random(200).round(2)
    labels = (chance.random(200) < scores).astype(int)
    choice = choose_threshold(labels, scores, (1.0, 3.0), 0.5)
    for threshold in np.linspace(0, 1, 301):
        decided = scores >= threshold
        cost = ((decided & (labels == 0)) + 3.0 * (~decided & (labels == 1))).mean()
        assert cost >= choice.cost - 1e-9


def test_a_version_brings_its_threshold_in_its_file_and_its_metrics() -> None:
    task = replace(WEAR, recipe=replace(WEAR.recipe, costs=(1.0, 4.0)))
    trained = train(task, rows(), UNTIL_MS, None, None, "wear-1")
    scorer = Scorer.from_bytes(trained.onnx)
    assert scorer.threshold == trained.metrics["threshold"] < 0.5
    assert trained.metrics["cost"] <= trained.metrics["task_cost"]
    plain = Scorer.from_bytes(train(WEAR, rows(), UNTIL_MS, None, None, "wear-1").onnx)
    assert plain.threshold is None
    with pytest.raises(ArtifactRefused, match="threshold is 7"):
        Scorer.from_bytes(with_note(trained.onnx, THRESHOLD, "7"))


def test_a_task_of_old_still_works() -> None:
    assert Recipe("constant", {}, 60, 7) == Recipe("constant")
