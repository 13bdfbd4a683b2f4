"""Small neural networks as plain arrays: written as ONNX, read back from it, and changed in between.

A network standardises its inputs, holds them within `LIMIT` standard deviations (an input that the training
never saw must not overflow), counts a missing one as the mean, and may be told which ones are missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from models.encoder import Encoder
from models.onnx_graph import serialize

Singles = NDArray[np.float32]
LIMIT = 10.0
ROWS = 16
"""A matrix product takes another path for one row than for many; from this many on rows do not matter."""
_MARK = "input_"


class NotANetwork(ValueError):
    """A file that `write` did not make; the message says what of it."""


@dataclass(frozen=True, slots=True)
class Dense:
    """`weight` (outputs, inputs), `bias` (outputs,)."""

    weight: Singles
    bias: Singles


@dataclass(frozen=True, slots=True)
class Conv:
    """`weight` (channels out, channels in, height, width), `bias` (channels out,); images keep their size."""

    weight: Singles
    bias: Singles


@dataclass(frozen=True, slots=True)
class Relu:
    """max(x, 0)."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Maximum of each 2 x 2 pixels."""


@dataclass(frozen=True, slots=True)
class Flat:
    """(n, channels, height, width) -> (n, `width`)."""

    width: int


Layer = Dense | Conv | Relu | Pool | Flat


@dataclass(frozen=True, slots=True)
class Network:
    """The last layer gives one margin a row; P(1) is its sigmoid.

    `center`, `scale` (features,): x becomes (x - center) * scale. `image`: (channels, height, width) of the
    features, or None for a vector. `flags`: the layers get one more input a feature, 1 where it is missing.
    """

    center: Singles
    scale: Singles
    layers: tuple[Layer, ...]
    image: tuple[int, int, int] | None = None
    flags: bool = False

    @property
    def parameters(self) -> int:
        """Number of weights and biases."""
        return sum(
            la.weight.size + la.bias.size for la in self.layers if isinstance(la, Dense | Conv)
        )


def standardised(network: Network, matrix: Singles) -> Singles:
    """What the first layer gets of rows (n, features): (n, inputs), or (n, channels, height, width)."""
    missing = np.isnan(matrix)
    x = (np.where(missing, network.center, matrix) - network.center) * network.scale
    x = np.clip(x, -LIMIT, LIMIT).astype(np.float32)
    if network.flags:
        x = np.concatenate([x, missing.astype(np.float32)], axis=1)
    return x.reshape(-1, *network.image) if network.image else x


def write(network: Network, encoder: Encoder, notes: Mapping[str, str] | None = None) -> bytes:
    """The ONNX file; see `models.onnx_graph`."""
    nodes, values = _input(network)
    here = nodes[-1].output[0]
    for index, layer in enumerate(network.layers):
        after = f"layer_{index}"
        nodes.append(_node(layer, here, after))
        values += _values(layer, after)
        here = after
    nodes += [
        helper.make_node("Sigmoid", [here], ["probability"]),
        helper.make_node("Reshape", ["probability", "flat"], ["score"]),
    ]
    values.append(numpy_helper.from_array(np.array([-1], np.int64), "flat"))
    return serialize(nodes, values, encoder, ROWS, notes)


def read(data: bytes) -> Network:
    """The network of a file that `write` made; raises NotANetwork for any other."""
    model = onnx.load_model_from_string(data)
    given = {value.name: numpy_helper.to_array(value) for value in model.graph.initializer}
    if f"{_MARK}center" not in given:
        raise NotANetwork("it is no neural network of recipe mlp or cnn")
    layers = tuple(_layers(model, given))
    image = given.get(f"{_MARK}image")
    return Network(
        given[f"{_MARK}center"],
        given[f"{_MARK}scale"],
        layers,
        None if image is None else (int(image[1]), int(image[2]), int(image[3])),
        any(node.op_type == "Concat" for node in model.graph.node),
    )


def _input(network: Network) -> tuple[list[NodeProto], list[TensorProto]]:
    values = [
        numpy_helper.from_array(np.asarray(array, dtype), _MARK + name)
        for name, array, dtype in (
            ("center", network.center, np.float32),
            ("scale", network.scale, np.float32),
            ("low", -LIMIT, np.float32),
            ("high", LIMIT, np.float32),
        )
    ]
    nodes = [
        helper.make_node("IsNaN", ["features"], ["missing"]),
        helper.make_node("Where", ["missing", "input_center", "features"], ["filled"]),
        helper.make_node("Sub", ["filled", "input_center"], ["centered"]),
        helper.make_node("Mul", ["centered", "input_scale"], ["scaled"]),
        helper.make_node("Clip", ["scaled", "input_low", "input_high"], ["held"]),
    ]
    if network.flags:
        nodes += [
            helper.make_node("Cast", ["missing"], ["flags"], to=TensorProto.FLOAT),
            helper.make_node("Concat", ["held", "flags"], ["flagged"], axis=1),
        ]
    if network.image:
        shape = np.array([-1, *network.image], np.int64)
        values.append(numpy_helper.from_array(shape, "input_image"))
        nodes.append(helper.make_node("Reshape", [nodes[-1].output[0], "input_image"], ["image"]))
    return nodes, values


def _node(layer: Layer, before: str, after: str) -> NodeProto:
    weights = [before, f"{after}_weight", f"{after}_bias"]
    if isinstance(layer, Dense):
        return helper.make_node("Gemm", weights, [after], transB=1)
    if isinstance(layer, Conv):
        side = layer.weight.shape[2] // 2
        return helper.make_node("Conv", weights, [after], pads=[side] * 4)
    if isinstance(layer, Pool):
        return helper.make_node("MaxPool", [before], [after], kernel_shape=[2, 2], strides=[2, 2])
    if isinstance(layer, Flat):
        return helper.make_node("Reshape", [before, f"{after}_shape"], [after])
    return helper.make_node("Relu", [before], [after])


def _values(layer: Layer, name: str) -> list[TensorProto]:
    if isinstance(layer, Flat):
        return [numpy_helper.from_array(np.array([-1, layer.width], np.int64), f"{name}_shape")]
    if isinstance(layer, Dense | Conv):
        pairs = (("weight", layer.weight), ("bias", layer.bias))
        return [numpy_helper.from_array(array, f"{name}_{part}") for part, array in pairs]
    return []


def _layers(model: onnx.ModelProto, given: Mapping[str, NDArray[np.float32]]) -> Iterator[Layer]:
    for node in model.graph.node:
        name = node.output[0]
        if not name.startswith("layer_"):
            continue
        weight, bias = given.get(f"{name}_weight"), given.get(f"{name}_bias")
        if node.op_type in ("Gemm", "Conv") and weight is not None and bias is not None:
            yield (Dense if node.op_type == "Gemm" else Conv)(weight, bias)
        elif node.op_type == "MaxPool":
            yield Pool()
        elif node.op_type == "Reshape":
            yield Flat(int(given[f"{name}_shape"][1]))
        elif node.op_type == "Relu":
            yield Relu()
        else:
            raise NotANetwork(f"its layer {name} is a {node.op_type}")
