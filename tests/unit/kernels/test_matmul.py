"""Matrix multiply: every step of both ladders against float64, the public call against the reference."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kernels
from kernels.gpu import elements, matmul
from kernels.gpu.emulator import Emulator
from kernels.gpu.runtime import DeviceFailed, OutOfMemory, Runtime
from kernels.reference import neural as reference

SHAPES = [(1, 1, 1), (5, 7, 3), (130, 140, 36), (128, 128, 64), (64, 200, 20), (3, 260, 1)]
ROUNDING = {np.float32: 2**-24, np.float16: 2**-11, ml_dtypes.bfloat16: 2**-8}


def pair(m: int, n: int, k: int, dtype: Any, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(m, k)).astype(dtype), rng.normal(size=(k, n)).astype(dtype)


def check(found: np.ndarray, a: np.ndarray, b: np.ndarray, dtype: Any) -> None:
    """Within the bound of float32 sums (k units of the terms' size) and of one rounding to the type."""
    want = reference.matmul(a, b)
    terms = np.abs(a.astype(np.float64)) @ np.abs(b.astype(np.float64))
    bound = (a.shape[1] + 1) * 2**-24 * terms + 1.01 * ROUNDING[dtype] * np.abs(want) + 1e-30
    assert found.shape == want.shape and found.dtype == np.dtype(dtype)
    assert np.all(np.abs(found.astype(np.float64) - want) <= bound)


@pytest.mark.parametrize("step", matmul.STEPS)
@pytest.mark.parametrize(("m", "n", "k"), SHAPES)
def test_each_float32_step_multiplies(runtime: Runtime, step: str, m: int, n: int, k: int) -> None:
    a, b = pair(m, n, k, np.float32)
    check(matmul.matmul(runtime, runtime.send(a), runtime.send(b), step).get(), a, b, np.float32)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("tiles", matmul.TILES, ids=str)
@pytest.mark.parametrize(("m", "n", "k"), [(1, 8, 8), (130, 136, 40), (70, 264, 200)])
def test_tensor_cores_multiply_in_every_tiling(
    runtime: Runtime, dtype: Any, tiles: matmul.Tiles | matmul.GroupTiles, m: int, n: int, k: int
) -> None:
    a, b = pair(m, n, k, dtype)
    found = matmul.matmul_tensor(runtime, runtime.send(a), runtime.send(b), tiles=tiles)
    check(found.get(), a, b, dtype)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_the_wmma_step_multiplies(runtime: Runtime, dtype: Any) -> None:
    if isinstance(runtime, Emulator):
        pytest.skip("the WMMA interface is nvcc's own")
    a, b = pair(48, 32, 80, dtype)
    found = matmul.matmul_tensor(runtime, runtime.send(a), runtime.send(b), "wmma")
    check(found.get(), a, b, dtype)


def test_what_tensor_cores_cannot_load_is_refused(emulator: Runtime) -> None:
    a, b = pair(4, 8, 12, np.float16)
    with pytest.raises(DeviceFailed, match="no multiples of 8"):
        matmul.matmul_tensor(emulator, emulator.send(a), emulator.send(b))


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(*[st.integers(0, 70)] * 3),
    st.sampled_from([np.float32, np.float16, ml_dtypes.bfloat16]),
    st.booleans(),
)
def test_any_shape_on_any_device(shape: tuple[int, int, int], dtype: Any, device: bool) -> None:
    a, b = pair(*shape, dtype, seed=sum(shape))
    try:
        if device:
            kernels.use(kernels.Device(Emulator(), "emulator", otherwise=1))
        check(kernels.matmul(a, b), a, b, dtype)
    finally:
        kernels.use(None)


@pytest.mark.parametrize("size", [1e30, 1e-42])
def test_huge_and_denormal_values(in_use: kernels.Device, size: float) -> None:
    a, b = pair(20, 24, 16, np.float32)
    a *= np.float32(size)
    found = kernels.matmul(a, b)
    want = reference.matmul(a, b)
    assert np.allclose(found, want, rtol=1e-4, atol=1e-44)


def test_nan_and_infinity_go_through(in_use: kernels.Device) -> None:
    a, b = pair(3, 5, 4, np.float32)
    a[0, 1], a[1, 2] = np.nan, np.inf
    found = kernels.matmul(a, b)
    assert np.isnan(found[0]).all() and np.isinf(found[1]).all() and np.isfinite(found[2]).all()


def test_strided_operands_and_a_memory_that_holds_a_part(emulator: Runtime) -> None:
    a, b = pair(400, 64, 130, np.float32)
    small = kernels.Device(Emulator(memory=200_000), "emulator", otherwise=1)
    kernels.use(small)
    try:
        check(kernels.matmul(a[::-1, ::2], b[::2]), a[::-1, ::2], b[::2], np.float32)
        assert kernels.in_use() is small
        with pytest.raises(OutOfMemory):
            small.runtime.empty(10**6, np.float32)
    finally:
        kernels.use(None)


def test_what_does_not_fit_is_refused_with_its_shape() -> None:
    a, b = pair(3, 4, 5, np.float32)
    with pytest.raises(ValueError, match="a has 5 columns and b 3 rows"):
        kernels.matmul(a, a)
    with pytest.raises(ValueError, match="shape"):
        kernels.matmul(a[0], b)
    with pytest.raises(TypeError, match="float64"):
        kernels.matmul(a.astype(np.float64), b)
    with pytest.raises(TypeError, match="dtypes differ"):
        kernels.matmul(a, b.astype(np.float16))


def test_operands_on_the_device_stay_there(in_use: kernels.Device) -> None:
    a, b = pair(9, 12, 8, np.float32)
    there = [in_use.runtime.send(x) for x in (a, b)]
    found = kernels.matmul(*there)
    check(found.get(), a, b, np.float32)
    with pytest.raises(TypeError, match="on a GPU"):
        kernels.matmul(there[0], b)


def test_more_rows_than_a_grid_has_are_done_in_parts() -> None:
    """65,535 blocks of 128 rows are the most that one launch takes."""
    with pytest.raises(OutOfMemory, match="65,536 rows of blocks"):
        elements.grid(1, 65_536)
    assert elements.grid(3, 65_535) == (3, 65_535, 1)
