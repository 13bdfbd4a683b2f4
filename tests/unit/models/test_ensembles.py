"""Trees of scikit-learn and of ONNX files, scored by the kernels: the libraries' own bits, on real rows."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression

import kernels
from kernels.gpu.emulator import Emulator
from models.ensembles import NotSupported, from_onnx, from_sklearn

CANCER = load_breast_cancer(return_X_y=True)
DIABETES = load_diabetes(return_X_y=True)
DIGITS = load_digits(return_X_y=True)


def with_gaps(data: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    x, y = data
    gaps = np.random.default_rng(0).random(x.shape) < 0.05
    return np.where(gaps, np.nan, x), y


FORESTS: list[tuple[Any, tuple[np.ndarray, np.ndarray]]] = [
    (RandomForestClassifier(30, random_state=0), with_gaps(CANCER)),
    (RandomForestClassifier(20, random_state=0), DIGITS),
    (RandomForestRegressor(30, random_state=0), DIABETES),
    (ExtraTreesClassifier(20, random_state=0), CANCER),
]
BOOSTED: list[tuple[Any, tuple[np.ndarray, np.ndarray]]] = [
    (HistGradientBoostingClassifier(max_iter=40), with_gaps(CANCER)),
    (HistGradientBoostingClassifier(max_iter=8), DIGITS),
    (HistGradientBoostingRegressor(max_iter=40), with_gaps(DIABETES)),
    (HistGradientBoostingRegressor(loss="poisson", max_iter=40), DIABETES),
    (GradientBoostingClassifier(n_estimators=30, random_state=0), CANCER),
    (GradientBoostingClassifier(n_estimators=5, random_state=0), DIGITS),
    (GradientBoostingRegressor(random_state=0), DIABETES),
]


@pytest.mark.parametrize(
    ("model", "data"), [*FORESTS, *BOOSTED], ids=lambda given: type(given).__name__
)
def test_answers_are_those_of_scikit_learn(model: Any, data: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = data
    model.fit(x, y)
    library = model.predict_proba(x) if hasattr(model, "classes_") else model.predict(x)
    mine = from_sklearn(model)
    assert np.array_equal(mine.predict(x), library)
    try:
        kernels.use(kernels.Device(Emulator(), "emulator", otherwise=1))
        assert np.array_equal(mine.predict(x[:200]), library[:200])
    finally:
        kernels.use(None)


def test_values_on_a_threshold_go_the_librarys_way() -> None:
    """float32 features against float64 thresholds, and the neighbours of both."""
    x, y = CANCER
    model = RandomForestClassifier(10, random_state=0).fit(x, y)
    cuts = np.concatenate([tree.tree_.threshold for tree in model.estimators_]).astype(np.float32)
    near = np.concatenate(
        [cuts, np.nextafter(cuts, np.float32(np.inf)), np.nextafter(cuts, np.float32(-1))]
    )
    rows = np.random.default_rng(0).choice(near, (500, x.shape[1])).astype(np.float32)
    assert np.array_equal(from_sklearn(model).predict(rows), model.predict_proba(rows))


@pytest.mark.parametrize(
    ("model", "data"),
    [*FORESTS, (GradientBoostingRegressor(random_state=0), DIABETES)],
    ids=lambda given: type(given).__name__,
)
def test_sums_are_those_of_onnx_runtime(model: Any, data: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = np.nan_to_num(data[0]).astype(np.float32), data[1]
    classes = hasattr(model, "predict_proba")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = to_onnx(model.fit(x, y), x[:1], options={"zipmap": False} if classes else None)
    (node,) = (node for node in made.graph.node if node.op_type.startswith("TreeEnsemble"))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(made.SerializeToString(), options)
    library = session.run(None, {session.get_inputs()[0].name: x})[-1]
    mine = kernels.trees_sum(from_onnx(node, x.shape[1]), x)
    if mine.shape != library.shape:  # one weight for two classes
        mine = np.concatenate([1 - mine, mine], axis=1)
    assert np.array_equal(mine, library)


def test_strict_branches_are_those_of_onnx_runtime() -> None:
    node = tree_node(["BRANCH_LT", "LEAF", "LEAF"])
    graph = helper.make_graph(
        [node],
        "strict",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 1])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 1])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, ir_version=9, opset_imports=opsets)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    cut = np.float32(0.5)
    x = np.array([[cut], [np.nextafter(cut, np.float32(0))], [np.nan], [7]], np.float32)
    (library,) = session.run(None, {"x": x})
    assert np.array_equal(kernels.trees_sum(from_onnx(node, 1), x), library)


def tree_node(modes: list[str], **more: Any) -> onnx.NodeProto:
    return helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[0, 0, 0],
        nodes_values=[0.5, 0.0, 0.0],
        nodes_modes=modes,
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        target_treeids=[0, 0],
        target_nodeids=[1, 2],
        target_ids=[0, 0],
        target_weights=[1.0, 2.0],
        n_targets=1,
        **more,
    )


def test_what_is_not_scored_is_told() -> None:
    x, y = CANCER
    with pytest.raises(NotSupported, match="LogisticRegression"):
        from_sklearn(LogisticRegression(max_iter=9))
    with pytest.raises(NotSupported, match="IsolationForest"):
        from_sklearn(IsolationForest(n_estimators=3).fit(x))
    with pytest.raises(NotSupported, match="BRANCH_EQ"):
        from_onnx(tree_node(["BRANCH_EQ", "LEAF", "LEAF"]), 1)
    with pytest.raises(NotSupported, match="AVERAGE"):
        from_onnx(tree_node(["BRANCH_LEQ", "LEAF", "LEAF"], aggregate_function="AVERAGE"), 1)
    categories = HistGradientBoostingClassifier(max_iter=3, categorical_features=[0], max_bins=255)
    with pytest.raises(NotSupported, match="categories"):
        from_sklearn(categories.fit(np.round(x[:, :1] * 3) % 7, y))
