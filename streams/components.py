"""What a derived column is measured from: principal components of numbers, the words of texts.

They are fitted once, when a model is trained, and frozen in its reference (see `streams.derived`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streams.derived import (
    COSINE_DISTANCE,
    EMBEDDING_ERROR,
    PCA_ERROR,
    SURPRISE,
    TEXT_LENGTH,
    UNKNOWN_WORDS,
)
from streams.task import MULTIVARIATE, TEXT, DriftPolicy
from streams.texts import WordBook, Words

Floats = NDArray[np.float64]

EXPLAINED = 0.65
"""Share of the variance that the components of a group hold: enough to be a plane, with much left outside."""
MAX_COMPONENTS = 16
"""Of a group or an embedding: a row costs inputs * components multiplications, twice."""
DIGITS = 9
"""Significant digits of what is frozen: the order of the rows and the library's last bits do not show."""


def transforms(
    columns: Mapping[str, NDArray[Any]], kinds: Mapping[str, str], policy: DriftPolicy
) -> list[dict[str, Any]]:
    """Names and transforms (see `ReferenceColumn`) of the derived columns that the policy asks for.

    `columns`: the numbers and texts of the rows to fit to, each (n,); NaN and None are missing.
    """
    made = []
    groups = {name: tuple(members) for name, members in policy.groups.items()}
    if policy.multivariate:
        groups[MULTIVARIATE] = tuple(
            name
            for name, kind in kinds.items()
            if kind == "double" and name in watched(kinds, policy)
        )
    for name, members in groups.items():
        x = np.array([columns[member] for member in members], np.float64)
        made.append(_described(f"{name}.error", PCA_ERROR, members, *_standardised_plane(x)))
    for name, members in policy.embeddings.items():
        x = np.array([columns[member] for member in members], np.float64)
        x = x[:, np.isfinite(x).all(axis=0)]
        center = _mean(x)
        length = float(np.linalg.norm(center)) or 1.0
        made.append(_described(f"{name}.distance", COSINE_DISTANCE, members, center / length))
        plane = center, np.ones(len(x)), _leading(x - center[:, None])
        made.append(_described(f"{name}.error", EMBEDDING_ERROR, members, *plane))
    for name, kind in kinds.items():
        if kind == TEXT:
            made += _of_text(name, columns[name])
    return made


def _of_text(name: str, texts: NDArray[Any]) -> list[dict[str, Any]]:
    book = WordBook.fit(Words.of(texts))
    known, none = book.hashes.tolist(), np.empty(0)
    bits, others = _plain(book.bits), _plain(np.array([book.unknown_bits]))
    return [
        _described(f"{name}.length", TEXT_LENGTH, (name,), none),
        _described(f"{name}.unknown", UNKNOWN_WORDS, (name,), none) | {"center": known},
        _described(f"{name}.surprise", SURPRISE, (name,), none)
        | {"center": known, "scale": bits, "components": others},
    ]


def watched(kinds: Mapping[str, str], policy: DriftPolicy) -> frozenset[str]:
    """Features that have a column of their own: all but texts and the coordinates of embeddings."""
    coordinates = {member for members in policy.embeddings.values() for member in members}
    return frozenset(name for name, kind in kinds.items() if kind != TEXT) - coordinates


def _standardised_plane(x: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean and standard deviation (1 for a constant) of each row of x, and the leading components."""
    x = np.where(np.isfinite(x), x, np.nan)
    there = ~np.isnan(x)
    rows = np.maximum(there.sum(axis=1), 1)
    center = np.where(there, x, 0.0).sum(axis=1) / rows
    z = np.where(there, x - center[:, None], 0.0)
    scale = np.sqrt((z * z).sum(axis=1) / rows)
    scale = np.where(scale > 1e-9 * np.abs(center), scale, 1.0)
    return center, scale, _leading(z / scale[:, None])


def _leading(z: Floats) -> Floats:
    """The leading principal directions (c, d) of centered columns (d, n).

    As few as hold EXPLAINED of the variance, at most MAX_COMPONENTS, and never all: something must be
    left. A direction's largest coordinate is positive, so that it is the same wherever it is computed.
    """
    values, vectors = np.linalg.eigh(z @ z.T)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1].T
    total = float(values.sum())
    share = np.cumsum(values) / total if total > 0 else np.ones(len(values))
    count = min(int(np.searchsorted(share, EXPLAINED)) + 1, MAX_COMPONENTS, max(1, len(z) - 1))
    leading = vectors[:count]
    largest = np.take_along_axis(leading, np.abs(leading).argmax(axis=1)[:, None], axis=1)
    return np.where(largest < 0, -leading, leading)


def _mean(x: Floats) -> Floats:
    return x.mean(axis=1) if x.shape[1] else np.zeros(len(x))


def _described(
    name: str,
    kind: str,
    inputs: tuple[str, ...],
    center: Floats,
    scale: Floats | None = None,
    components: Floats | None = None,
) -> dict[str, Any]:
    return {
        "name": name,
        "transform": kind,
        "inputs": list(inputs),
        "center": _plain(center),
        "scale": [] if scale is None else _plain(scale),
        "components": [] if components is None else _plain(components),
    }


def _plain(values: Floats) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") + 0.0 for value in values.ravel().tolist()]
