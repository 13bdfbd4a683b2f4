"""A convolutional network for small images whose pixels are the task's features (PyTorch, extra `deep`)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import network, onnx_graph
from models.dataset import Dataset
from models.recipes.contract import CannotTrain, check_parity
from models.recipes.encoding import encode
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


def cnn(
    task: Task,
    rows: Dataset,
    seed: int,
    shape: Sequence[int] = (),
    channels: Sequence[int] = (16, 32),
    hidden: int = 64,
    epochs: int = 15,
    batch: int = 64,
    learning_rate: float = 0.003,
    weight_decay: float = 0.01,
    dropout: float = 0.0,
    focal: float = 0.0,
    class_weight: ClassWeight = None,
    validation_share: float = 0.1,
    parallel: str | None = None,
    processes: int = 2,
    *,
    checkpoints: Path | None = None,
    targets: NDArray[np.float64] | None = None,
) -> bytes:
    """Convolutions of 3 x 3 with `channels`, each halved by maximum pooling, then a dense layer.

    The features are the pixels, row by row, of an image of `shape` (height, width); without it, of a
    square one. All pixels are standardised alike; a missing one counts as the mean. `targets`: as of `mlp`.
    """
    width = len(task.vector)
    side = math.isqrt(width)
    height, breadth = tuple(shape) or (side, side)
    _check(task, (height, breadth), channels)
    plan = Plan(
        seed, epochs, batch, learning_rate, weight_decay, focal, class_weight, validation_share
    )
    together = Parallel.of(parallel, processes)
    with reproducible(seed) as torch:
        encoder, matrix = encode(task, rows, seed, 1.0)
        known = matrix[~np.isnan(matrix)].astype(np.float64)
        spread = float(known.std()) if len(known) else 0.0
        center = np.full(width, known.mean() if len(known) else 0.0, np.float32)
        scale = np.full(width, 1 / spread if spread > 0 else 0.0, np.float32)
        bare = network.Network(center, scale, (), (height, breadth))
        module = _module(torch, (height, breadth), channels, hidden, dropout)
        x = network.standardised(bare, matrix)
        labels = rows.labels if targets is None else targets
        curves = train(module, x, labels, plan, checkpoints, parallel=together)
        made = network.Network(center, scale, tuple(layers(module)), (height, breadth))
        data = network.write(made, encoder, {onnx_graph.CURVES: json.dumps(curves)})
        check_parity(
            *(data, rows, encoder),
            lambda v: probabilities(module, network.standardised(made, v.astype(np.float32))),
        )
    return data


def _module(
    torch: Any, image: tuple[int, int], channels: Sequence[int], hidden: int, dropout: float
) -> Any:
    nn, before, (height, width) = torch.nn, 1, image
    parts = []
    for after in channels:
        parts += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        before, height, width = after, height // 2, width // 2
    parts += [nn.Flatten(), nn.Linear(before * height * width, hidden), nn.ReLU()]
    parts += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*parts, nn.Linear(hidden, 1))


def _check(task: Task, image: tuple[int, int], channels: Sequence[int]) -> None:
    texts = [name for name, kind in task.vector.items() if kind != "double"]
    if texts:
        raise CannotTrain(f"recipe cnn reads pixels, but {texts[0]!r} is no number")
    pixels = len(task.vector)
    if image[0] * image[1] != pixels:
        raise CannotTrain(
            f"{pixels} features are no image of {image[0]} x {image[1]} pixels: say shape=(height, width)"
        )
    if not channels or min(image) < 2 ** len(channels):
        raise CannotTrain(
            f"an image of {image[0]} x {image[1]} cannot be halved {len(channels)} times: channels="
        )
