"""Sums over trees and linear margins: the bits of the reference, on every device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kernels
from kernels.cpu import models as cpu
from kernels.gpu import models as gpu
from kernels.gpu.emulator import Emulator
from kernels.gpu.runtime import Runtime
from kernels.reference import models as reference


def tree(
    rng: np.random.Generator, splits: int, features: int, width: int, first: int = 0
) -> kernels.Tree:
    """A random tree: leaves are split one by one, so that children lie anywhere."""
    left, right = [-1], [-1]
    for _ in range(splits):
        leaf = int(rng.choice([i for i, child in enumerate(left) if child < 0]))
        left[leaf], right[leaf] = len(left), len(left) + 1
        left += [-1, -1]
        right += [-1, -1]
    n = len(left)
    return kernels.Tree(
        feature=rng.integers(0, features, n),
        threshold=rng.choice([-1.0, -0.25, 0.0, 0.1, 1.0, np.inf], n),
        missing_left=rng.random(n) < 0.5,
        left=np.array(left),
        right=np.array(right),
        value=rng.normal(size=(n, width)),
        first=first,
    )


def rows(n: int, features: int, dtype: Any) -> np.ndarray:
    rng = np.random.default_rng(n)
    x = rng.choice(
        [-1.0, -0.25, 0.0, 0.1, 1.0, np.nan, np.inf, -np.inf, 1e-45, -7.5], (n, features)
    )
    return x.astype(dtype)


@pytest.mark.parametrize("x_type", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("dtype", "outputs", "width", "base_last"),
    [
        (np.float32, 1, 1, True),
        (np.float64, 1, 1, False),
        (np.float64, 3, 1, False),
        (np.float64, 4, 4, True),
    ],
)
@pytest.mark.parametrize("features", [3, 200])
def test_trees_add_up_to_the_same_bits(
    runtime: Runtime,
    x_type: Any,
    dtype: Any,
    outputs: int,
    width: int,
    base_last: bool,
    features: int,
) -> None:
    rng = np.random.default_rng(outputs)
    trees = [
        tree(rng, splits, features, width, i % (outputs - width + 1))
        for i, splits in enumerate([0, 1, 5, 30, 2])
    ]
    made = kernels.ensemble(trees, rng.normal(size=outputs), features, dtype, base_last=base_last)
    x = rows(150, features, x_type)
    want = reference.trees_sum(*made.arrays(), x, base_last=base_last)
    nodes, *rest = made.arrays()
    sent = [runtime.send(gpu.node_records(nodes)), *map(runtime.send, (*rest, x))]
    found = gpu.trees_sum(runtime, *sent, base_last=base_last).get()
    assert found.dtype == dtype and found.tobytes() == want.tobytes()
    assert cpu.trees_sum(*made.arrays(), x, base_last=base_last).tobytes() == want.tobytes()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 300), st.integers(0, 6), st.integers(1, 9), st.integers(0, 99))
def test_any_ensemble_on_any_device(n: int, trees: int, features: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    grown = [tree(rng, int(rng.integers(0, 20)), features, 1) for _ in range(trees)]
    made = kernels.ensemble(grown, [0.5], features, np.float64)
    x = rows(n, features, np.float64)
    mine = kernels.trees_sum(made, x)
    try:
        kernels.use(kernels.Device(Emulator(), "emulator", otherwise=1))
        theirs = kernels.trees_sum(made, x)
    finally:
        kernels.use(None)
    assert mine.shape == (n, 1) and mine.tobytes() == theirs.tobytes()
    assert mine.tobytes() == reference.trees_sum(*made.arrays(), x).tobytes()


@pytest.mark.parametrize("features", [1, 9, 32, 300])
def test_linear_margins_have_the_same_bits(runtime: Runtime, features: int) -> None:
    rng = np.random.default_rng(features)
    center, weight = rng.normal(size=(2, features)).astype(np.float32)
    x = rng.normal(size=(333, features)).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = np.nan
    want = reference.linear_margins(center, weight, np.float32(0.3), x)
    sent = map(runtime.send, (x, center, weight))
    assert gpu.linear_margins(runtime, *sent, 0.3).get().tobytes() == want.tobytes()
    model = kernels.LinearModel(center, weight, 0.3)
    assert kernels.linear_margins(model, x).tobytes() == want.tobytes()


def test_a_memory_that_holds_a_part_of_the_rows() -> None:
    rng = np.random.default_rng(0)
    made = kernels.ensemble([tree(rng, 9, 4, 1)], [0.0], 4, np.float32)
    x = rows(5000, 4, np.float32)
    want = kernels.trees_sum(made, x)
    device = kernels.Device(Emulator(memory=30_000), "emulator", otherwise=1)
    kernels.use(device)
    try:
        assert np.array_equal(kernels.trees_sum(made, x), want) and kernels.in_use() is device
    finally:
        kernels.use(None)


def test_broken_trees_are_refused() -> None:
    rng = np.random.default_rng(0)
    good = tree(rng, 3, 2, 1)
    with pytest.raises(ValueError, match="a split on feature"):
        kernels.ensemble([good], [0.0], 1, np.float32)
    with pytest.raises(ValueError, match="outputs 0 \\+ 1 of 0"):
        kernels.ensemble([good], [], 2, np.float32)
    loop = np.where(good.left >= 0, 0, -1)
    with pytest.raises(ValueError, match="more than one parent"):
        kernels.ensemble(
            [kernels.Tree(good.feature, good.threshold, good.missing_left, loop, loop, good.value)],
            *([0.0], 2, np.float32),
        )
    with pytest.raises(ValueError, match="reads 2 features"):
        kernels.trees_sum(kernels.ensemble([good], [0.0], 2, np.float32), rows(3, 4, np.float32))
