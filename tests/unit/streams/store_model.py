"""Random work for a store, and the plain dict that it must agree with."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from streams.store import Store, Tree
from streams.store.hits import Keys, Values

VALUE = np.dtype([("time", "<i8"), ("number", "<i8")])
Model = dict[int, tuple[int, int]]
KEYS = 400
"""Few, so that many are met again."""


def keys_of(numbers: list[int]) -> Keys:
    """A fixed 128-bit key for each number."""
    low = np.array(numbers, np.uint64)
    return np.stack((low * np.uint64(0x9E3779B97F4A7C15), low), axis=1)


def values_of(values: list[tuple[int, int]]) -> Values:
    return np.array(values, VALUE)


def open_tree(folder: Path, upto: int | None = None) -> Tree:
    """The smallest memtable there is: a few dozen rows."""
    return Tree(folder, VALUE, "time", memory_bytes=0, upto=upto)


def step(store: Store, model: Model, rng: random.Random) -> None:
    """One random call, on both."""
    what = rng.random()
    if what < 0.7:
        numbers = [rng.randrange(KEYS) for _ in range(rng.randint(0, 30))]
        values = [(rng.randrange(1_000), rng.randrange(-5, 5)) for _ in numbers]
        store.put(keys_of(numbers), values_of(values))
        model.update(zip(numbers, values, strict=True))
    elif what < 0.95:
        numbers = [rng.randrange(KEYS) for _ in range(rng.randint(0, 30))]
        hits = store.get(keys_of(numbers))
        assert hits.found.tolist() == [number in model for number in numbers]
        store.remove(hits.places)
        for number in numbers:
            model.pop(number, None)
    else:
        before = rng.randrange(500)
        old = [number for number, (time, _) in model.items() if time < before]
        assert store.expire(before) == len(old)
        for number in old:
            del model[number]


def contents(store: Store) -> Model:
    """All that the store says: by a scan, and the same by key."""
    found: Model = {}
    rows = 0
    for keys, values in store.scan():
        found |= zip(keys[:, 1].tolist(), values.tolist(), strict=True)
        rows += len(keys)
    assert len(found) == rows == len(store)
    hits = store.get(keys_of(list(range(KEYS))))
    by_key = {n: hits.values[n].item() for n in range(KEYS) if hits.found[n]}
    assert by_key == found
    return found
