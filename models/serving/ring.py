"""Consistent hashing: which node answers a key, the same in every process, moving few keys at a change.

`Ring` is the ring of Karger et al. (1997) with virtual nodes: for replicas, which come and go. `Deal` is a
ring of evenly spaced virtual nodes (Dynamo's "equal-sized partitions", DeCandia et al. 2007), dealt to a
share: for versions, whose shares must be exact, since evidence rests on them.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping
from functools import lru_cache

POINTS = 200
"""Virtual nodes of a node of weight 1: shares are right to about 1 / sqrt(POINTS), 7 %."""
SLOTS = 10_000
_SPACE = 1 << 64


def place(key: str) -> int:
    """Where a key lies on the circle, 0 .. 2^64 - 1."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")


class Ring:
    """Nodes by weight. A node that is added takes about its share of the keys, from all others alike."""

    def __init__(self, weights: Mapping[str, float], points: int = POINTS) -> None:
        """Raises ValueError without a node of positive weight."""
        placed = sorted(
            (place(f"{node}#{number}"), node)
            for node, weight in weights.items()
            for number in range(round(points * weight))
        )
        if not placed:
            raise ValueError("a ring needs a node with a positive weight")
        self._places = [at for at, _ in placed]
        self._nodes = [node for _, node in placed]

    def node(self, key: str) -> str:
        """The owner of the first virtual node after the key."""
        return self._nodes[bisect_right(self._places, place(key)) % len(self._nodes)]

    def shares(self) -> dict[str, float]:
        """The part of the circle that each node owns; together 1."""
        found = dict.fromkeys(self._nodes, 0.0)
        for index, node in enumerate(self._nodes):
            arc = (self._places[index] - self._places[index - 1]) % _SPACE
            found[node] += (arc or _SPACE) / _SPACE
        return found


class Deal:
    """Splits keys between two: `share` of the slots, in an order that `salt` shuffles, is the second's.

    A larger share keeps every key that the smaller one had: nobody is dealt to and fro while a canary grows.
    """

    def __init__(self, salt: str, share: float) -> None:
        self._taken = round(min(max(share, 0.0), 1.0) * SLOTS)
        self._salt = salt
        self._ranks = _ranks(salt)

    def takes(self, key: str) -> bool:
        """Whether the second answers this key."""
        return self._ranks[place(f"{self._salt}|{key}") * SLOTS // _SPACE] < self._taken


@lru_cache(maxsize=8)
def _ranks(salt: str) -> tuple[int, ...]:
    """Rank of each slot: 0 is dealt first."""
    order = sorted(range(SLOTS), key=lambda slot: place(f"{salt}#{slot}"))
    ranks = [0] * SLOTS
    for rank, slot in enumerate(order):
        ranks[slot] = rank
    return tuple(ranks)
