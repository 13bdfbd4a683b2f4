"""Writes the ONNX files of driftlog: input 'features' float32 (N, k), output 'score' float32 (N,).

The graphs are built by hand from few operators whose result for a row does not depend on the other rows,
so that a score is the same to the last bit in every batch (see `models.scorer`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import (
    ModelProto,
    NodeProto,
    TensorProto,
    checker,
    helper,
    load_model_from_string,
    numpy_helper,
)

from models.encoder import Encoder

IR_VERSION = 9
OPSETS = {"": 17, "ai.onnx.ml": 3}
METADATA = "driftlog"
PAD = "driftlog.rows"
"""Metadata: rows are scored in multiples of this."""
CURVES = "driftlog.curves"
"""Metadata: JSON of name -> losses, one a step of the training (an epoch, a block of labels)."""
WEIGHTS = "driftlog.weights"
"""Metadata: the pretrained weights that it started from, and the SHA-256 of their files."""
THRESHOLD = "driftlog.threshold"
"""Metadata: scores from here on decide 1; absent where the task's own threshold holds."""
OPERATORS = frozenset(
    {"TreeEnsembleClassifier", "Gather"}  # trees
    | {"IsNaN", "Where", "Sub", "Mul", "Split", "Sum", "Sigmoid", "Reshape"}  # linear
    | {"Shape", "Expand"}  # constant
    | {"TreeEnsembleRegressor", "Clip"}  # forests
    | {"Cast", "Concat", "Gemm", "Relu", "Conv", "MaxPool"}  # networks
    | {"QuantizeLinear", "DequantizeLinear"}  # networks in int8
    | {"Add", "Div", "MatMul", "Neg", "Sqrt", "Exp", "Log", "Max", "Min", "Pow", "Abs", "Softmax"}
    | {
        "Identity",
        "Slice",
        "Flatten",
        "ReduceSum",
        "ReduceProd",
        "Greater",
        "Less",
        "GreaterOrEqual",
        "LessOrEqual",
    }
    | {
        "And",
        "Or",
        "Not",
        "Equal",
        "Tanh",
        "Squeeze",
        "Unsqueeze",
        "Tile",
        "ReduceMean",
        "Transpose",
    }
    | {"Scaler", "Imputer", "LinearClassifier", "LinearRegressor", "Normalizer", "Binarizer"}
    | {"LayerNormalization", "Erf"}  # transformers
    | {"ArrayFeatureExtractor", "FeatureVectorizer", "SVMClassifier"}  # pipelines of scikit-learn
)
"""What a file may use; `models.scorer` refuses any other operator."""


@dataclass(frozen=True, slots=True)
class Tree:
    """One regression tree in arrays (node i): x[feature] <= threshold goes left; leaves have left < 0.

    `threshold` float32, `missing_left` where NaN goes, `value` float32 at leaves.
    """

    feature: NDArray[np.int64]
    threshold: NDArray[np.float32]
    missing_left: NDArray[np.bool_]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    value: NDArray[np.float32]


def tree_ensemble(trees: Sequence[Tree], baseline: float, encoder: Encoder) -> bytes:
    """P(1) = sigmoid(baseline + sum of the trees' leaves)."""
    node = helper.make_node(
        "TreeEnsembleClassifier",
        ["features"],
        ["decision", "probabilities"],
        domain="ai.onnx.ml",
        post_transform="LOGISTIC",
        classlabels_int64s=[0, 1],
        base_values=[float(np.float32(baseline))],
        **_tree_attributes(trees),
    )
    one = numpy_helper.from_array(np.array(1, dtype=np.int64), "one")
    pick = helper.make_node("Gather", ["probabilities", "one"], ["score"], axis=1)
    return serialize([node, pick], [one], encoder)


def forest(trees: Sequence[Tree], encoder: Encoder) -> bytes:
    """P(1) = sum of the trees' leaves (each a share of positives, divided by the number of trees)."""
    given = _tree_attributes(trees)
    of_target = {
        name.replace("class_", "target_"): given.pop(name)
        for name in list(given)
        if "class_" in name
    }
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["features"],
        ["sums"],
        domain="ai.onnx.ml",
        aggregate_function="SUM",
        n_targets=1,
        **given,
        **of_target,
    )
    # Shares that are rounded one by one may add up to a little more than 1.
    limits = [
        numpy_helper.from_array(np.array(v, np.float32), n) for n, v in (("low", 0), ("high", 1))
    ]
    clip = helper.make_node("Clip", ["sums", "low", "high"], ["shares"])
    flat = numpy_helper.from_array(np.array([-1], dtype=np.int64), "flat")
    reshape = helper.make_node("Reshape", ["shares", "flat"], ["score"])
    return serialize([node, clip, reshape], [*limits, flat], encoder)


