"""Drift's hot paths: histograms by columns and by rows, distances of histograms."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import rel_entr

import kernels
from benchmarks.kernel_cases.case import Case, DeviceGoal, Work, on_torch
from kernels.cpu import distances as cpu_distances
from kernels.gpu import distances as gpu_distances
from kernels.gpu import histogram as gpu_histogram
from kernels.gpu.runtime import Runtime
from kernels.reference import DECIMALS

BINS = 20


def columns(n: int) -> Case:
    d = 16
    rows = max(1, n // d)
    x = np.random.default_rng(1).normal(size=(d, rows)).astype(np.float32)
    edges = [_edges(column) for column in x]
    slot = np.zeros(rows, np.int32)

    def prepare(runtime: Runtime) -> Work:
        sent = runtime.send(x)
        return lambda: gpu_histogram.histograms(runtime, sent, edges)[0][0]

    def torch() -> Work:
        import torch as library

        (there,) = on_torch(x)

        def work() -> Any:
            found = [library.histc(column, BINS, -4, 4) for column in there]
            return library.stack(found)

        return work

    return Case(
        "histogram, columns",
        f"{d} columns of {rows:,} float32, {BINS} bins",
        *(d * rows, d * rows, 4 * d * rows),
        lambda: kernels.histograms(x, edges, slot, 1)[0][0],
        {
            "searchsorted + bincount": lambda: np.array(
                [
                    np.bincount(np.searchsorted(e, column, side="right"), minlength=BINS)
                    for column, e in zip(x, edges, strict=True)
                ]
            )
        },
        {"histogram_all": prepare},
        {"torch.histc, equal bins": torch},
        goals=(
            DeviceGoal(
                "histogram takes a fifth of torch.histc's time a feature",
                lambda m: m.seconds["torch.histc, equal bins"] / m.seconds["histogram_all"],
                5,
            ),
            DeviceGoal(
                "histogram takes a fiftieth of NumPy's time",
                lambda m: m.numpy / m.seconds["histogram_all"],
                50,
            ),
        ),
    )


def table(n: int) -> Case:
    d = 64
    rows = max(1, n // d)
    x = np.random.default_rng(1).normal(size=(rows, d)).astype(np.float32)
    edges = [_edges(x[:, j]) for j in range(d)]

    def prepare(runtime: Runtime) -> Work:
        sent = runtime.send(x)
        return lambda: gpu_histogram.histograms_of_rows(runtime, sent, edges)[0]

    return Case(
        "histogram, table",
        f"{rows:,} rows of {d} float32, {BINS} bins",
        *(d * rows, d * rows, 4 * d * rows),
        lambda: kernels.histogram(x, edges),
        {
            "searchsorted + bincount": lambda: np.array(
                [
                    np.bincount(np.searchsorted(edges[j], x[:, j], side="right"), minlength=BINS)
                    for j in range(d)
                ]
            )
        },
        {"histogram_rows": prepare},
    )


def distances(n: int) -> Case:
    pairs = max(1, n // 1000)
    rng = np.random.default_rng(6)
    p = rng.multinomial(1000, np.ones(BINS) / BINS, pairs)
    q = rng.multinomial(20_000, np.ones(BINS) / BINS, pairs)
    sizes = np.full(pairs, BINS)

    def stacked(found: kernels.Distances) -> np.ndarray:
        return np.array([found.psi, found.ks, found.js])

    def peer() -> Any:
        """Whole arrays at once, for histograms of which every bin is filled on one side."""
        n, m = p.sum(axis=1, keepdims=True), q.sum(axis=1, keepdims=True)
        w = BINS / 2 / (np.minimum(n, m) + BINS / 2)
        a, b = (1 - w) * p / n + w / BINS, (1 - w) * q / m + w / BINS
        psi = ((a - b) * np.log(a / b)).sum(axis=1)
        a, b = p / n, q / m
        ks = np.abs(a.cumsum(axis=1) - b.cumsum(axis=1)).max(axis=1)
        middle = (a + b) / 2
        bits = (rel_entr(a, middle) + rel_entr(b, middle)).sum(axis=1) / 2 / np.log(2)
        return np.array([psi, ks, np.sqrt(bits)])

    def prepare(runtime: Runtime) -> Work:
        def work() -> Any:
            raw = gpu_distances.distances(runtime, p, q, sizes)
            return stacked(cpu_distances.settled(raw, p, q, sizes))

        return work

    return Case(
        "PSI + KS + JS",
        f"{pairs:,} pairs of {BINS} bins",
        *(pairs, 30 * BINS * pairs, 16 * BINS * pairs + 32 * pairs),
        lambda: stacked(kernels.distances(p, q, sizes)),
        {"NumPy": peer},
        {"distances, with copies": prepare},
        same=lambda mine, theirs: np.allclose(mine, theirs, rtol=0, atol=2 * 10.0**-DECIMALS),
    )


def _edges(x: np.ndarray) -> np.ndarray:
    found = np.quantile(x[:100_000], np.arange(1, BINS) / BINS, method="inverted_cdf")
    return found.astype(np.float64)


CASES = [columns, table, distances]
