"""BERT as ONNX, from the weights of `transformers`: token numbers in, one margin a row out.

Written by hand, as all graphs of driftlog are: few operators, a fixed length, and no row that looks at
another, so that a text's score is the same to the last bit in every batch. J. Devlin et al.: BERT, 2019;
D. Hendrycks, K. Gimpel: GELU, 2016.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from models.encoder import Encoder
from models.onnx_graph import serialize
from models.recipes.errors import CannotTrain

Singles = NDArray[np.float32]
POOLINGS = ("mean", "cls")
WIDE = 16
"""Copies of a margin: they fill a register, so that its sigmoid does not depend on the rows beside it."""
MASKED = -1e9


@dataclass(frozen=True, slots=True)
class Head:
    """What comes after the encoder: one linear layer over the pooled text and the numbers beside it.

    `place`: the text's columns among the features; `columns` those of the numbers, which become
    (x - center) * scale, held within `limit`, missing ones 0. `weight` (hidden + numbers,), `bias`.
    """

    place: slice
    pad: int
    pooling: str
    columns: Sequence[int]
    center: Singles
    scale: Singles
    limit: float
    weight: Singles
    bias: float


def check(config: Any) -> None:
    """Raises CannotTrain for an encoder that this file cannot write."""
    if config.model_type != "bert" or config.hidden_act != "gelu":
        raise CannotTrain(
            f"an encoder of type {config.model_type!r} with {getattr(config, 'hidden_act', None)!r}:"
            " text_transformer writes BERT with GELU (MiniLM and the like)"
        )
    if getattr(config, "position_embedding_type", "absolute") not in (None, "absolute"):
        raise CannotTrain(f"positions {config.position_embedding_type!r}: only absolute ones")


def write(
    config: Any,
    weights: Mapping[str, Singles],
    head: Head,
    encoder: Encoder,
    rows: int,
    notes: Mapping[str, str],
) -> bytes:
    """The file. `weights`: of transformers' BertModel, by name; `rows`: see `models.onnx_graph.PAD`."""
    graph = _Graph()
    _embedded(graph, config, weights, head)
    here = "embedded"
    for index in range(config.num_hidden_layers):
        here = _layer(graph, config, weights, index, here)
    _headed(graph, config, head, here)
    values = [numpy_helper.from_array(array, name) for name, array in graph.values.items()]
    return serialize(graph.nodes, values, encoder, rows, notes)


