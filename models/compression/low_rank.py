"""Low-rank factorisation of dense layers by their singular values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from models.network import Dense, Layer, Network


def factorise(network: Network, energy: float) -> Network:
    """Write W as a product of two thin matrices where that takes fewer weights.

    The rank is the least that keeps `energy` (0..1) of the sum of squared singular values, which is the
    best approximation of that rank (Eckart, Young 1936).
    """
    layers: list[Layer] = []
    for layer in network.layers:
        layers += _split(layer, energy) if isinstance(layer, Dense) else [layer]
    return replace(network, layers=tuple(layers))


def _split(layer: Dense, energy: float) -> list[Layer]:
    outputs, inputs = layer.weight.shape
    u, s, v = np.linalg.svd(layer.weight.astype(np.float64), full_matrices=False)
    kept = np.cumsum(s**2)
    rank = int(np.searchsorted(kept, energy * kept[-1])) + 1
    if rank * (outputs + inputs) >= outputs * inputs or rank > len(s):
        return [layer]
    first = Dense(v[:rank].astype(np.float32), np.zeros(rank, np.float32))
    return [first, Dense((u[:, :rank] * s[:rank]).astype(np.float32), layer.bias)]
