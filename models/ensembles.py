"""Fitted models of scikit-learn, and tree ensembles of ONNX files, for the batch scoring of `kernels`.

Thresholds are compared as the library does (float64 against the features' own type), leaves are added in the
library's order and type: raw sums are equal to the last bit, see tests/unit/models/test_ensembles.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from kernels.calls.models import Tree, TreeEnsemble, ensemble, trees_sum

Array = NDArray[Any]
_BRANCHES = "BRANCH_LEQ", "BRANCH_LT"


class NotSupported(ValueError):
    """A model that the kernels do not score; the message says what of it."""


@dataclass(frozen=True, slots=True)
class TreeModel:
    """An ensemble, the type of its features, and what turns its sums into answers."""

    trees: TreeEnsemble
    dtype: np.dtype[Any]
    finish: Callable[[Array], Array]

    def predict(self, x: Any) -> Array:
        """Of a classifier `predict_proba`, of a regressor `predict`; x: (n, features), NaN for missing."""
        rows = np.ascontiguousarray(x, self.dtype)
        return self.finish(trees_sum(self.trees, rows))


def from_sklearn(model: Any) -> TreeModel:
    """Of a fitted random or extra-trees forest, gradient boosting, or histogram gradient boosting.

    Raises NotSupported for another kind, several outputs, or splits on categories.
    """
    if hasattr(model, "_predictors"):
        return _histogram_boosting(model)
    if hasattr(model, "estimators_") and hasattr(model, "_raw_predict_init"):
        return _boosting(model)
    if hasattr(model, "n_outputs_") and hasattr(next(iter(model.estimators_), None), "tree_"):
        return _forest(model)
    raise NotSupported(f"{type(model).__name__} is no ensemble of trees that is scored here")


def from_onnx(node: NodeProto, features: int) -> TreeEnsemble:
    """The sums of a TreeEnsembleClassifier or TreeEnsembleRegressor, before its post_transform.

    A classifier whose leaves weigh one class has one output. Raises NotSupported for branches other than
    BRANCH_LEQ and BRANCH_LT, and aggregates other than SUM.
    """
    given = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    kind = "class" if node.op_type == "TreeEnsembleClassifier" else "target"
    if node.op_type not in ("TreeEnsembleClassifier", "TreeEnsembleRegressor"):
        raise NotSupported(f"the operator {node.op_type}")
    if given.get("aggregate_function", b"SUM") != b"SUM":
        raise NotSupported(f"leaves joined by {given['aggregate_function'].decode()}")
    modes = np.array([mode.decode() for mode in given["nodes_modes"]])
    unknown = set(modes) - {*_BRANCHES, "LEAF"}
    if unknown:
        raise NotSupported(f"nodes of mode {sorted(unknown)[0]}")
    outputs = np.asarray(given[f"{kind}_ids"], np.int64)
    width = 1 if len(set(outputs.tolist())) == 1 else int(outputs.max()) + 1
    leaves = {
        name: np.asarray(given[f"{kind}_{name}"]) for name in ("treeids", "nodeids", "weights")
    }
    trees = [
        _onnx_tree(given, modes, tree, leaves, outputs if width > 1 else None, width)
        for tree in dict.fromkeys(given["nodes_treeids"])
    ]
    base = np.zeros(width, np.float32)
    values = np.asarray(given.get("base_values", []), np.float32)
    if len(values) not in (0, width):
        raise NotSupported(f"{len(values)} base values for {width} outputs")
    base[: len(values)] = values
    return ensemble(trees, base, features, np.float32, base_last=True)


def _onnx_tree(
    given: dict[str, Any],
    modes: Array,
    tree: int,
    leaves: dict[str, Array],
    outputs: Array | None,
    width: int,
) -> Tree:
    mine = np.flatnonzero(np.asarray(given["nodes_treeids"]) == tree)
    place = {given["nodes_nodeids"][at]: i for i, at in enumerate(mine)}

    def column(name: str, dtype: Any) -> Array:
        return np.asarray(given[f"nodes_{name}"])[mine].astype(dtype)

    leaf = modes[mine] == "LEAF"
    threshold = column("values", np.float32)
    below = np.nextafter(threshold, np.float32(-np.inf))
    threshold = np.where(modes[mine] == "BRANCH_LT", below, threshold)
    missing = given.get("nodes_missing_value_tracks_true") or [0] * len(modes)
    value = np.zeros((len(mine), width), np.float32)
    for at in np.flatnonzero(leaves["treeids"] == tree):
        output = 0 if outputs is None else int(outputs[at])
        value[place[leaves["nodeids"][at]], output] += leaves["weights"][at]
    children = {
        side: [
            -1 if end else place[i]
            for i, end in zip(column(name, np.int64).tolist(), leaf, strict=True)
        ]
        for side, name in (("left", "truenodeids"), ("right", "falsenodeids"))
    }
    return Tree(
        feature=column("featureids", np.int64),
        threshold=threshold.astype(np.float64),
        missing_left=np.asarray(missing)[mine].astype(np.bool_),
        left=np.array(children["left"]),
        right=np.array(children["right"]),
        value=value,
    )


def _histogram_boosting(model: Any) -> TreeModel:
    base = np.ravel(model._baseline_prediction).astype(np.float64)
    trees = []
    for iteration in model._predictors:
        for output, predictor in enumerate(iteration):
            nodes = predictor.nodes
            if nodes["is_categorical"].any():
                raise NotSupported("splits on categories")
            leaf = nodes["is_leaf"].astype(np.bool_)
            trees.append(
                Tree(
                    feature=nodes["feature_idx"].astype(np.int64),
                    threshold=nodes["num_threshold"],
                    missing_left=nodes["missing_go_to_left"].astype(np.bool_),
                    left=np.where(leaf, -1, nodes["left"].astype(np.int64)),
                    right=nodes["right"].astype(np.int64),
                    value=nodes["value"][:, None],
                    first=output,
                )
            )
    made = ensemble(trees, base, model.n_features_in_, np.float64)
    return TreeModel(made, np.dtype(np.float64), _by_loss(model, "F"))


def _boosting(model: Any) -> TreeModel:
    raw = model._raw_predict_init(np.zeros((1, model.n_features_in_), np.float32))[0]
    if model.init is not None and not isinstance(model.init, str):
        raise NotSupported("gradient boosting that starts from another model")
    trees = [
        _sklearn_tree(
            estimator.tree_, estimator.tree_.value[:, 0, :1] * model.learning_rate, output
        )
        for stage in model.estimators_
        for output, estimator in enumerate(stage)
    ]
    made = ensemble(trees, raw, model.n_features_in_, np.float64)
    return TreeModel(made, np.dtype(np.float32), _by_loss(model, "C"))


def _forest(model: Any) -> TreeModel:
    if model.n_outputs_ != 1:
        raise NotSupported("several outputs")
    count = len(model.estimators_)
    classes = hasattr(model, "classes_")
    trees = [_sklearn_tree(one.tree_, one.tree_.value[:, 0, :]) for one in model.estimators_]
    base = np.zeros(trees[0].value.shape[1])

    def finish(sums: Array) -> Array:
        return np.asarray(sums / count) if classes else np.asarray(sums[:, 0] / count)

    made = ensemble(trees, base, model.n_features_in_, np.float64)
    return TreeModel(made, np.dtype(np.float32), finish)


def _sklearn_tree(tree: Any, value: Array, first: int = 0) -> Tree:
    return Tree(
        feature=tree.feature,
        threshold=tree.threshold,
        missing_left=tree.missing_go_to_left.astype(np.bool_),
        left=tree.children_left,
        right=tree.children_right,
        value=value,
        first=first,
    )


def _by_loss(model: Any, order: Literal["C", "F"]) -> Callable[[Array], Array]:
    """What the library does with raw sums: probabilities of a classifier, the mean of a regressor.

    `order` of the sums in memory: NumPy adds up a softmax's powers in another order in each.
    """
    loss: Any = model._loss

    def finish(sums: Array) -> Array:
        raw = sums[:, 0] if sums.shape[1] == 1 else np.asarray(sums, order=order)
        if hasattr(model, "classes_"):
            return np.asarray(loss.predict_proba(raw))
        return np.asarray(loss.link.inverse(raw))

    return finish