@dataclass
class _Graph:
    nodes: list[NodeProto] = field(default_factory=list)
    values: dict[str, NDArray[Any]] = field(default_factory=dict)

    def do(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def value(self, name: str, array: Any, dtype: Any = np.float32) -> str:
        self.values[name] = np.ascontiguousarray(array, dtype)
        return name

    def dense(self, before: str, name: str, weight: Singles, bias: Singles) -> str:
        """(n, length, inputs) by weight (outputs, inputs)."""
        self.do("MatMul", [before, self.value(f"{name}_weight", weight.T)], f"{name}_product")
        return self.do("Add", [f"{name}_product", self.value(f"{name}_bias", bias)], name)

    def normalised(
        self, before: str, name: str, weights: Mapping[str, Singles], key: str, epsilon: float
    ) -> str:
        given = [
            self.value(f"{name}_{part}", weights[f"{key}.{part}"]) for part in ("weight", "bias")
        ]
        return self.do("LayerNormalization", [before, *given], name, axis=-1, epsilon=epsilon)


def _embedded(graph: _Graph, config: Any, weights: Mapping[str, Singles], head: Head) -> None:
    length = head.place.stop - head.place.start
    graph.value("text_begin", [head.place.start], np.int64)
    graph.value("text_end", [head.place.stop], np.int64)
    graph.value("axis", [1], np.int64)
    graph.value("pad", head.pad, np.int64)
    graph.do("Slice", ["features", "text_begin", "text_end", "axis"], "text")
    graph.do("Cast", ["text"], "tokens", to=TensorProto.INT64)
    graph.do("Equal", ["tokens", "pad"], "padding")
    graph.value("mask_shape", [-1, 1, 1, length], np.int64)
    graph.value("masked", MASKED)
    graph.do("Cast", ["padding"], "padding_number", to=TensorProto.FLOAT)
    graph.do("Mul", ["padding_number", "masked"], "mask_flat")
    graph.do("Reshape", ["mask_flat", "mask_shape"], "mask")
    graph.value("vocabulary", weights["embeddings.word_embeddings.weight"])
    places = weights["embeddings.position_embeddings.weight"][:length]
    graph.value("places", places + weights["embeddings.token_type_embeddings.weight"][:1])
    graph.do("Gather", ["vocabulary", "tokens"], "words")
    graph.do("Add", ["words", "places"], "placed")
    epsilon = config.layer_norm_eps
    graph.normalised("placed", "embedded", weights, "embeddings.LayerNorm", epsilon)


def _layer(
    graph: _Graph, config: Any, weights: Mapping[str, Singles], index: int, before: str
) -> str:
    heads, hidden = config.num_attention_heads, config.hidden_size
    size, name, key = hidden // heads, f"layer_{index}", f"encoder.layer.{index}"
    graph.value("split", [0, 0, heads, size], np.int64)
    graph.value("joined", [0, 0, hidden], np.int64)
    graph.value("root", 1 / math.sqrt(size))

    def dense(source: str, part: str, called: str) -> str:
        given = weights[f"{key}.{part}.weight"], weights[f"{key}.{part}.bias"]
        return graph.dense(source, f"{name}_{called}", *given)

    for part, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
        flat = dense(before, f"attention.self.{part}", part)
        graph.do("Reshape", [flat, "split"], f"{flat}_heads")
        graph.do("Transpose", [f"{flat}_heads"], f"{flat}_turned", perm=order)
    graph.do("MatMul", [f"{name}_query_turned", f"{name}_key_turned"], f"{name}_raw")
    graph.do("Mul", [f"{name}_raw", "root"], f"{name}_scaled")
    graph.do("Add", [f"{name}_scaled", "mask"], f"{name}_seen")
    graph.do("Softmax", [f"{name}_seen"], f"{name}_attention", axis=-1)
    graph.do("MatMul", [f"{name}_attention", f"{name}_value_turned"], f"{name}_mixed")
    graph.do("Transpose", [f"{name}_mixed"], f"{name}_mixed_back", perm=[0, 2, 1, 3])
    graph.do("Reshape", [f"{name}_mixed_back", "joined"], f"{name}_context")
    said = dense(f"{name}_context", "attention.output.dense", "said")
    graph.do("Add", [said, before], f"{name}_added")
    epsilon = config.layer_norm_eps
    middle = graph.normalised(
        f"{name}_added", f"{name}_middle", weights, f"{key}.attention.output.LayerNorm", epsilon
    )
    wide = dense(middle, "intermediate.dense", "wide")
    narrow = dense(_gelu(graph, wide), "output.dense", "narrow")
    graph.do("Add", [narrow, middle], f"{name}_sum")
    return graph.normalised(
        f"{name}_sum", f"{name}_out", weights, f"{key}.output.LayerNorm", epsilon
    )


def _gelu(graph: _Graph, x: str) -> str:
    """x * (1 + erf(x / sqrt(2))) / 2."""
    graph.value("root_two", math.sqrt(2))
    graph.value("one", 1.0)
    graph.value("half", 0.5)
    graph.do("Div", [x, "root_two"], f"{x}_over")
    graph.do("Erf", [f"{x}_over"], f"{x}_erf")
    graph.do("Add", [f"{x}_erf", "one"], f"{x}_raised")
    graph.do("Mul", [x, f"{x}_raised"], f"{x}_twice")
    return graph.do("Mul", [f"{x}_twice", "half"], f"{x}_gelu")


def _headed(graph: _Graph, config: Any, head: Head, last: str) -> None:
    """The head's weight times each token's state, then pooled; the numbers' products are added one by one.

    Pooled first, rows would be multiplied all at once, in another order of additions for one than for many.
    """
    length = head.place.stop - head.place.start
    graph.value("first", 0, np.int64)
    graph.value("head_weight", np.repeat(head.weight[: config.hidden_size, None], WIDE, axis=1))
    graph.do("MatMul", [last, "head_weight"], "token_margins")
    if head.pooling == "cls":
        graph.value("alone", [0], np.int64)
        graph.do("Gather", ["token_margins", "alone"], "pooled", axis=1)
    else:
        graph.value("unit", 1.0)
        graph.value("pool_shape", [-1, 1, length], np.int64)
        graph.do("Sub", ["unit", "padding_number"], "there")
        graph.do("ReduceSum", ["there", "axis"], "count")
        graph.do("Div", ["there", "count"], "shares")
        graph.do("Reshape", ["shares", "pool_shape"], "share_row")
        graph.do("MatMul", ["share_row", "token_margins"], "pooled")
    terms = [graph.value("head_bias", [[head.bias]])]
    if head.columns:
        terms += _numbers(graph, config, head)
    graph.value("margin_shape", [-1, 1, 1], np.int64)
    graph.value("flat", [-1], np.int64)
    graph.do("Sum", terms, "rest")
    graph.do("Reshape", ["rest", "margin_shape"], "rest_row")
    graph.do("Add", ["pooled", "rest_row"], "margins")
    graph.do("Sigmoid", ["margins"], "probabilities")
    graph.do("Gather", ["probabilities", "first"], "probability", axis=2)
    graph.do("Reshape", ["probability", "flat"], "score")


def _numbers(graph: _Graph, config: Any, head: Head) -> list[str]:
    """One product (n, 1) a column."""
    parts = [f"number_{index}" for index in range(len(head.columns))]
    graph.value("number_columns", head.columns, np.int64)
    graph.value("number_center", head.center)
    graph.value("number_scale", head.scale)
    graph.value("number_low", -head.limit)
    graph.value("number_high", head.limit)
    graph.value("number_weight", head.weight[config.hidden_size :])
    graph.value("number_sizes", np.ones(len(parts)), np.int64)
    graph.do("Gather", ["features", "number_columns"], "numbers", axis=1)
    graph.do("IsNaN", ["numbers"], "missing")
    graph.do("Where", ["missing", "number_center", "numbers"], "filled")
    graph.do("Sub", ["filled", "number_center"], "centered")
    graph.do("Mul", ["centered", "number_scale"], "number_scaled")
    graph.do("Clip", ["number_scaled", "number_low", "number_high"], "number_held")
    graph.do("Mul", ["number_held", "number_weight"], "number_products")
    given = ["number_products", "number_sizes"]
    graph.nodes.append(helper.make_node("Split", given, parts, axis=1))
    return parts
