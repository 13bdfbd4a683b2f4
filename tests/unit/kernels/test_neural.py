"""Softmax, layer norm and GeLU: kernels and CPU paths against float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import kernels
from kernels.gpu import rows as gpu
from kernels.gpu.emulator import Emulator
from kernels.gpu.runtime import Runtime
from kernels.reference import neural as reference

DTYPES = [np.float32, np.float16, ml_dtypes.bfloat16]
TOLERANCE = {np.float32: 2e-6, np.float16: 2e-3, ml_dtypes.bfloat16: 1.6e-2}
"""Relative to the result, or to 1: a few units in the last place, sums over 5000 columns included."""
SHAPES = [(1, 1), (3, 33), (9, 256), (2, 1000), (2, 5000), (1, 4099)]
"""Rows in registers with and without whole packs, and rows of a block's own."""


def close(found: np.ndarray, want: np.ndarray, dtype: Any) -> None:
    assert found.shape == want.shape and found.dtype == np.dtype(dtype)
    both = found.astype(np.float64), want
    assert np.allclose(*both, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype], equal_nan=True)


def values(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> np.ndarray:
    return (3 * np.random.default_rng(seed).normal(size=shape)).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_kernels_follow_the_reference(runtime: Runtime, shape: tuple[int, int], dtype: Any) -> None:
    x, weight, bias = values(shape, dtype), values(shape[1:], dtype, 1), values(shape[1:], dtype, 2)
    sent = runtime.send(x)
    close(gpu.softmax(runtime, sent).get(), reference.softmax(x), dtype)
    scaled = gpu.layer_norm(runtime, sent, runtime.send(weight), runtime.send(bias)).get()
    want = reference.layer_norm(x, weight, bias)
    assert np.allclose(
        scaled.astype(float), want, rtol=2 * TOLERANCE[dtype], atol=2 * TOLERANCE[dtype]
    )
    for tanh in (False, True):
        close(gpu.gelu(runtime, sent, tanh=tanh).get(), reference.gelu(x, tanh=tanh), dtype)
        both = x.astype(np.float64) + bias.astype(np.float64)
        found = gpu.gelu(runtime, sent, runtime.send(bias), tanh=tanh).get()
        close(found, reference.gelu(both, tanh=tanh), dtype)


CALLS: dict[str, Callable[[Any, Any], tuple[Any, Any]]] = {
    "softmax": lambda x, v: (kernels.softmax(x), reference.softmax(x)),
    "layer_norm": lambda x, v: (kernels.layer_norm(x, v, v), reference.layer_norm(x, v, v)),
    "gelu": lambda x, v: (kernels.gelu(x), reference.gelu(x)),
    "bias_gelu": lambda x, v: (
        kernels.gelu(x, v, tanh=True),
        reference.gelu(x.astype(np.float64) + v.astype(np.float64), tanh=True),
    ),
}


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(CALLS)),
    st.sampled_from(DTYPES),
    st.lists(st.integers(1, 40), min_size=1, max_size=3),
    st.booleans(),
)
@example("layer_norm", np.float32, [40, 40, 2], False)
@example("layer_norm", np.float32, [40, 40, 2], True)
def test_any_shape_on_any_device(call: str, dtype: Any, shape: list[int], device: bool) -> None:
    x, vector = values(tuple(shape), dtype, 3), values((shape[-1],), dtype, 4)
    try:
        if device:
            kernels.use(kernels.Device(Emulator(), "emulator", otherwise=1))
        found, want = CALLS[call](x, vector)
    finally:
        kernels.use(None)
    scale = 1 + np.abs(want)
    assert np.all(np.abs(found.astype(np.float64) - want) <= 2 * TOLERANCE[dtype] * scale)


@pytest.mark.parametrize("columns", [1, 300, 3000])
def test_softmax_of_special_rows(runtime: Runtime, columns: int) -> None:
    x = np.zeros((6, columns), np.float32)
    x[1, -1], x[2, -1] = np.nan, np.inf
    x[3] = -np.inf
    x[4] = 3e38
    x[5] = 1e-44
    found = gpu.softmax(runtime, runtime.send(x)).get()
    assert np.allclose(found[[0, 4, 5]], 1 / columns)
    assert np.isnan(found[1:4]).all()
    with np.errstate(invalid="ignore"):
        assert np.array_equal(np.isnan(kernels.softmax(x)), np.isnan(found))


def test_one_hidden_column_counts_nothing(runtime: Runtime) -> None:
    x = np.array([[-np.inf, 0.0, 1.0]], np.float32)
    found = gpu.softmax(runtime, runtime.send(x)).get()
    assert found[0, 0] == 0 and found.sum() == pytest.approx(1)


@pytest.mark.parametrize("columns", [500, 4500])
def test_a_large_mean_costs_layer_norm_no_digits(runtime: Runtime, columns: int) -> None:
    """float32 keeps 1e-3 of a spread of 1 about 1e4; the square of the mean would leave nothing of it."""
    x = (1e4 + np.random.default_rng(0).normal(size=(2, columns))).astype(np.float32)
    ones, zeros = np.ones(columns, np.float32), np.zeros(columns, np.float32)
    sent = map(runtime.send, (x, ones, zeros))
    found = gpu.layer_norm(runtime, *sent).get()
    assert np.allclose(found, reference.layer_norm(x, ones, zeros), atol=2e-3)


@pytest.mark.parametrize("columns", [2, 7, 500, 4099])
def test_almost_equal_numbers_keep_their_digits(runtime: Runtime, columns: int) -> None:
    """Their mean's last digit is a hundredth of what sets them apart."""
    x = (-2.4 - 1e-5 * np.random.default_rng(0).normal(size=(40, columns))).astype(np.float32)
    ones, zeros = np.ones(columns, np.float32), np.zeros(columns, np.float32)
    want = reference.layer_norm(x, ones, zeros)
    found = gpu.layer_norm(runtime, *map(runtime.send, (x, ones, zeros))).get()
    close(found, want, np.float32)
    close(kernels.layer_norm(x, ones, zeros), want, np.float32)


def test_a_constant_row_is_the_bias(in_use: kernels.Device) -> None:
    x, weight = np.full((3, 40), 7, np.float32), np.ones(40, np.float32)
    bias = np.arange(40, dtype=np.float32)
    assert np.array_equal(kernels.layer_norm(x, weight, bias), np.tile(bias, (3, 1)))


def test_gelu_at_the_ends(in_use: kernels.Device) -> None:
    x = np.array([-np.inf, -40, -9, -1e-44, 0, 1e-44, 40, np.inf, np.nan], np.float32)
    found = kernels.gelu(x)
    assert found[1] == 0 and found[6] == 40 and found[7] == np.inf
    assert np.isnan(found[[0, 8]]).all()  # -inf times 0
    assert found[2] == pytest.approx(-9 * 1.1285884e-19, rel=1e-4)  # 1 + erf would have been 0


def test_empty_arrays_and_wrong_shapes() -> None:
    empty = np.zeros((0, 5), np.float32)
    assert kernels.softmax(empty).shape == (0, 5) and kernels.softmax(empty.T).shape == (5, 0)
    with pytest.raises(ValueError, match="weight has the shape"):
        kernels.layer_norm(empty, np.ones(4, np.float32), np.ones(5, np.float32))
    with pytest.raises(TypeError, match="dtypes differ"):
        kernels.gelu(empty, np.ones(5, np.float16))
    with pytest.raises(TypeError, match="int64"):
        kernels.softmax(np.arange(3))
    with pytest.raises(ValueError, match="single number"):
        kernels.gelu(np.float32(1))
