"""The emulator follows every access, and ends a launch in which two of them race."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

import kernels
from kernels.gpu import (
    attention,
    distances,
    elementwise,
    histogram,
    linear_int8,
    matmul,
    models,
    reduction,
    ring,
    rows,
    scan,
    segments,
    sparse,
    topk,
)
from kernels.gpu.emulator import _KERNEL, SOURCES, EmulatedKernel, Emulator, compiled
from kernels.gpu.runtime import DeviceFailed
from tests.unit.kernels.test_blocks import csr
from tests.unit.kernels.test_model_kernels import tree


def _gcc() -> int:
    if shutil.which("g++") is None:
        return 0
    said = subprocess.run(["g++", "-dumpversion"], capture_output=True, text=True, check=True)
    return int(said.stdout.split(".")[0])


pytestmark = pytest.mark.skipif(_gcc() < 11, reason="needs g++ 11, which tells volatile accesses")

RULES = r"""
extern "C" __global__ void unseparated(int *out)
{
    __shared__ int s[64];
    s[threadIdx.x] = 1;  //!
    out[threadIdx.x] = s[63 - threadIdx.x];  //!
}
extern "C" __global__ void separated(int *out)
{
    __shared__ int s[64];
    s[threadIdx.x] = 1;
    __syncthreads();
    out[threadIdx.x] = s[63 - threadIdx.x];
}
extern "C" __global__ void overtaken(int *out)
{
    __shared__ int s[64];
    for (int i = 0; i < 2; ++i) {
        s[threadIdx.x] = i;  //!
        __syncthreads();
        out[threadIdx.x] = s[63 - threadIdx.x];  //!
    }
}
extern "C" __global__ void shuffled(int *out)
{
    __shared__ int s[64];
    s[threadIdx.x] = 1;  //!
    __shfl_sync(0xffffffffu, 1, 0);
    out[threadIdx.x] = s[threadIdx.x ^ 1];  //!
}
extern "C" __global__ void of_a_warp(int *out)
{
    __shared__ int s[64];
    s[threadIdx.x] = 1;
    __syncwarp();
    out[threadIdx.x] = s[threadIdx.x ^ 1];
}
extern "C" __global__ void beyond_the_warp(int *out)
{
    __shared__ int s[64];
    s[threadIdx.x] = 1;  //!
    __syncwarp();
    out[threadIdx.x] = s[threadIdx.x ^ 32];  //!
}
extern "C" __global__ void half_a_warp(int *out)
{
    __shared__ int s[64];
    s[threadIdx.x] = 1;  //!
    __syncwarp(threadIdx.x % 32 < 16 ? 0xffffu : 0xffff0000u);
    out[threadIdx.x] = s[threadIdx.x ^ 16];  //!
}
extern "C" __global__ void by_all_blocks(int *out)
{
    out[threadIdx.x] = static_cast<int>(blockIdx.x);  //!
}
extern "C" __global__ void atomically(int *out) { atomicAdd(out, 1); }
extern "C" __global__ void half_atomically(int *out)
{
    atomicAdd(out, 1);  //!
    if (threadIdx.x == 63)
        out[0] = 2;  //!
}
extern "C" __global__ void last_block(int *out)
{
    if (threadIdx.x != 0)
        return;
    out[1 + blockIdx.x] = 1;  //!
#ifdef FENCE
    __threadfence();
#endif
    if (atomicAdd(out, 1) == static_cast<int>(gridDim.x) - 1)
        for (unsigned i = 0; i < gridDim.x; ++i)
            out[20] += out[1 + i];  //!
}
"""
RACE = "a race: .* and nothing orders the two"


def launch(name: str, blocks: int, **macros: int) -> None:
    library = compiled(RULES, "rules.cu", tuple(macros.items()), races=True)
    out = Emulator(races=True).zeros((64,), np.int32)
    EmulatedKernel(library, name)(out, grid=(blocks, 1, 1), block=(64, 1, 1))


def marked(name: str) -> set[int]:
    """The lines of a kernel that race."""
    lines = RULES.splitlines()
    begin = next(n for n, line in enumerate(lines) if f" {name}(" in line)
    end = lines.index("}", begin)
    return {n + 1 for n in range(begin, end) if "//!" in lines[n]}


@pytest.mark.parametrize(
    ("name", "blocks"), [("separated", 1), ("of_a_warp", 1), ("atomically", 3)]
)
def test_what_is_ordered_passes(name: str, blocks: int) -> None:
    launch(name, blocks)


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("unseparated", 1),
        ("overtaken", 1),
        ("shuffled", 1),
        ("beyond_the_warp", 1),
        ("half_a_warp", 1),
        ("by_all_blocks", 2),
        ("half_atomically", 1),
        ("last_block", 3),
    ],
)
def test_what_is_not_ends_the_launch_with_both_places(name: str, blocks: int) -> None:
    with pytest.raises(DeviceFailed, match=RACE) as failed:
        launch(name, blocks)
    if shutil.which("addr2line"):
        told = {int(line) for line in re.findall(r"rules\.cu:(\d+)", str(failed.value))}
        assert told and told <= marked(name)


def test_the_last_block_may_read_what_others_wrote_behind_a_fence() -> None:
    launch("last_block", 3, FENCE=1)


def numbers(*shape: int, dtype: object = np.float32) -> np.ndarray:
    return np.random.default_rng(shape).normal(size=shape).astype(dtype)


X, KEYS = numbers(5000), np.repeat(np.arange(2500, dtype=np.int64), 2)
EDGES = [np.linspace(-1, 1, 19)] * 3


def sums(r: Emulator) -> None:
    for step in reduction.STEPS:
        reduction.reduce(r, r.send(X), step=step)
        reduction.reduce(r, r.send(X), "max", step=step)
    for deterministic in (False, True):
        scan.scan(r, r.send(X), exclusive=False, deterministic=deterministic)
    segments.segmented_sums(r, *map(r.send, (KEYS, X)))
    segments.segmented_scan(r, *map(r.send, (KEYS, X)))
    segments.window_starts(r, r.send(KEYS), 7)


def vectors(r: Emulator) -> None:
    for step in elementwise.STEPS:
        elementwise.add(r, *map(r.send, (X, X)), step=step)
    for lanes in (1, 8, 32):
        sparse.spmv(r, *map(r.send, csr(300, 50, 7.0, "f4")), lanes=lanes)
    ring.all_reduce(r, [r.send(X) for _ in range(3)])


def drift(r: Emulator) -> None:
    slot = np.arange(len(X), dtype=np.int32) % 3
    histogram.histograms(r, [X, X, X], EDGES, slot, 3)
    histogram.histograms(r, [X, X, X], EDGES)
    histogram.histograms_of_rows(r, r.send(numbers(700, 3)), EDGES)
    counts = np.random.default_rng(0).integers(0, 99, (300, 6))
    distances.distances(r, counts, counts[::-1], np.full(300, 6))


def networks(r: Emulator) -> None:
    for columns in (33, 5000):
        x, weight = numbers(3, columns), numbers(columns)
        rows.softmax(r, r.send(x))
        rows.layer_norm(r, *map(r.send, (x, weight, weight)))
        rows.gelu(r, r.send(x))
        rows.gelu(r, *map(r.send, (x, weight)))


def products(r: Emulator) -> None:
    for step in matmul.STEPS:
        matmul.matmul(r, *map(r.send, (numbers(130, 140), numbers(140, 70))), step)
    half = numbers(64, 456, dtype=np.float16), numbers(456, 72, dtype=np.float16)
    for tiles in matmul.TILES:
        matmul.matmul_tensor(r, *map(r.send, half), tiles=tiles)
    layer = kernels.quantised(numbers(70, 224), numbers(70))
    data, scales = linear_int8.quantise_rows(r, r.send(numbers(130, 224)), 224)
    for step in linear_int8.STEPS:
        sent = map(r.send, (layer.weight, layer.scale, layer.bias))
        linear_int8.linear(r, data, scales, *sent, step)


def attentions(r: Emulator) -> None:
    shapes = (1, 130, 64), (1, 300, 64), (1, 300, 64)
    attention.attention(r, *map(r.send, (numbers(*s) for s in shapes)), scale=0.1)
    half = [numbers(*s, dtype=ml_dtypes.bfloat16) for s in shapes]
    for step in range(len(attention.STEPS)):
        for causal in (False, True):
            attention.attention(r, *map(r.send, half), scale=0.1, causal=causal, step=step)


def retrieval(r: Emulator) -> None:
    x, queries = numbers(700, 36), numbers(20, 36)
    ones = np.ones(len(x), np.float32)
    for tiled in (False, True):
        topk.candidates(r, *map(r.send, (x, ones, queries)), 10, tiled)
    wide = numbers(300, 1000), ones[:300], numbers(4, 1000)  # the queries lie in shared memory
    topk.candidates(r, *map(r.send, wide), 10, tiled=False)
    topk.inverse_lengths(r, r.send(x))
    places = np.random.default_rng(2).integers(-1, 700, (20, 9))
    topk.rescored(r, *map(r.send, (x, ones.astype(float), queries, np.ones(20))), places)


def ensembles(r: Emulator) -> None:
    rng = np.random.default_rng(0)
    trees = [tree(rng, splits, 3, 1) for splits in (0, 5, 30)]
    nodes, *rest = kernels.ensemble(trees, [0.5], 3, np.float64).arrays()
    x = numbers(6000, 3, dtype=np.float64)  # a block has several rounds
    models.trees_sum(
        r, r.send(models.node_records(nodes)), *map(r.send, (*rest, x)), base_last=False
    )
    models.linear_margins(r, *map(r.send, (numbers(6000, 4), numbers(4), numbers(4))), 0.3)


FAMILIES: list[Callable[[Emulator], None]] = [
    *(sums, vectors, drift, networks, products, attentions, retrieval, ensembles)
]
LAUNCHED: dict[str, set[str]] = {}


@pytest.mark.parametrize("family", FAMILIES)
def test_no_kernel_races(family: Callable[[Emulator], None]) -> None:
    emulator = Emulator(races=True)
    family(emulator)
    LAUNCHED[family.__name__] = {name for _, name, _ in emulator._kernels}


def test_every_kernel_was_launched() -> None:
    if len(LAUNCHED) < len(FAMILIES):
        pytest.skip("the families were not run")
    named = {
        name for source in SOURCES.glob("*.cu") for name in _KERNEL.findall(source.read_text())
    }
    assert named - set().union(*LAUNCHED.values()) == {"matmul_wmma"}, (
        "the WMMA interface is nvcc's own"
    )
