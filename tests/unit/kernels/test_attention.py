"""Fused attention: float32 and 16-bit kernels and the CPU path against float64."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kernels
from kernels.gpu import attention as gpu
from kernels.gpu.runtime import Runtime
from kernels.reference import neural as reference

DTYPES = [np.float32, np.float16, ml_dtypes.bfloat16]
TOLERANCE = {np.float32: 2e-6, np.float16: 3e-3, ml_dtypes.bfloat16: 2.5e-2}
"""16-bit probabilities are rounded before they meet the values, and the result once more."""


def operands(heads: int, queries: int, keys: int, d: int, dtype: Any) -> list[np.ndarray]:
    rng = np.random.default_rng(queries + keys)
    shapes = (heads, queries, d), (heads, keys, d), (heads, keys, d)
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", gpu.HEAD_DIMS)
@pytest.mark.parametrize(
    ("queries", "keys", "causal"),
    [(1, 1, False), (70, 130, False), (130, 130, True), (50, 20, True), (64, 64, False)],
)
def test_kernels_follow_the_reference(
    runtime: Runtime, dtype: Any, d: int, queries: int, keys: int, causal: bool
) -> None:
    qkv = operands(2, queries, keys, d, dtype)
    sent = [runtime.send(x) for x in qkv]
    found = gpu.attention(runtime, *sent, causal=causal, scale=d**-0.5).get()
    want = reference.attention(*qkv, causal=causal)
    assert np.abs(found.astype(np.float64) - want).max() < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", DTYPES[1:])
@pytest.mark.parametrize("step", range(len(gpu.STEPS)), ids=gpu.STEPS)
@pytest.mark.parametrize("d", gpu.HEAD_DIMS)
@pytest.mark.parametrize(
    ("queries", "keys", "causal"),
    [(130, 500, False), (300, 300, True), (50, 20, True)],
)
def test_each_step_of_16_bits_follows_the_reference(
    runtime: Runtime, dtype: Any, step: int, d: int, queries: int, keys: int, causal: bool
) -> None:
    qkv = operands(1, queries, keys, d, dtype)
    sent = [runtime.send(x) for x in qkv]
    found = gpu.attention(runtime, *sent, causal=causal, scale=d**-0.5, step=step).get()
    want = reference.attention(*qkv, causal=causal)
    assert np.abs(found.astype(np.float64) - want).max() < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gelu", ["exact", "tanh"])
def test_gelu_is_fused_at_the_end(runtime: Runtime, dtype: Any, gelu: str) -> None:
    qkv = operands(1, 40, 70, 64, dtype)
    sent = [runtime.send(x) for x in qkv]
    found = gpu.attention(runtime, *sent, scale=0.3, gelu=gelu).get()
    want = reference.gelu(reference.attention(*qkv, scale=0.3), tanh=gelu == "tanh")
    assert np.abs(found.astype(np.float64) - want).max() < 2 * TOLERANCE[dtype]


def test_large_scores_do_not_overflow(runtime: Runtime) -> None:
    """exp(1e4) would; the largest score of a later tile rescales what earlier tiles gave."""
    q, k, v = operands(1, 66, 200, 64, np.float32)
    k[0, 150] = 100 * q[0, 0]
    q *= 30
    found = gpu.attention(runtime, *map(runtime.send, (q, k, v)), scale=1.0).get()
    want = reference.attention(q, k, v, scale=1.0)
    assert np.isfinite(found).all() and np.abs(found - want).max() < 2e-3


def test_a_nan_stays_in_its_row(runtime: Runtime) -> None:
    q, k, v = operands(1, 70, 70, 64, np.float32)
    q[0, 3, 5] = np.nan
    found = gpu.attention(runtime, *map(runtime.send, (q, k, v)), causal=True, scale=0.1).get()
    assert np.isnan(found[0, 3]).all() and np.isfinite(np.delete(found, 3, axis=1)).all()


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(0, 90),
    st.integers(1, 90),
    st.sampled_from([1, 7, 64]),
    st.booleans(),
)
def test_any_shape_on_the_processor(
    heads: int, queries: int, keys: int, d: int, causal: bool
) -> None:
    qkv = operands(heads, queries, keys, d, np.float32)
    found = kernels.attention(*qkv, causal=causal)
    want = reference.attention(*qkv, causal=causal)
    assert found.shape == want.shape and np.allclose(found, want, atol=5e-6)


def test_the_one_call_goes_to_the_device_if_it_has_the_head_size(in_use: kernels.Device) -> None:
    before = kernels.used().get("attention", {}).get("emulator", 0)
    for d in (64, 48):
        qkv = operands(2, 20, 30, d, np.float32)
        assert np.allclose(kernels.attention(*qkv), reference.attention(*qkv), atol=5e-6)
    assert kernels.used()["attention"]["emulator"] == before + 1
    there = [in_use.runtime.send(x) for x in operands(2, 20, 30, 64, np.float32)]
    assert kernels.attention(*there).shape == (2, 20, 64)
    with pytest.raises(ValueError, match="heads of 48 columns"):
        kernels.attention(*[in_use.runtime.send(x) for x in qkv])


def test_what_does_not_fit_is_refused() -> None:
    q, k, v = operands(2, 3, 4, 8, np.float32)
    for bad in ((q, k[:1], v[:1]), (q, k, v[:, :1]), (q, k[:, :0], v[:, :0]), (q[..., :4], k, v)):
        with pytest.raises(ValueError, match="shapes"):
            kernels.attention(*bad)
    with pytest.raises(ValueError, match="must be above 0"):
        kernels.attention(q, k, v, scale=0.0)
