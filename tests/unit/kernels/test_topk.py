"""Cosine top-k: exact, the same on every device, ties to the smaller row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kernels
from kernels.calls.retrieval import MARGIN
from kernels.cpu import retrieval as cpu
from kernels.gpu import topk as gpu
from kernels.gpu.emulator import Emulator
from kernels.gpu.runtime import Runtime
from kernels.reference import retrieval as reference

FULL_PASSES = "topk, all rows in float64"


def matrix(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def on_emulator(emulator: Runtime) -> None:
    kernels.use(kernels.Device(emulator, "emulator", otherwise=1))


def full_passes() -> int:
    return kernels.used().get(FULL_PASSES, {}).get("cpu", 0)


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize(
    ("n", "d", "count", "k"),
    [(1, 4, 1, 1), (100, 12, 1, 5), (3000, 384, 1, 10), (1000, 64, 3, 40), (1000, 132, 70, 10),
     (500, 1024, 2, 3), (700, 8, 5, 128)],
)  # fmt: skip
def test_both_kernels_find_the_best_scores(
    runtime: Runtime, tiled: bool, n: int, d: int, count: int, k: int
) -> None:
    x, q = matrix(n, d), matrix(count, d, 1)
    x[::7] = x[0]
    q = (q * cpu.inverse_lengths(q)[:, None]).astype(np.float32)
    inverse = cpu.inverse_lengths(x)
    sent = [runtime.send(array) for array in (x, inverse.astype(np.float32), q)]
    rows, scores = gpu.candidates(runtime, *sent, k, tiled)
    exact = (q.astype(np.float64) @ x.astype(np.float64).T) * inverse
    kept = min(n, k)
    want = -np.sort(-exact, axis=1)[:, :kept]
    assert np.allclose(scores[:, :kept], want, atol=2e-6 + d * 2**-24)
    assert np.allclose(np.take_along_axis(exact, rows[:, :kept], 1), want, atol=d * 2**-22)
    assert (rows[:, kept:] == -1).all() and (scores[:, kept:] == -np.inf).all()
    tied = np.diff(scores[:, :kept]) == 0
    assert (np.diff(rows[:, :kept])[tied] > 0).all() and len(set(rows[0, :kept])) == kept


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 300), st.integers(1, 40), st.integers(0, 20), st.integers(1, 60),
    st.sampled_from(["normal", "few values", "all alike", "ordered"]), st.integers(0, 99),
)  # fmt: skip
def test_devices_and_reference_agree(
    n: int, d: int, count: int, k: int, kind: str, seed: int
) -> None:
    x, q = matrix(n, d, seed), matrix(count, d, seed + 1)
    if kind == "few values":
        x = np.sign(x) * (np.abs(x) > 0.7)
    if kind == "all alike":
        x[:] = x[0]
    if kind == "ordered":
        x = np.sort(x, axis=0)
    try:
        kernels.use(None)
        mine = kernels.topk(q, x, k)
        on_emulator(Emulator())
        theirs = kernels.topk(q, x, k)
    finally:
        kernels.use(None)
    assert np.array_equal(mine.rows, theirs.rows) and np.array_equal(mine.cosines, theirs.cosines)
    assert mine.rows.shape == (count, min(k, n))
    for query in range(min(count, 2)):
        want = reference.topk(x, q[query], k)
        assert np.allclose([score for _, score in want], mine.cosines[query], atol=4e-16)
        own = [reference.cosine(x[row], q[query]) for row in mine.rows[query]]
        assert np.allclose(own, mine.cosines[query], atol=4e-16)


def test_equal_rows_come_in_their_order_however_many_there_are(emulator: Runtime) -> None:
    """More equal rows than candidates: which of them a device proposes must not show."""
    x = matrix(3000, 16)
    x[100:2900] = x[0]
    before = full_passes()
    for _ in range(2):
        found = kernels.topk(x[0], x, 5)
        assert found.rows.tolist() == [[0, 100, 101, 102, 103]]
        assert found.cosines == pytest.approx(1.0, abs=1e-15)
        on_emulator(emulator)
    kernels.use(None)
    assert full_passes() == before + 2


def test_ordinary_data_is_settled_by_the_candidates() -> None:
    before = full_passes()
    kernels.topk(matrix(5, 64, 1), matrix(20_000, 64), 10)
    assert full_passes() == before


def test_rows_that_differ_in_the_last_bit_are_told_apart(emulator: Runtime) -> None:
    """float32 scores cannot order them; float64 does, on every device."""
    x = np.tile(matrix(1, 384), (MARGIN, 1))
    for row in range(1, len(x)):
        x[row, row] = np.nextafter(x[row, row], np.float32(9))
    q = x[0] + matrix(1, 384, 2)[0] / 10
    on_emulator(emulator)
    found = kernels.topk(q, x, len(x)).rows[0].tolist()
    kernels.use(None)
    scores = cpu.rescored(
        x, cpu.inverse_lengths(x), q[None], cpu.inverse_lengths(q[None]), np.arange(len(x))[None]
    )[0]
    assert found == sorted(range(len(x)), key=lambda row: (-scores[row], row))
    assert len(set(scores)) > len(x) // 2


def test_zeros_huge_and_tiny_rows(emulator: Runtime) -> None:
    x = matrix(50, 8)
    plain = kernels.topk(x[4], x, 50)
    x[7] *= np.float32(2.0**100)
    x[8] *= np.float32(2.0**-120)
    for _ in range(2):
        scaled = kernels.topk(x[4], x, 50)
        assert np.array_equal(scaled.rows, plain.rows)
        assert np.allclose(scaled.cosines, plain.cosines, atol=1e-7)  # 2**-120 cost some digits
        on_emulator(emulator)
    kernels.use(None)
    x[3] = 0
    found = kernels.topk(x[4], x, 50)
    assert found.cosines[0][found.rows[0].tolist().index(3)] == 0
    assert kernels.topk(np.zeros(8), x, 3).rows.tolist() == [[0, 1, 2]]


def test_the_exact_scores_have_the_same_bits_on_a_device(runtime: Runtime) -> None:
    x, q = matrix(60, 77), matrix(3, 77, 1)
    x[5] = 0
    rows = np.random.default_rng(2).integers(-1, 60, (3, 9))
    inverse, scale = cpu.inverse_lengths(x), cpu.inverse_lengths(q)
    assert np.array_equal(gpu.inverse_lengths(runtime, runtime.send(x)).get(), inverse)
    sent = map(runtime.send, (x, inverse, q, scale))
    assert np.array_equal(
        gpu.rescored(runtime, *sent, rows), cpu.rescored(x, inverse, q, scale, rows)
    )


def test_an_index_grows_and_its_copy_on_the_device_with_it(in_use: kernels.Device) -> None:
    x = matrix(900, 20)
    index = kernels.CosineIndex(x[:10])
    for first, last in ((10, 11), (11, 500), (500, 900)):
        index.add(x[first:last])
        found = kernels.topk(x[last - 1], index, 3)
        assert found.rows[0, 0] == last - 1 and len(index) == last
    kernels.use(None)
    assert np.array_equal(found.rows, kernels.topk(x[899], x, 3).rows)


def test_rows_on_a_device_are_searched_there(in_use: kernels.Device) -> None:
    x = matrix(500, 40)
    x[::5] = x[0]
    found = kernels.topk(x[:4], in_use.runtime.send(x), 30)
    kernels.use(None)
    want = kernels.topk(x[:4], x, 30)
    assert np.array_equal(found.rows, want.rows) and np.array_equal(found.cosines, want.cosines)
    with pytest.raises(RuntimeError, match="none is in use"):
        kernels.topk(x[:4], in_use.runtime.send(x), 30)


def test_what_cannot_be_searched_is_refused() -> None:
    x = matrix(5, 4)
    with pytest.raises(ValueError, match="columns"):
        kernels.topk(x[:, :3], x, 2)
    with pytest.raises(ValueError, match="the nearest 0"):
        kernels.topk(x, x, 0)
    x[3, 1] = np.nan
    with pytest.raises(ValueError, match="row 3 is not finite"):
        kernels.CosineIndex(x)
    with pytest.raises(ValueError, match="queries: row 1 is not finite"):
        kernels.topk(x[2:4], x[:2], 1)
    assert kernels.topk(x[:1], np.empty((0, 4), np.float32), 3).rows.shape == (1, 0)
