"""A multilayer perceptron for tables (PyTorch, extra `deep`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models import network, onnx_graph
from models.dataset import Dataset
from models.recipes.contract import check_parity
from models.recipes.encoding import encode
from models.recipes.errors import CannotTrain
from models.recipes.losses import ClassWeight
from models.recipes.torch_training import (
    Parallel,
    Plan,
    layers,
    probabilities,
    reproducible,
    train,
)
from streams.task import Task


def mlp(
    task: Task,
    rows: Dataset,
    seed: int,
    hidden: Sequence[int] = (64, 32),
    epochs: int = 30,
    batch: int = 128,
    learning_rate: float = 0.003,
    weight_decay: float = 0.01,
    dropout: float = 0.0,
    focal: float = 0.0,
    class_weight: ClassWeight = None,
    validation_share: float = 0.1,
    category_smoothing: float = 50.0,
    parallel: str | None = None,
    processes: int = 2,
    *,
    checkpoints: Path | None = None,
    targets: NDArray[np.float64] | None = None,
) -> bytes:
    """Dense layers of `hidden` widths with ReLU over standardised numbers and flags for missing ones.

    AdamW; the epoch is kept that is best on the newest `validation_share` of the rows. `targets` (n,):
    learned instead of the labels, as from a teacher.
    """
    if not hidden or min(hidden) < 1:
        raise CannotTrain(f"hidden={hidden!r}: say the width of each hidden layer, e.g. (64, 32)")
    plan = Plan(
        seed, epochs, batch, learning_rate, weight_decay, focal, class_weight, validation_share
    )
    together = Parallel.of(parallel, processes)
    with reproducible(seed) as torch:
        encoder, matrix = encode(task, rows, seed, category_smoothing)
        center, scale = moments(matrix)
        bare = network.Network(center, scale, (), flags=True)
        nn, width = torch.nn, 2 * matrix.shape[1]
        parts = []
        for size in hidden:
            parts += [nn.Linear(width, size), nn.ReLU()]
            parts += [nn.Dropout(dropout)] if dropout else []
            width = size
        module = nn.Sequential(*parts, nn.Linear(width, 1))
        x = network.standardised(bare, matrix)
        labels = rows.labels if targets is None else targets
        curves = train(module, x, labels, plan, checkpoints, parallel=together)
        made = network.Network(center, scale, tuple(layers(module)), flags=True)
        data = network.write(made, encoder, {onnx_graph.CURVES: json.dumps(curves)})
        check_parity(
            *(data, rows, encoder),
            lambda v: probabilities(module, network.standardised(made, v.astype(np.float32))),
        )
    return data


def moments(matrix: network.Singles) -> tuple[network.Singles, network.Singles]:
    """Mean of each column and one over its standard deviation; 0 for a column that never changes."""
    known = ~np.isnan(matrix)
    count = np.maximum(known.sum(axis=0), 1)
    x = matrix.astype(np.float64)
    center = np.where(known, x, 0.0).sum(axis=0) / count
    spread = np.sqrt((np.where(known, x - center, 0.0) ** 2).sum(axis=0) / count)
    # A spread that single precision cannot tell from 0 next to the mean is rounding.
    steady = spread <= 1e-6 * np.maximum(np.abs(center), 1e-30)
    scale = np.where(steady, 0.0, 1 / np.where(steady, 1.0, spread))
    largest = float(np.finfo(np.float32).max)
    return center.astype(np.float32), np.minimum(scale, largest).astype(np.float32)
