"""What is touched by what: levels that spread over nodes along edges, forwards or backwards (pure).

A node is a place in an array of its kind. Its level says how surely it is touched; an edge that is an upper
bound passes on no more than AT_MOST. Levels only rise, so the order of the edges makes no difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

NONE, AT_MOST, EXACTLY = 0, 1, 2
Levels = NDArray[np.uint8]
Ints = NDArray[np.int64]


class Edges(Protocol):
    """Edges from nodes of one kind to nodes of another."""

    @property
    def source(self) -> str: ...

    @property
    def target(self) -> str: ...

    def forward(self, levels: Levels, into: Levels) -> None:
        """Raise the targets' levels `into` by their sources'."""

    def backward(self, levels: Levels, into: Levels) -> None:
        """Raise the sources' levels `into` by their targets'."""


@dataclass(frozen=True)
class Pairs:
    """Edge k leads from node `sources[k]` to node `targets[k]`."""

    source: str
    target: str
    sources: Ints
    targets: Ints
    most: int = EXACTLY

    def forward(self, levels: Levels, into: Levels) -> None:
        np.maximum.at(into, self.targets, np.minimum(levels[self.sources], self.most))

    def backward(self, levels: Levels, into: Levels) -> None:
        np.maximum.at(into, self.sources, np.minimum(levels[self.targets], self.most))


@dataclass(frozen=True)
class Spans:
    """An edge, an upper bound, leads from each point to each span of the same key that holds it.

    Source i is a point `at[i]` of key `point_keys[i]` where `there[i]`; target j is the span
    `since[j] <= at < until[j]` of key `span_keys[j]`. So many edges are never listed: they are counted.
    """

    source: str
    target: str
    there: NDArray[np.bool_]
    point_keys: Ints
    at: Ints
    span_keys: Ints
    since: Ints
    until: Ints

    def forward(self, levels: Levels, into: Levels) -> None:
        touched = self.there & (levels > NONE)
        points = np.sort(self._on_one_line(self.point_keys[touched], self.at[touched]))
        first = np.searchsorted(points, self._on_one_line(self.span_keys, self.since))
        last = np.searchsorted(points, self._on_one_line(self.span_keys, self.until))
        np.maximum(into, np.where(last > first, AT_MOST, NONE).astype(np.uint8), out=into)

    def backward(self, levels: Levels, into: Levels) -> None:
        touched = levels > NONE
        keys = self.span_keys[touched]
        begins = np.sort(self._on_one_line(keys, self.since[touched]))
        ends = np.sort(self._on_one_line(keys, self.until[touched]))
        points = self._on_one_line(self.point_keys, self.at)
        begun = np.searchsorted(begins, points, side="right")
        ended = np.searchsorted(ends, points, side="right")
        held = self.there & (begun > ended)
        np.maximum(into, np.where(held, AT_MOST, NONE).astype(np.uint8), out=into)

    def _on_one_line(self, keys: Ints, at: Ints) -> Ints:
        """Each key's points in a stretch of their own."""
        low, high = self._reach
        return keys * (high - low + 1) + (at - low)

    @property
    def _reach(self) -> tuple[int, int]:
        every = [self.at, self.since, self.until]
        low = min((int(values.min()) for values in every if len(values)), default=0)
        high = max((int(values.max()) for values in every if len(values)), default=0)
        return low, high


def spread(
    sizes: Mapping[str, int],
    edges: Sequence[Edges],
    begin: Mapping[str, Sequence[int]],
    back: bool = False,
) -> dict[str, Levels]:
    """Levels of every node of every kind once nothing rises any more.

    `sizes`: nodes of each kind; `begin`: those of each kind that are touched to begin with, EXACTLY.
    """
    levels = {kind: np.zeros(size, np.uint8) for kind, size in sizes.items()}
    for kind, places in begin.items():
        levels[kind][list(places)] = EXACTLY
    order = list(reversed(edges)) if back else list(edges)
    while True:
        before = sum(int(found.sum()) for found in levels.values())
        for edge in order:
            if back:
                edge.backward(levels[edge.target], levels[edge.source])
            else:
                edge.forward(levels[edge.source], levels[edge.target])
        if sum(int(found.sum()) for found in levels.values()) == before:
            return levels
