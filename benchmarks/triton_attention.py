"""A peer: fused attention with GeLU in Triton, written for this comparison (FlashAttention-2's loop).

Imported only where a GPU is: raises ImportError without torch, Triton or a GPU.
"""
# mypy: ignore-errors

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl


@triton.jit
def _attention_gelu(
    q_at, k_at, v_at, out_at, queries, keys, scale,
    DIM: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, CAUSAL: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """One block of ROWS queries of one head; tiles of KEYS keys, the softmax online, GeLU at the end."""
    head = tl.program_id(1)
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, DIM)
    q_start = head.to(tl.int64) * queries * DIM
    k_start = head.to(tl.int64) * keys * DIM
    known = rows[:, None] < queries
    q = tl.load(q_at + q_start + rows[:, None] * DIM + columns[None, :], mask=known, other=0.0)
    largest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    result = tl.zeros([ROWS, DIM], tl.float32)
    last = keys
    if CAUSAL:
        last = tl.minimum(keys, (tl.program_id(0) + 1) * ROWS)
    for first in range(0, last, KEYS):
        place = first + tl.arange(0, KEYS)
        inside = place[None, :] < keys
        k = tl.load(
            k_at + k_start + place[None, :] * DIM + columns[:, None], mask=inside, other=0.0
        )
        scores = tl.dot(q, k) * (scale * 1.4426950408889634)
        visible = inside
        if CAUSAL:
            visible = inside & (place[None, :] <= rows[:, None])
        scores = tl.where(visible, scores, float("-inf"))
        highest = tl.maximum(largest, tl.max(scores, 1))
        powers = tl.exp2(scores - highest[:, None])
        shrink = tl.exp2(largest - highest)
        total = total * shrink + tl.sum(powers, 1)
        v = tl.load(
            v_at + k_start + place[:, None] * DIM + columns[None, :],
            mask=place[:, None] < keys,
            other=0.0,
        )
        result = result * shrink[:, None] + tl.dot(powers.to(v.dtype), v)
        largest = highest
    result = result / total[:, None]
    result = 0.5 * result * (1.0 + tl.erf(result * 0.7071067811865476))
    to = out_at + q_start + rows[:, None] * DIM + columns[None, :]
    tl.store(to, result.to(out_at.dtype.element_ty), mask=known)


CHOICES = [(128, 64, 4, 3), (128, 128, 8, 3), (64, 64, 4, 3), (128, 64, 8, 2)]
"""Rows, keys, warps, stages: the fastest of them is the peer."""


def attention_gelu(q: Any, k: Any, v: Any, causal: bool, choice: tuple[int, int, int, int]) -> Any:
    """GeLU(softmax(q k^T / sqrt(d)) v); q, k, v: (heads, n, d) on the GPU."""
    rows, keys, warps, stages = choice
    heads, queries, dim = q.shape
    out = torch.empty_like(q)
    _attention_gelu[(triton.cdiv(queries, rows), heads)](
        *(q, k, v, out, queries, k.shape[1], dim**-0.5),
        DIM=dim,
        ROWS=rows,
        KEYS=keys,
        CAUSAL=causal,
        num_warps=warps,
        num_stages=stages,
    )
    return out


def fastest(q: Any, k: Any, v: Any, causal: bool) -> tuple[int, int, int, int]:
    """The choice that takes least time for these shapes."""

    def seconds(choice: tuple[int, int, int, int]) -> float:
        return float(triton.testing.do_bench(lambda: attention_gelu(q, k, v, causal, choice)))

    return min(CHOICES, key=seconds)
