"""A driftlog ONNX file scored by `kernels`: for large batches where a device is in use.

Margins are added in ONNX Runtime's order in float32, on any device to the same bits. The last step, from a
margin to a probability, runs on the processor with the function that ONNX Runtime uses there, so that a score
does not say where it was computed. That this holds on the machine at hand is not taken on trust: a file is
first scored by both on rows that lie around its thresholds, and left to ONNX Runtime if a bit differs.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from infra.jit import compiled
from kernels.calls.models import LinearModel, TreeEnsemble, linear_margins, trees_sum
from models.ensembles import NotSupported, from_onnx
from models.onnx_graph import IR_VERSION, OPSETS

logger = logging.getLogger(__name__)
Singles = NDArray[np.float32]
Score = Callable[[Singles, bool], Singles]
Other = Callable[[Singles], NDArray[Any]]

PROBE_ROWS = 512


class DeviceScorer:
    """Trees or a linear model of a driftlog file. Raises NotSupported for any other."""

    def __init__(self, model: onnx.ModelProto, padding: int) -> None:
        nodes = {node.op_type: node for node in model.graph.node}
        self.features = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
        self._score: Score
        if "TreeEnsembleClassifier" in nodes:
            self.kernel, self._score = "trees", self._trees(nodes["TreeEnsembleClassifier"])
        elif {"Sigmoid", "Split"} <= set(nodes):
            self.kernel, self._score = "linear", self._linear(model, padding)
        else:
            raise NotSupported("neither trees nor a linear model")

    def values(self, rows: int) -> int:
        """How many values a device counts for so many rows, see `kernels.dispatch`."""
        return rows * self._each

    def score(self, matrix: Singles, *, force: bool = False) -> Singles:
        """P(label 1) per row, float32 (n,); `force`: on the device in use, however few rows there are."""
        return self._score(matrix, force)

    def agrees(self, other: Other) -> bool:
        """Whether `other` gives the same bits on rows around the model's thresholds, some values missing."""
        rng = np.random.default_rng(0)
        known = self._thresholds if len(self._thresholds) else np.zeros(1, np.float32)
        x = rng.choice(known, (PROBE_ROWS, self.features)).astype(np.float32)
        with np.errstate(over="ignore"):
            x[::3] *= rng.normal(1.0, 0.5, x[::3].shape).astype(np.float32)
            x[1::3] = np.nextafter(x[1::3], np.float32(np.inf))
        x[rng.random(x.shape) < 0.1] = np.nan
        return self.score(x, force=True).tobytes() == other(x).astype(np.float32).tobytes()

    def _trees(self, node: onnx.NodeProto) -> Score:
        trees: TreeEnsemble = from_onnx(node, self.features)
        if len(trees.base) != 1:
            raise NotSupported(f"{len(trees.base)} outputs")
        self._thresholds = trees.nodes["threshold"].astype(np.float32)

        self._each = len(trees.roots)

        def score(matrix: Singles, force: bool) -> Singles:
            out = np.empty(len(matrix), np.float32)
            _logistic(trees_sum(trees, matrix, force=force)[:, 0], out)
            return out

        return score

    def _linear(self, model: onnx.ModelProto, padding: int) -> Score:
        given = {value.name: numpy_helper.to_array(value) for value in model.graph.initializer}
        linear = LinearModel(given["center"], given["weight"], float(given["intercept"][0, 0]))
        self._thresholds = linear.center
        self._each = self.features
        sigmoid = _sigmoid()

        def score(matrix: Singles, force: bool) -> Singles:
            margins = linear_margins(linear, matrix, force=force)
            short = -len(margins) % padding
            filled = np.pad(margins, (0, short), mode="edge")[:, None]
            scores: Singles = sigmoid.run(None, {"margin": filled})[0]
            return scores[: len(matrix), 0]

        return score


@compiled
def _logistic(margin: Any, out: Any) -> None:
    """1 / (1 + exp(-margin)), of the margin's size and then mirrored: the steps of ONNX Runtime's trees."""
    one = np.float32(1)
    for i in range(len(margin)):
        share = one / (one + np.float32(math.exp(-abs(margin[i]))))
        out[i] = share if margin[i] >= 0 else one - share


def _sigmoid() -> onnxruntime.InferenceSession:
    """ONNX Runtime's own sigmoid, whose vector code differs from the C library's in the last bit."""
    shape: list[str | int | None] = ["n", 1]
    graph = helper.make_graph(
        [helper.make_node("Sigmoid", ["margin"], ["score"])],
        "sigmoid",
        [helper.make_tensor_value_info("margin", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, shape)],
    )
    opsets = [helper.make_opsetid("", OPSETS[""])]
    model = helper.make_model(graph, ir_version=IR_VERSION, opset_imports=opsets)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, ["CPUExecutionProvider"]
    )
