"""The int8 linear layer: integers are exact, so every path gives the same bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kernels
from kernels.cpu import quantised as cpu
from kernels.gpu import linear_int8 as gpu
from kernels.gpu.runtime import Runtime
from kernels.reference import quantised as reference


def layer(n: int, k: int, seed: int = 0) -> kernels.Int8Linear:
    rng = np.random.default_rng(seed)
    return kernels.quantised(rng.normal(size=(n, k)).astype("f4"), rng.normal(size=n))


def rows(m: int, k: int) -> np.ndarray:
    return np.random.default_rng(m).normal(size=(m, k)).astype(np.float32)


def want(x: np.ndarray, made: kernels.Int8Linear) -> np.ndarray:
    return reference.linear(*reference.quantise_rows(x), made.weight, made.scale, made.bias)


@pytest.mark.parametrize("step", gpu.STEPS)
@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (70, 66, 100), (130, 140, 300)])
def test_both_kernels_give_the_bits_of_the_reference(
    runtime: Runtime, step: str, m: int, n: int, k: int
) -> None:
    x, made = rows(m, k), layer(n, k)
    stride = -(-k // 16) * 16
    data, scales = gpu.quantise_rows(runtime, runtime.send(x), stride)
    exact, steps = reference.quantise_rows(x)
    assert np.array_equal(data.get()[:, :k], exact) and not data.get()[:, k:].any()
    assert np.array_equal(scales.get(), steps)
    weight = np.zeros((n, stride), np.int8)
    weight[:, :k] = made.weight
    sent = map(runtime.send, (weight, made.scale, made.bias))
    found = gpu.linear(runtime, data, scales, *sent, step)
    assert np.array_equal(found.get(), want(x, made))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 20), st.integers(1, 20), st.integers(0, 3000))
def test_the_processor_gives_the_bits_of_the_reference(m: int, n: int, k: int) -> None:
    x, made = rows(m, k), layer(n, k)
    assert np.array_equal(kernels.linear_int8(x, made), want(x, made))


def test_the_largest_sums_are_exact() -> None:
    x = np.full((2, 5000), 127, np.int8)
    scale, bias = np.ones(2, np.float32), np.zeros(2, np.float32)
    found = cpu.linear(x, scale, x, scale, bias)
    assert np.array_equal(found, np.full((2, 2), np.float32(5000 * 127**2)))


def test_the_result_is_near_the_unquantised_one(in_use: kernels.Device) -> None:
    x, w = rows(30, 256), rows(40, 256)
    found = kernels.linear_int8(x, kernels.quantised(w))
    exact = x @ w.T
    assert np.abs(found - exact).max() < 0.02 * np.abs(exact).max()
    assert np.array_equal(found, want(x, kernels.quantised(w)))


def test_special_rows(runtime: Runtime) -> None:
    x = np.zeros((5, 40), np.float32)
    x[1, 3], x[2, 3] = np.nan, -np.inf
    x[3] = 3e38
    x[4, :2] = 1e-45, 1e-40
    data, scales = gpu.quantise_rows(runtime, runtime.send(x), 48)
    exact, steps = reference.quantise_rows(x)
    assert np.array_equal(data.get()[:, :40], exact)
    assert np.array_equal(scales.get(), steps, equal_nan=True)
    assert steps[0] == 0 and np.isnan(steps[1:3]).all() and (exact[3] == 127).all()


def test_what_cannot_be_quantised_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        kernels.quantised(np.array([[1.0, np.nan]], np.float32))
    with pytest.raises(ValueError, match="a bias of the shape"):
        kernels.quantised(np.ones((2, 3), np.float32), np.ones(3))
    with pytest.raises(ValueError, match="the weights"):
        kernels.linear_int8(np.ones((2, 4), np.float32), layer(2, 3))
