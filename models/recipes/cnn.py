"""A convolutional network for small images whose pixels are the task's features (PyTorch, extra `deep`)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import network, onnx_graph
from models.dataset import Dataset
from models.recipes import transfer
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

Image = tuple[int, int, int]
"""(colours, height, width)."""


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
    pretrained: str = "",
    pretrained_sha256: str = "",
    reuse: str = transfer.CONVOLUTIONS,
    freeze: int | str = 0,
    *,
    checkpoints: Path | None = None,
    targets: NDArray[np.float64] | None = None,
) -> bytes:
    """Convolutions of 3 x 3 with `channels`, each halved by maximum pooling, then a dense layer.

    The features are the pixels, row by row, of an image of `shape`: (height, width), or (colours, height,
    width), one colour after the other; without it, of a square one. All pixels of a colour are standardised
    alike; a missing one counts as the mean. `targets`: as of `mlp`.
    `pretrained` (see `models.recipes.transfer`): a network to start from; `reuse`: its 'convolutions', or
    'all' of it. `freeze`: its convolutions learn nothing in so many epochs, or 'always'.
    """
    image = _image(task, shape, channels)
    plan = Plan(
        *(seed, epochs, batch, learning_rate, weight_decay, focal, class_weight, validation_share),
        frozen_epochs=transfer.frozen_epochs(freeze, epochs, pretrained),
    )
    together = Parallel.of(parallel, processes)
    with reproducible(seed) as torch:
        encoder, matrix = encode(task, rows, seed, 1.0)
        center, scale = _moments(matrix, image)
        module = _module(torch, image, channels, hidden, dropout)
        notes = {}
        if pretrained:
            start = transfer.start(pretrained, pretrained_sha256)
            transfer.adopt(torch, module, start, reuse, channels)
            plan = replace(plan, start=start.sha256)
            notes = {onnx_graph.WEIGHTS: start.source}
            if start.center is not None and start.scale is not None:
                # What the convolutions have learned, they have learned of inputs of this scale.
                center, scale = _spread(start.center, image), _spread(start.scale, image)
        x = network.standardised(network.Network(center, scale, (), image), matrix)
        labels = rows.labels if targets is None else targets
        curves = train(module, x, labels, plan, checkpoints, parallel=together)
        made = network.Network(center, scale, tuple(layers(module)), image)
        data = network.write(made, encoder, {onnx_graph.CURVES: json.dumps(curves), **notes})
        check_parity(
            *(data, rows, encoder),
            lambda v: probabilities(module, network.standardised(made, v.astype(np.float32))),
        )
    return data


def _module(torch: Any, image: Image, channels: Sequence[int], hidden: int, dropout: float) -> Any:
    nn, (before, height, width) = torch.nn, image
    parts = []
    for after in channels:
        parts += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        before, height, width = after, height // 2, width // 2
    parts += [nn.Flatten(), nn.Linear(before * height * width, hidden), nn.ReLU()]
    parts += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*parts, nn.Linear(hidden, 1))


def _moments(matrix: network.Singles, image: Image) -> tuple[network.Singles, network.Singles]:
    """(features,) each: mean of each colour, and one over its standard deviation; 0 if it never changes."""
    centers, scales = [], []
    for colour in np.split(matrix, image[0], axis=1):
        known = colour[~np.isnan(colour)].astype(np.float64)
        spread = float(known.std()) if len(known) else 0.0
        centers.append(known.mean() if len(known) else 0.0)
        scales.append(1 / spread if spread > 0 else 0.0)
    return _spread(np.array(centers), image), _spread(np.array(scales), image)


def _spread(by_colour: NDArray[Any], image: Image) -> network.Singles:
    return np.repeat(by_colour, image[1] * image[2]).astype(np.float32)


def _image(task: Task, shape: Sequence[int], channels: Sequence[int]) -> Image:
    """(colours, height, width); raises CannotTrain if the features are no such image."""
    texts = [name for name, kind in task.vector.items() if kind != "double"]
    if texts:
        raise CannotTrain(f"recipe cnn reads pixels, but {texts[0]!r} is no number")
    pixels = len(task.vector)
    side = math.isqrt(pixels)
    sizes = tuple(shape) or (side, side)
    image = (1, *sizes) if len(sizes) == 2 else sizes
    told = " x ".join(map(str, sizes))
    if len(image) != 3 or min(image) < 1 or math.prod(image) != pixels:
        raise CannotTrain(
            f"{pixels} features are no image of {told} pixels: say shape=(height, width)"
            " or (colours, height, width)"
        )
    colours, height, width = image
    if not channels or min(channels) < 1 or min(height, width) < 2 ** len(channels):
        raise CannotTrain(
            f"an image of {height} x {width} cannot be halved {len(channels)} times: channels="
        )
    return colours, height, width
