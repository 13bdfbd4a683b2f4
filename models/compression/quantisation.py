"""int8 quantisation of networks and transformers by ONNX Runtime, with scales that are fixed in the file.

Dynamic quantisation would take its scales from the batch, so that a row's score depended on its neighbours.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from models.onnx_graph import serialize, with_note
from models.scorer import Scorer

CALIBRATION_ROWS = 512
TRANSFORMER_ROWS = 64
"""Every value of every row is kept for a moment: those of a transformer are many."""


def quantise(data: bytes, matrix: NDArray[np.float32], notes: Mapping[str, str]) -> bytes:
    """Weights and activations of Gemm and Conv as int8; ranges from `matrix`, encoded rows (n, features).

    Of a transformer: what is multiplied by weights, and the vocabulary; attention and head stay as they are.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Rows(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = iter([{"features": matrix[:rows_to_see]}])

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(self._batches, None)

    named, chosen = _named(onnx.load_model_from_string(data))
    rows_to_see = TRANSFORMER_ROWS if chosen else CALIBRATION_ROWS
    with tempfile.TemporaryDirectory(prefix="driftlog-") as folder:
        before, after = Path(folder, "before.onnx"), Path(folder, "after.onnx")
        # Says that nothing is left to be simplified, which ONNX Runtime would warn of.
        before.write_bytes(with_note(named, "onnx.quant.pre_process", "onnxruntime.quant"))
        quantize_static(
            *(before, after, Rows()),
            op_types_to_quantize=["MatMul", "Gather"] if chosen else ["Gemm", "Conv"],
            nodes_to_quantize=chosen,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            per_channel=True,
        )
        made = onnx.load(after)
    encoder = Scorer.from_bytes(data).encoder
    rows = int(next(p.value for p in onnx.load_from_string(data).metadata_props if "rows" in p.key))
    values = [value for value in made.graph.initializer if _used(made, value.name)]
    return serialize([_plain(node) for node in made.graph.node], values, encoder, rows, notes)


def _named(model: onnx.ModelProto) -> tuple[bytes, list[str]]:
    """The file with a name for each node, and the nodes of a transformer that int8 is for; none of others."""
    sizes = {value.name: len(value.dims) for value in model.graph.initializer}
    chosen = []
    for node in model.graph.node:
        node.name = node.output[0]
        weights = [name for name in node.input if sizes.get(name) == 2]
        if weights and weights != ["head_weight"] and node.op_type in ("MatMul", "Gather"):
            chosen.append(node.name)
    data: bytes = model.SerializeToString(deterministic=True)
    return data, chosen


def _used(model: onnx.ModelProto, name: str) -> bool:
    return any(name in node.input for node in model.graph.node)


def _plain(node: onnx.NodeProto) -> onnx.NodeProto:
    given = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    return helper.make_node(node.op_type, list(node.input), list(node.output), **given)
