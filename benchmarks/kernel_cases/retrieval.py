"""Retrieval and batch scoring: cosine top-k, tree ensembles, linear models."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnxruntime
from sklearn.ensemble import HistGradientBoostingClassifier

import kernels
from benchmarks.kernel_cases.case import Case, DeviceGoal, Work, close, on_torch
from kernels.calls.retrieval import MARGIN, settled
from kernels.cpu import retrieval as cpu
from kernels.gpu import models as gpu_models
from kernels.gpu import topk as gpu_topk
from kernels.gpu.runtime import Runtime
from models import onnx_graph
from models.encoder import Encoder, FeatureCode
from models.ensembles import from_sklearn
from models.recipes.gradient_boosting import tree as written_tree

D = 384
K = 10
FEATURES = 16


def topk(queries: int) -> Any:
    def make(n: int) -> Case:
        rows = max(64, n // 256)
        rng = np.random.default_rng(1)
        x = rng.standard_normal((rows, D), dtype=np.float32)
        q = rng.standard_normal((queries, D), dtype=np.float32)
        index = kernels.CosineIndex(x)
        inverse = cpu.inverse_lengths(q)
        units = (q * inverse[:, None]).astype(np.float32)

        def step(tiled: bool) -> Any:
            def prepare(runtime: Runtime) -> Work:
                vectors, scales = index.sent(runtime)
                asked = runtime.send(units)
                wanted = min(K + MARGIN, rows)

                def work() -> Any:
                    found = gpu_topk.candidates(runtime, vectors, scales, asked, wanted, tiled)
                    return settled(index, q, inverse, *found, K).rows

                return work

            return prepare

        def plain() -> Any:
            scores = (units @ x.T) * index.inverse.astype(np.float32)
            best = np.argpartition(scores, -K, axis=1)[:, -K:]
            order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1)
            return np.take_along_axis(best, order, 1)

        def torch() -> Work:
            there, asked = on_torch(x * index.inverse[:, None].astype(np.float32), units)
            return lambda: (asked @ there.T).topk(K).indices

        def best(seconds: Any) -> float:
            return min(value for name, value in seconds.items() if "topk_" in name)

        steps = {"topk_tiles": step(True), "topk_scan": step(False)}
        return Case(
            f"top-{K} of {queries}",
            f"{rows:,} x {D} float32",
            *(rows * D, 2 * rows * D * queries, 4 * rows * D),
            lambda: kernels.topk(q, index, K).rows,
            {"NumPy matmul + argpartition": plain},
            dict(reversed(steps.items())) if queries >= gpu_topk.MANY else steps,
            {"torch matmul + topk": torch},
            goals=(
                DeviceGoal(
                    f"top-{K} of {queries} takes half of torch's matmul + topk",
                    lambda m: m.seconds["torch matmul + topk"] / best(m.seconds),
                    2,
                ),
            ),
        )

    return make


@cache
def _fitted() -> Any:
    """120 trees of 31 leaves over 16 features, some values missing."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8000, FEATURES))
    y = x[:, 0] + x[:, 1] * x[:, 2] + rng.normal(size=len(x)) > 0
    x[rng.random(x.shape) < 0.05] = np.nan
    return HistGradientBoostingClassifier(max_iter=120, early_stopping=False).fit(x, y)


def trees(n: int) -> Case:
    model = _fitted()
    rows = max(16, n // 256)
    x = np.random.default_rng(1).standard_normal((rows, FEATURES))
    x[::7, 3] = np.nan
    mine = from_sklearn(model)
    encoder = Encoder("benchmark", tuple(FeatureCode(f"f{i}") for i in range(FEATURES)))
    grown = [written_tree(predictor.nodes) for (predictor,) in model._predictors]
    file = onnx_graph.tree_ensemble(grown, float(np.ravel(model._baseline_prediction)[0]), encoder)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
    single = x.astype(np.float32)

    def onnx() -> Any:
        margin = session.run(["score"], {"features": single})[0].astype(np.float64)
        return np.log(margin / (1 - margin))

    def prepare(runtime: Runtime) -> Work:
        nodes, *rest = mine.trees.arrays()
        records = runtime.send(gpu_models.node_records(nodes))
        roots, firsts, values, base, there = map(runtime.send, (*rest, x))

        def work() -> Any:
            sums = gpu_models.trees_sum(
                runtime, records, roots, firsts, values, base, there, base_last=False
            )
            return sums.get()[:, 0]

        return work

    return Case(
        "trees",
        f"{rows:,} rows, {len(grown)} trees of 31 leaves",
        *(rows * len(grown), rows * len(grown) * 5, 8 * rows * (FEATURES + 1)),
        lambda: kernels.trees_sum(mine.trees, x)[:, 0],
        {"scikit-learn": lambda: model.decision_function(x), "ONNX Runtime, float32": onnx},
        {"trees_sum": prepare},
        same=close,
    )


def linear(n: int) -> Case:
    rows = max(16, n // FEATURES)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((rows, FEATURES), dtype=np.float32)
    center, weight = rng.standard_normal((2, FEATURES), dtype=np.float32)
    model = kernels.LinearModel(center, weight, 0.5)

    def prepare(runtime: Runtime) -> Work:
        there, c, w = map(runtime.send, (x, center, weight))
        return lambda: gpu_models.linear_margins(runtime, there, c, w, 0.5)

    return Case(
        "linear model",
        f"{rows:,} x {FEATURES} float32",
        *(rows * FEATURES, 3 * rows * FEATURES, 4 * rows * (FEATURES + 1)),
        lambda: kernels.linear_margins(model, x),
        {"NumPy, BLAS": lambda: (x - center) @ weight + np.float32(0.5)},
        {"linear_margins": prepare},
        same=close,
    )


CASES = [topk(1), topk(64), trees, linear]
