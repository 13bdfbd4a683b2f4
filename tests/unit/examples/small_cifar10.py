"""A small folder in the form of CIFAR-10's binary version: classes told by colour and texture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from examples.cifar10 import ANIMALS
from examples.cifar10_files import FILES, SIDE


def write_folder(folder: Path, rows_each: int = 100, seed: int = 4) -> Path:
    """`rows_each` rows in each of the six files."""
    folder.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(seed)
    for name in FILES:
        classes = chance.integers(0, 10, rows_each).astype(np.uint8)
        rows = np.empty((rows_each, 3073), np.uint8)
        rows[:, 0] = classes
        for row, class_ in enumerate(classes):
            rows[row, 1:] = image(int(class_), chance).ravel()
        (folder / name).write_bytes(rows.tobytes())
    return folder


def image(class_: int, chance: np.random.Generator) -> NDArray[np.uint8]:
    """(3, 32, 32): animals are reddish with stripes across, vehicles bluish with stripes upright.

    Each class has a width of stripes of its own. Stripes and brightness lie elsewhere in each image, so that
    no pixel by itself tells much.
    """
    animal = class_ in ANIMALS
    place = np.arange(SIDE) + chance.integers(0, 8)
    wave = 40 * np.sign(np.sin(2 * np.pi * place / (4 + class_ % 4)))
    texture = np.repeat(wave[:, None], SIDE, 1) if animal else np.repeat(wave[None], SIDE, 0)
    tint = np.array([20, 0, -20]) if animal else np.array([-20, 0, 20])
    light = chance.uniform(80, 170)
    made = light + texture + tint[:, None, None] + chance.normal(0, 25, (3, SIDE, SIDE))
    return np.clip(np.round(made), 0, 255).astype(np.uint8)
