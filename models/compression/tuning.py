"""What is left of a pruned network learns again to say what the whole one said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.network import Conv, Dense, Flat, Network, Pool, Relu, standardised
from models.recipes.torch_training import Plan, layers, reproducible, train

EPOCHS = 8


def tune(
    network: Network, matrix: NDArray[np.float32], targets: NDArray[np.float64], seed: int
) -> Network:
    """The network after a few epochs on encoded rows (n, features) and the original's scores of them.

    Raises CannotTrain without PyTorch.
    """
    with reproducible(seed) as torch:
        module = _module(torch, network)
        plan = Plan(seed, EPOCHS, 64, 0.002, 0.0, 0.0, None, 0.0)
        train(module, standardised(network, matrix), targets, plan, None)
        return replace(network, layers=tuple(layers(module)))


def _module(torch: Any, network: Network) -> Any:
    nn, parts = torch.nn, []
    for layer in network.layers:
        if isinstance(layer, Dense):
            parts.append(nn.Linear(layer.weight.shape[1], layer.weight.shape[0]))
        elif isinstance(layer, Conv):
            outputs, inputs, side, _ = layer.weight.shape
            parts.append(nn.Conv2d(inputs, outputs, side, padding=side // 2))
        elif isinstance(layer, Relu):
            parts.append(nn.ReLU())
            continue
        elif isinstance(layer, Pool):
            parts.append(nn.MaxPool2d(2))
            continue
        elif isinstance(layer, Flat):
            parts.append(nn.Flatten())
            continue
        with torch.no_grad():
            parts[-1].weight.copy_(torch.from_numpy(layer.weight.copy()))
            parts[-1].bias.copy_(torch.from_numpy(layer.bias.copy()))
    return nn.Sequential(*parts)