def linear(
    center: NDArray[np.float64],
    weight: NDArray[np.float64],
    intercept: float,
    encoder: Encoder,
    notes: Mapping[str, str] | None = None,
) -> bytes:
    """P(1) = sigmoid(intercept + sum of weight * (x - center)); a missing value counts as its center.

    Products are added feature by feature (Split, Sum) and not by a matrix product, whose order of
    additions depends on the number of rows.
    """
    width = len(center)
    parts = [f"part_{index}" for index in range(width)]
    nodes = [
        helper.make_node("IsNaN", ["features"], ["missing"]),
        helper.make_node("Where", ["missing", "center", "features"], ["filled"]),
        helper.make_node("Sub", ["filled", "center"], ["centered"]),
        helper.make_node("Mul", ["centered", "weight"], ["products"]),
        helper.make_node("Split", ["products", "sizes"], parts, axis=1),
        helper.make_node("Sum", [*parts, "intercept"], ["margin"]),
        helper.make_node("Sigmoid", ["margin"], ["probability"]),
        helper.make_node("Reshape", ["probability", "flat"], ["score"]),
    ]
    values = [
        numpy_helper.from_array(np.asarray(center, dtype=np.float32), "center"),
        numpy_helper.from_array(np.asarray(weight, dtype=np.float32), "weight"),
        numpy_helper.from_array(np.ones(width, dtype=np.int64), "sizes"),
        numpy_helper.from_array(np.array([[intercept]], dtype=np.float32), "intercept"),
        numpy_helper.from_array(np.array([-1], dtype=np.int64), "flat"),
    ]
    # Sigmoid is computed a register of rows at a time, and differs in the last bit for the rest.
    return serialize(nodes, values, encoder, 16, notes)


def constant(score: float, encoder: Encoder) -> bytes:
    """The same score for every row."""
    nodes = [
        helper.make_node("Shape", ["features"], ["rows"], end=1),
        helper.make_node("Expand", ["constant", "rows"], ["score"]),
    ]
    value = numpy_helper.from_array(np.array([score], dtype=np.float32), "constant")
    return serialize(nodes, [value], encoder)


def _tree_attributes(trees: Sequence[Tree]) -> dict[str, Any]:
    sizes = [len(tree.feature) for tree in trees]
    tree_ids = np.repeat(np.arange(len(trees)), sizes)
    node_ids = np.concatenate([np.arange(size) for size in sizes])
    left = np.concatenate([tree.left for tree in trees])
    leaf = left < 0
    modes = np.where(leaf, "LEAF", "BRANCH_LEQ")
    return {
        "nodes_treeids": tree_ids.tolist(),
        "nodes_nodeids": node_ids.tolist(),
        "nodes_featureids": np.concatenate([tree.feature for tree in trees]).tolist(),
        "nodes_values": np.concatenate([tree.threshold for tree in trees]).tolist(),
        "nodes_modes": modes.tolist(),
        "nodes_truenodeids": np.where(leaf, 0, left).tolist(),
        "nodes_falsenodeids": np.where(leaf, 0, np.concatenate([t.right for t in trees])).tolist(),
        "nodes_missing_value_tracks_true": np.concatenate([t.missing_left for t in trees])
        .astype(int)
        .tolist(),
        "class_treeids": tree_ids[leaf].tolist(),
        "class_nodeids": node_ids[leaf].tolist(),
        "class_ids": [0] * int(leaf.sum()),
        "class_weights": np.concatenate([tree.value for tree in trees])[leaf].tolist(),
    }


def serialize(
    nodes: Sequence[NodeProto],
    values: Sequence[TensorProto],
    encoder: Encoder,
    rows: int = 1,
    notes: Mapping[str, str] | None = None,
) -> bytes:
    """The file: these nodes from 'features' to 'score'. `notes`: more of its metadata."""
    graph = helper.make_graph(
        list(nodes),
        encoder.task,
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", encoder.width])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n"])],
        list(values),
    )
    model: ModelProto = helper.make_model(
        graph,
        ir_version=IR_VERSION,
        producer_name="driftlog",
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in OPSETS.items()],
    )
    helper.set_model_props(model, {METADATA: encoder.to_json(), PAD: str(rows), **(notes or {})})
    checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def with_note(data: bytes, name: str, value: str) -> bytes:
    """The same file with one more line of metadata."""
    model = load_model_from_string(data)
    known = {item.key: item.value for item in model.metadata_props}
    helper.set_model_props(model, {**known, name: value})
    again: bytes = model.SerializeToString(deterministic=True)
    return again


def note(data: bytes, name: str) -> str | None:
    """A line of the file's metadata."""
    model = load_model_from_string(data)
    return next((item.value for item in model.metadata_props if item.key == name), None)
