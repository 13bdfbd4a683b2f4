"""ONNX graphs that a converter made, brought into the form of our files: 'features' in, 'score' out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from models.artifacts import ArtifactRefused
from models.encoder import Encoder
from models.onnx_graph import OPSETS, serialize
from models.scorer import Scorer

_PADS = (1, 16, 64)
_SIZES = (1, 2, 3, 17, 63)
_TRY_ROWS = 256


def from_sklearn(model: Any, example: NDArray[np.float32]) -> onnx.ModelProto:
    """The graph of a fitted classifier; raises what skl2onnx raises."""
    from skl2onnx import to_onnx

    final = model[-1] if hasattr(model, "steps") else model
    options = {id(final): {"zipmap": False}}
    graph: onnx.ModelProto = to_onnx(model, example, options=options, target_opset=OPSETS)
    return graph


def adopt(
    graph: onnx.ModelProto, encoder: Encoder, matrix: NDArray[np.float32], notes: Mapping[str, str]
) -> bytes:
    """Our file of a converted classifier whose outputs are (label, probabilities (n, 2)).

    Raises ArtifactRefused if a row's score depends on the rows beside it, or for operators that
    `models.scorer` does not run. `matrix`: encoded rows to try it on.
    """
    nodes, values = _body(graph.graph)
    pick = numpy_helper.from_array(np.array(1, np.int64), "score_column")
    nodes.append(helper.make_node("Gather", ["probabilities", "score_column"], ["score"], axis=1))
    for rows in _PADS:
        data = serialize(nodes, [*values, pick], encoder, rows, notes)
        if alike_in_any_batch(Scorer.from_bytes(data), matrix[:_TRY_ROWS]):
            return data
    raise ArtifactRefused("a row's score depends on the rows that are scored beside it")


def _body(graph: onnx.GraphProto) -> tuple[list[NodeProto], list[onnx.TensorProto]]:
    """Nodes and values behind the probabilities, under names that do not meet ours."""
    wanted = graph.output[-1].name
    renamed = {graph.input[0].name: "features", wanted: "probabilities", "": ""}
    needed, nodes = {wanted}, list[NodeProto]()
    for node in reversed(graph.node):
        if needed.isdisjoint(node.output):
            continue
        needed.update(node.input)
        nodes.insert(0, NodeProto())
        nodes[0].CopyFrom(node)
    for node in nodes:
        for names in (node.input, node.output):
            names[:] = [renamed.get(name, f"part_{name}") for name in names]
    values = []
    for tensor in graph.initializer:
        if tensor.name in needed:
            values.append(onnx.TensorProto())
            values[-1].CopyFrom(tensor)
            values[-1].name = f"part_{tensor.name}"
    return nodes, values


def alike_in_any_batch(scorer: Scorer, matrix: NDArray[np.float32]) -> bool:
    """Whether encoded rows get the same bits however many are scored together."""
    whole = scorer.score_matrix(matrix)
    for size in _SIZES:
        starts = range(0, min(len(matrix), 40 * size), size)
        parts = np.concatenate([scorer.score_matrix(matrix[at : at + size]) for at in starts])
        if parts.tobytes() != whole[: len(parts)].tobytes():
            return False
    return True
