"""Batch scoring of tree ensembles and linear models on the right device: the same bits on each.

A device's sums run over the trees, or the features, in their order, in the type of the leaves; that is how
scikit-learn and ONNX Runtime add them up, too, so that the results are theirs (see `models.ensembles`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels import arrays, dispatch
from kernels.cpu import models as cpu
from kernels.gpu import models as gpu
from kernels.gpu.runtime import Runtime
from kernels.reference.models import LEAF, MISSING_LEFT

Array = NDArray[Any]
NODE = np.dtype([("threshold", np.float64), ("feature", np.int32), ("left", np.int32)])
"""value <= threshold goes to node `left`, else to the next one; bit 30 of `feature`: NaN goes left.

A leaf has feature LEAF, and in `left` the place of its values.
"""


@dataclass(frozen=True, slots=True)
class Tree:
    """A binary tree in arrays (node i), as libraries keep it: leaves have left < 0."""

    feature: Array
    threshold: Array
    missing_left: Array
    left: Array
    right: Array
    value: Array
    """(nodes, width): of leaves."""
    first: int = 0
    """The output that the leaf's first value is added to."""


@dataclass(frozen=True, slots=True)
class TreeEnsemble:
    """Sums of leaves: see `ensemble`, which makes one."""

    nodes: Array
    roots: NDArray[np.int32]
    firsts: NDArray[np.int32]
    values: Array
    base: Array
    features: int
    base_last: bool

    def arrays(self) -> tuple[Array, NDArray[np.int32], NDArray[np.int32], Array, Array]:
        """nodes, roots, firsts, values, base."""
        return self.nodes, self.roots, self.firsts, self.values, self.base


@dataclass(frozen=True, slots=True)
class LinearModel:
    """intercept + sum of weight * (x - center), float32; a missing value counts as its center."""

    center: NDArray[np.float32]
    weight: NDArray[np.float32]
    intercept: float


def ensemble(
    trees: Sequence[Tree], base: Any, features: int, dtype: Any, *, base_last: bool = False
) -> TreeEnsemble:
    """An ensemble for `features` columns whose sums have `dtype` (float32 or float64).

    base: (outputs,), added before the first tree, or after the last if `base_last`. All leaves have the same
    width. Raises ValueError for a feature, a child or an output that does not exist, or a loop.
    """
    start = np.atleast_1d(np.asarray(base, dtype))
    width = trees[0].value.shape[1] if trees else 1
    parts, values, roots = [], [], []
    count = leaves = 0
    for tree in trees:
        if tree.value.shape[1] != width or not 0 <= tree.first <= len(start) - width:
            raise ValueError(f"outputs {tree.first} + {tree.value.shape[1]} of {len(start)}")
        nodes, places = _laid_out(tree, features)
        leaf = nodes["feature"] == LEAF
        nodes["left"] = np.where(leaf, leaves + np.cumsum(leaf) - 1, nodes["left"] + count)
        roots.append(count)
        parts.append(nodes)
        values.append(tree.value[places[leaf]].astype(dtype))
        count += len(nodes)
        leaves += int(leaf.sum())
    return TreeEnsemble(
        np.concatenate([np.empty(0, NODE), *parts]),
        np.array(roots, np.int32),
        np.array([tree.first for tree in trees], np.int32),
        np.concatenate([np.empty((0, width), dtype), *values]),
        start,
        features,
        base_last,
    )


def trees_sum(model: TreeEnsemble, x: Any, *, force: bool = False) -> Array:
    """(n, outputs): per row the base plus the leaves that it reaches, in the order of the trees.

    x: (n, features) float32 or float64, NaN for missing. `force`: on the device in use, however few rows
    there are. Raises ValueError for another shape, TypeError for other types.
    """
    rows = _matrix(x, model.features)

    return dispatch.run(
        "trees",
        len(rows) * len(model.roots),
        lambda runtime: on_device(runtime, model, rows),
        lambda: cpu.trees_sum(*model.arrays(), rows, base_last=model.base_last),
        resident=force,
    )


def on_device(runtime: Runtime, model: TreeEnsemble, rows: Array) -> Array:
    """The same on a device, in as few parts as its memory allows; raises DeviceFailed."""
    records = runtime.send(gpu.node_records(model.nodes))
    roots, firsts, values, base = map(
        runtime.send, (model.roots, model.firsts, model.values, model.base)
    )
    out = np.empty((len(rows), len(model.base)), model.values.dtype)

    def some(start: int, stop: int) -> None:
        mine = runtime.send(rows[start:stop])
        sums = gpu.trees_sum(
            runtime, records, roots, firsts, values, base, mine, base_last=model.base_last
        )
        out[start:stop] = sums.get()

    dispatch.in_chunks(len(rows), some)
    return out


def linear_margins(model: LinearModel, x: Any, *, force: bool = False) -> NDArray[np.float32]:
    """(n,): the margin of each row; x: (n, features) float32. The rest as `trees_sum`."""
    rows = _matrix(x, len(model.weight)).astype(np.float32, copy=False)

    def device(runtime: Runtime) -> NDArray[np.float32]:
        center, weight = runtime.send(model.center), runtime.send(model.weight)
        out = np.empty(len(rows), np.float32)

        def some(start: int, stop: int) -> None:
            mine = runtime.send(rows[start:stop])
            out[start:stop] = gpu.linear_margins(
                runtime, mine, center, weight, model.intercept
            ).get()

        dispatch.in_chunks(len(rows), some)
        return out

    return dispatch.run(
        "linear",
        rows.size,
        device,
        lambda: cpu.linear_margins(model.center, model.weight, np.float32(model.intercept), rows),
        resident=force,
    )


def _laid_out(tree: Tree, features: int) -> tuple[Array, NDArray[np.int64]]:
    """Nodes breadth first, children side by side, and where each stood; `left` of leaves is not set."""
    order, lefts = [0], []
    for at in order:  # grows while it is walked
        if tree.left[at] < 0:
            lefts.append(0)
            continue
        if len(order) + 2 > len(tree.left):
            raise ValueError("a tree whose nodes have more than one parent")
        lefts.append(len(order))
        order += [int(tree.left[at]), int(tree.right[at])]
        if not all(0 <= child < len(tree.left) for child in order[-2:]):
            raise ValueError(f"a tree of {len(tree.left)} nodes with children {order[-2:]}")
    places = np.array(order, np.int64)
    inner = tree.left[places] >= 0
    feature = tree.feature[places]
    if inner.any() and not 0 <= feature[inner].min() <= feature[inner].max() < features:
        raise ValueError(f"a split on feature {feature[inner].max()} of {features}")
    nodes = np.zeros(len(places), NODE)
    nodes["threshold"] = np.where(inner, tree.threshold[places], 0.0)
    flags = np.where(tree.missing_left[places].astype(np.bool_), MISSING_LEFT, 0)
    nodes["feature"] = np.where(inner, feature | flags, LEAF)
    nodes["left"] = lefts
    return nodes, places


def _matrix(x: Any, features: int) -> Array:
    rows: Array = arrays.taken(x, "x", arrays.FLOATS, 2)
    if rows.shape[1] != features:
        raise ValueError(f"x has the shape {rows.shape}; the model reads {features} features")
    return rows
