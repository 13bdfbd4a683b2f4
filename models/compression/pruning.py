"""Magnitude pruning of whole units: what is gone costs neither bytes nor time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.network import Conv, Dense, Flat, Layer, Network, Singles


def prune(network: Network, share: float) -> Network:
    """Leave out `share` of each hidden layer's units (of a convolution: channels), the weakest ones.

    A unit counts as much as its incoming weights are long (L2 norm; Li et al. 2017 for channels). At
    least one unit stays.
    """
    layers = list(network.layers)
    hidden = [i for i, layer in enumerate(layers) if isinstance(layer, Dense | Conv)][:-1]
    for index in hidden:
        layer = layers[index]
        assert isinstance(layer, Dense | Conv)
        strength = np.sqrt((layer.weight.reshape(len(layer.weight), -1) ** 2).sum(axis=1))
        count = max(1, len(strength) - math.floor(share * len(strength)))
        # Of equally strong units the first stay; those that stay keep their order.
        kept = np.sort(np.argsort(-strength, kind="stable")[:count])
        layers[index] = type(layer)(layer.weight[kept], layer.bias[kept])
        _narrow(layers, index, kept, len(strength))
    return replace(network, layers=tuple(layers))


def _narrow(layers: list[Layer], index: int, kept: NDArray[np.int64], before: int) -> None:
    """Take the inputs of the units that are gone from the next layer with weights."""
    for place in range(index + 1, len(layers)):
        layer = layers[place]
        if isinstance(layer, Flat):
            layers[place] = Flat(layer.width // before * len(kept))
        elif isinstance(layer, Conv):
            layers[place] = Conv(np.ascontiguousarray(layer.weight[:, kept]), layer.bias)
            return
        elif isinstance(layer, Dense):
            layers[place] = Dense(_columns(layer.weight, kept, before), layer.bias)
            return


def _columns(weight: Singles, kept: NDArray[np.int64], before: int) -> Singles:
    """Of a dense layer behind `before` units or channels, each of which has as many inputs."""
    each = weight.reshape(len(weight), before, -1)[:, kept]
    return np.ascontiguousarray(each.reshape(len(weight), -1))


def hidden_widths(layers: Sequence[Layer]) -> list[int]:
    """Units (channels) of each hidden layer."""
    return [len(la.bias) for la in layers if isinstance(la, Dense | Conv)][:-1]
