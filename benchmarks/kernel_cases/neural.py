"""Networks' building blocks: matrix multiply, softmax, layer norm, GeLU, attention, the int8 layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import scipy.special

import kernels
from benchmarks.kernel_cases.case import Case, DeviceGoal, Work, close, on_torch
from kernels.cpu import neural as cpu
from kernels.gpu import attention as gpu_attention
from kernels.gpu import linear_int8 as gpu_int8
from kernels.gpu import matmul as gpu_matmul
from kernels.gpu import rows as gpu_rows
from kernels.gpu.runtime import Runtime

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def matmul(n: int) -> Case:
    side = _side(n)
    a, b = _normal((side, side), 1), _normal((side, side), 2)

    def step(name: str) -> Any:
        def prepare(runtime: Runtime) -> Work:
            x, y = runtime.send(a), runtime.send(b)
            return lambda: gpu_matmul.matmul(runtime, x, y, name)

        return prepare

    def torch() -> Work:
        x, y = on_torch(a, b)
        return lambda: x @ y

    return Case(
        "matrix multiply",
        f"{side} x {side} x {side} float32",
        *(side**2, 2 * side**3, 12 * side**2),
        lambda: kernels.matmul(a, b),
        {"np.matmul": lambda: a @ b},
        {f"matmul_{name}": step(name) for name in gpu_matmul.STEPS},
        {"torch (cuBLAS)": torch},
        same=close,
        goals=(
            DeviceGoal(
                "float32 matrix multiply reaches 70 % of cuBLAS",
                lambda m: m.seconds["torch (cuBLAS)"] / m.seconds["matmul_registers"],
                0.7,
            ),
            DeviceGoal(
                "float32 matrix multiply takes a twentieth of NumPy's time",
                lambda m: m.numpy / m.seconds["matmul_registers"],
                20,
            ),
        ),
    )


def matmul_bfloat16(n: int) -> Case:
    side = max(32, _side(n))
    a, b = _normal((side, side), 1).astype(BFLOAT16), _normal((side, side), 2).astype(BFLOAT16)

    def step(name: str, tiles: Any = gpu_matmul.TILES[0]) -> Any:
        def prepare(runtime: Runtime) -> Work:
            x, y = runtime.send(a), runtime.send(b)
            if name == "wmma" and runtime.properties.name == "emulator":
                raise ImportError("the WMMA interface is nvcc's own")
            return lambda: gpu_matmul.matmul_tensor(runtime, x, y, name, tiles)

        return prepare

    def torch() -> Work:
        x, y = (_bfloat16(t) for t in on_torch(a.astype("f4"), b.astype("f4")))
        return lambda: x @ y

    steps = {
        f"{'matmul_mma' if isinstance(t, gpu_matmul.Tiles) else 'matmul_wgmma'} {t.bm} x {t.bn}": step(
            "mma", t
        )
        for t in gpu_matmul.TILES[::-1]
    }

    def best(seconds: Any) -> float:
        return min(value for name, value in seconds.items() if "mma " in name)

    return Case(
        "matrix multiply",
        f"{side} x {side} x {side} bfloat16",
        *(side**2, 2 * side**3, 6 * side**2),
        lambda: kernels.matmul(a, b),
        {"float32 BLAS, rounded": lambda: (a.astype("f4") @ b.astype("f4")).astype(BFLOAT16)},
        {"matmul_wmma": step("wmma"), **steps},
        {"torch (cuBLAS)": torch},
        same=_near(2**-7),
        goals=(
            DeviceGoal(
                "bfloat16 matrix multiply reaches 60 % of cuBLAS",
                lambda m: m.seconds["torch (cuBLAS)"] / best(m.seconds),
                0.6,
            ),
        ),
    )


def softmax(n: int) -> Case:
    x = _normal((max(1, n // 1024), 1024), 1)
    return _of_rows(
        "softmax",
        x,
        lambda: kernels.softmax(x),
        {"scipy": lambda: scipy.special.softmax(x, axis=1)},
        gpu_rows.softmax,
        lambda library, there: library.softmax(there, 1),
    )


def layer_norm(n: int) -> Case:
    x, ones, zeros = (
        _normal((max(1, n // 1024), 1024), 1),
        np.ones(1024, "f4"),
        np.zeros(1024, "f4"),
    )

    def plain() -> Any:
        return (x - x.mean(1, keepdims=True)) / np.sqrt(
            x.var(1, keepdims=True) + 1e-5
        ) * ones + zeros

    def on_gpu(runtime: Runtime, sent: Any) -> Any:
        weight, bias = runtime.send(ones), runtime.send(zeros)
        return gpu_rows.layer_norm(runtime, sent, weight, bias)

    return _of_rows(
        "layer norm",
        x,
        lambda: kernels.layer_norm(x, ones, zeros),
        {"NumPy": plain},
        on_gpu,
        lambda library, there: library.nn.functional.layer_norm(there, (1024,)),
    )


def gelu(n: int) -> Case:
    x = _normal((max(1, n // 1024), 1024), 1)
    return _of_rows(
        "GeLU",
        x,
        lambda: kernels.gelu(x),
        {"scipy": lambda: 0.5 * x * scipy.special.erfc(-np.float32(math.sqrt(0.5)) * x)},
        gpu_rows.gelu,
        lambda library, there: library.nn.functional.gelu(there),
    )


def attention(n: int) -> Case:
    """With GeLU at the end, causal; 128 columns a head, bfloat16."""
    heads, length = (64, 4096) if n >= 1 << 26 else (4, 512) if n >= 1 << 16 else (1, 64)
    d = 128
    qkv = [_normal((heads, length, d), seed).astype(BFLOAT16) for seed in range(3)]
    single = [x.astype(np.float32) for x in qkv]

    def step(place: int) -> Any:
        def prepare(runtime: Runtime) -> Work:
            sent = [runtime.send(x) for x in qkv]
            return lambda: gpu_attention.attention(
                runtime, *sent, causal=True, scale=d**-0.5, gelu="exact", step=place
            )

        return prepare

    places = {name: place for place, name in enumerate(gpu_attention.STEPS)}

    def plain() -> Any:
        hidden = np.triu(np.ones((length, length), np.bool_), 1)
        out = []
        for q, k, v in zip(*single, strict=True):
            scores = np.where(hidden, -np.inf, q @ k.T * d**-0.5)
            result = scipy.special.softmax(scores, axis=1) @ v
            out.append(0.5 * result * scipy.special.erfc(-result * math.sqrt(0.5)))
        return np.array(out)

    def torch() -> Work:
        import torch as library

        there = [_bfloat16(t)[None] for t in on_torch(*single)]
        functional = library.nn.functional
        return lambda: functional.gelu(
            functional.scaled_dot_product_attention(*there, is_causal=True)
        )[0]

    def triton() -> Work:
        on_torch()
        from benchmarks.triton_attention import attention_gelu, fastest

        there = [_bfloat16(t) for t in on_torch(*single)]
        choice = fastest(*there, True)
        return lambda: attention_gelu(*there, True, choice)

    def best(seconds: Any) -> float:
        return min(value for name, value in seconds.items() if "attention_" in name)

    return Case(
        "attention + GeLU",
        f"{heads} heads, {length} x {d} bfloat16, causal",
        *(heads * length * d, 2 * heads * length**2 * d, 8 * heads * length * d),
        lambda: cpu.attention(*qkv, causal=True, scale=d**-0.5, gelu="exact"),
        {"NumPy, a head at a time": plain},
        {f"attention_{name}": step(places[name]) for name in sorted(places, reverse=True)},
        {"torch SDPA, then GeLU": torch, "Triton": triton},
        same=_near(2**-5),
        goals=(
            DeviceGoal(
                "attention + GeLU is 1.3 times as fast as Triton's",
                lambda m: m.seconds["Triton"] / best(m.seconds),
                1.3,
            ),
            DeviceGoal(
                "attention + GeLU takes at most twice SDPA's time",
                lambda m: m.seconds["torch SDPA, then GeLU"] / best(m.seconds),
                0.5,
            ),
        ),
    )


def linear_int8(n: int) -> Case:
    side = max(32, _side(n))
    x = _normal((side, side), 1)
    layer = kernels.quantised(_normal((side, side), 2))

    def step(name: str) -> Any:
        def prepare(runtime: Runtime) -> Work:
            sent = [runtime.send(y) for y in (x, layer.weight, layer.scale, layer.bias)]

            def work() -> Any:
                data, scale = gpu_int8.quantise_rows(runtime, sent[0], side)
                return gpu_int8.linear(runtime, data, scale, sent[1], sent[2], sent[3], name)

            return work

        return prepare

    def plain() -> Any:
        steps = np.abs(x).max(1) / np.float32(127)
        data = np.rint(x / steps[:, None]).astype(np.int8)
        sums = data.astype(np.float64) @ layer.weight.T.astype(np.float64)
        return sums.astype("f4") * (steps[:, None] * layer.scale) + layer.bias

    return Case(
        "int8 linear",
        f"{side} x {side} x {side}, quantised per row on the way",
        *(side**2, 2 * side**3, 9 * side**2),
        lambda: kernels.linear_int8(x, layer),
        {"NumPy, float64 BLAS": plain},
        {f"linear_{name}": step(name) for name in gpu_int8.STEPS},
    )


def _of_rows(
    name: str,
    x: Any,
    mine: Work,
    peers: dict[str, Work],
    on_gpu: Callable[..., Any],
    of_torch: Callable[[Any, Any], Any],
) -> Case:
    def prepare(runtime: Runtime) -> Work:
        sent = runtime.send(x)
        return lambda: on_gpu(runtime, sent)

    def torch() -> Work:
        import torch as library

        (there,) = on_torch(x)
        return lambda: of_torch(library, there)

    return Case(
        name,
        f"{len(x):,} x {x.shape[1]} float32",
        *(x.size, 8 * x.size, 8 * x.size),
        mine,
        peers,
        {name.replace(" ", "_"): prepare},
        {"torch": torch},
        same=close,
    )


def _side(n: int) -> int:
    """2^28 elements ask for 8192, 2^24 for 2048."""
    return 1 << max(3, int(math.log2(n)) // 2 - 1)


def _normal(shape: tuple[int, ...], seed: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def _near(share: float) -> Callable[[Any, Any], bool]:
    """Equal but for the rounding of a 16-bit type."""

    def same(mine: Any, theirs: Any) -> bool:
        one, other = (np.asarray(x).astype(np.float32) for x in (mine, theirs))
        return bool(np.abs(one - other).max() <= share * np.abs(other).max())

    return same


def _bfloat16(tensor: Any) -> Any:
    import torch

    return tensor.to(torch.bfloat16)


CASES = [matmul, matmul_bfloat16, softmax, layer_norm, gelu, attention, linear_int8]
