"""Probes (see `kernels.tuner.probes`) of linear algebra, networks' building blocks, retrieval and models.

Sizes are in the values that the calls count: of a product its multiplications, of trees rows times trees.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kernels.calls.cosine_index import CosineIndex
from kernels.calls.models import Tree, ensemble, on_device
from kernels.cpu import models as cpu_models
from kernels.cpu import neural as cpu
from kernels.cpu import quantised as cpu_quantised
from kernels.cpu import retrieval as cpu_retrieval
from kernels.gpu import attention, linear_int8, matmul, models, rows, topk
from kernels.gpu.runtime import Runtime

Work = Callable[[], object]
Pair = tuple[Work, Work]


def of_matmul(runtime: Runtime, values: int) -> Pair:
    x = _noise(_cube_root(values), _cube_root(values))
    return (
        lambda: matmul.matmul(runtime, runtime.send(x), runtime.send(x)).get(),
        lambda: cpu.matmul(x, x),
    )


def of_softmax(runtime: Runtime, values: int) -> Pair:
    x = _noise(values // 256, 256)
    return lambda: rows.softmax(runtime, runtime.send(x)).get(), lambda: cpu.softmax(x)


def of_layer_norm(runtime: Runtime, values: int) -> Pair:
    x, one = _noise(values // 256, 256), np.ones(256, np.float32)

    def device() -> object:
        weight, bias = runtime.send(one), runtime.send(one)
        return rows.layer_norm(runtime, runtime.send(x), weight, bias).get()

    return device, lambda: cpu.layer_norm(x, one, one, 1e-5)


def of_gelu(runtime: Runtime, values: int) -> Pair:
    x = _noise(values // 256, 256)
    return (
        lambda: rows.gelu(runtime, runtime.send(x)).get(),
        lambda: cpu.gelu(x, None, tanh=False),
    )


def of_attention(runtime: Runtime, values: int) -> Pair:
    """One head of 64 columns."""
    length = max(8, int((values / 64) ** 0.5))
    q = _noise(length, 64)[None]
    return (
        lambda: attention.attention(runtime, *map(runtime.send, (q, q, q)), scale=0.1).get(),
        lambda: cpu.attention(q, q, q, causal=False, scale=0.1, gelu=""),
    )


def of_linear_int8(runtime: Runtime, values: int) -> Pair:
    side = -(-_cube_root(values) // 16) * 16
    x, bias = _noise(side, side), np.zeros(side, np.float32)
    weight, scale = cpu_quantised.quantise_rows(x)

    def device() -> object:
        w, s, b = map(runtime.send, (weight, scale, bias))
        data, scales = linear_int8.quantise_rows(runtime, runtime.send(x), side)
        return linear_int8.linear(runtime, data, scales, w, s, b, "mma").get()

    return device, lambda: cpu_quantised.linear(
        *cpu_quantised.quantise_rows(x), weight, scale, bias
    )


def of_topk(runtime: Runtime, values: int) -> Pair:
    """One query; the device has its copy of the index, as after the first search."""
    index = CosineIndex(_noise(max(64, values // 384), 384))
    query, inverse = index.vectors[:1], index.inverse.astype(np.float32)
    vectors, scales = index.sent(runtime)
    return (
        lambda: np.sort(topk.candidates(runtime, vectors, scales, runtime.send(query), 32)[0]),
        lambda: np.sort(cpu_retrieval.candidates(index.vectors, inverse, query, 32)[0]),
    )


def of_trees(runtime: Runtime, values: int) -> Pair:
    """100 trees of depth 5, filled, over 16 features."""
    inner, leaves = np.arange(31), np.full(32, -1)
    tree = Tree(
        feature=np.concatenate([inner % 16, leaves]),
        threshold=np.zeros(63),
        missing_left=np.zeros(63, np.bool_),
        left=np.concatenate([2 * inner + 1, leaves]),
        right=np.concatenate([2 * inner + 2, leaves]),
        value=np.ones((63, 1), np.float32),
    )
    model, x = ensemble([tree] * 100, [0.0], 16, np.float32), _noise(-(-values // 100), 16)
    return (
        lambda: on_device(runtime, model, x),
        lambda: cpu_models.trees_sum(*model.arrays(), x, base_last=False),
    )


def of_linear(runtime: Runtime, values: int) -> Pair:
    x, weight = _noise(values // 16, 16), np.ones(16, np.float32)

    def device() -> object:
        center, sent = runtime.send(weight), runtime.send(weight)
        return models.linear_margins(runtime, runtime.send(x), center, sent, 0.0).get()

    return device, lambda: cpu_models.linear_margins(weight, weight, np.float32(0), x)


def _noise(count: int, columns: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((count, columns), dtype=np.float32)


def _cube_root(values: int) -> int:
    return max(4, int(values ** (1 / 3)))


PROBES = {
    "matmul": of_matmul,
    "softmax": of_softmax,
    "layer_norm": of_layer_norm,
    "gelu": of_gelu,
    "attention": of_attention,
    "linear_int8": of_linear_int8,
    "topk": of_topk,
    "trees": of_trees,
    "linear": of_linear,
}
