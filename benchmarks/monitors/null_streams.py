"""Streams in which nothing ever drifts, of the kinds that mislead monitors: skewed, rare, seasonal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streams.task import DriftPolicy

Array = NDArray[Any]

POLICY = DriftPolicy(
    min_psi=0.0,  # the least PSI that matters would hide what chance does
    min_rows=50,
    multivariate=True,
    embeddings={"text": tuple(f"text_{i}" for i in range(6))},
)
LEVELS = np.array([f"level-{i:03d}" for i in range(120)], object)
RARE = 1 / np.arange(1, 121) ** 1.3
SECTORS = np.array([f"sector-{i:02d}" for i in range(16)], object)
ZIPF = 1 / np.arange(1, 17)
WEEK = 7
"""Windows in a season."""
MISSING = 0.03
KINDS: dict[str, str] = {
    "normal": "double",
    "skewed": "double",
    "heavy_tails": "double",
    "mostly_zero": "double",
    "constant": "double",
    "weather": "double",
    "weekly": "double",
    "sector": "string",
    "rare_levels": "string",
    **dict.fromkeys(POLICY.embeddings["text"], "double"),
}
SCORES = {
    "usual": (2.0, 5.0),
    "rare positives": (0.4, 20.0),
    "sure of itself": (0.3, 0.3),
}
"""Beta distributions of honest scores."""


@dataclass(frozen=True)
class Stream:
    """Rows of windows one after the other, `n` each. `texts[name]`: category of each code."""

    columns: dict[str, Array]
    scores: Array
    labels: Array
    windows: Array


def draw(rng: np.random.Generator, n: int, windows: int, beta: tuple[float, float]) -> Stream:
    """Columns of `KINDS`, honest scores and their labels; categories are numbers of their level."""
    rows = n * windows
    window = np.repeat(np.arange(windows), n)
    mostly_zero = np.where(rng.random(rows) < 0.7, 0.0, rng.exponential(size=rows))
    mostly_zero[rng.random(rows) < MISSING] = np.nan
    base = rng.normal(size=(2, rows))
    text = rng.normal(size=(6, 2)) @ base + rng.normal(size=(6, rows)) + 1.0
    scores = rng.beta(*beta, rows).clip(0.001, 0.999)
    phase = rng.uniform(0, 2 * np.pi)
    season = np.sin(2 * np.pi * np.arange(windows) / WEEK + phase)
    columns = {
        "normal": rng.normal(size=rows),
        "skewed": rng.lognormal(0, 1.5, rows),
        "heavy_tails": rng.standard_t(1.5, rows),
        "mostly_zero": mostly_zero,
        "constant": np.full(rows, 4.25),
        "weather": wandering(rng, windows)[window] + rng.normal(0, 1.0, rows),
        "weekly": season[window] + rng.normal(0, 1.0, rows),
        "sector": choice(rng, ZIPF, rows),
        "rare_levels": choice(rng, RARE, rows),
        **dict(zip(POLICY.embeddings["text"], text, strict=True)),
    }
    labels = (rng.random(rows) < scores).astype(np.int64)
    return Stream(columns, scores, labels, window)


def wandering(rng: np.random.Generator, windows: int) -> Array:
    """Level of each window: stationary AR(1), as far apart as a third of the rows' own spread."""
    levels = np.empty(windows)
    levels[0] = rng.normal()
    for at in range(1, windows):
        levels[at] = 0.5 * levels[at - 1] + np.sqrt(0.75) * rng.normal()
    return levels / 3


def choice(rng: np.random.Generator, weights: Array, rows: int) -> Array:
    """Codes by weight, int32."""
    edges = np.cumsum(weights / weights.sum())
    return np.minimum(np.searchsorted(edges, rng.random(rows)), len(weights) - 1).astype(np.int32)


def texts_of(name: str) -> Array:
    return SECTORS if name == "sector" else LEVELS
