"""Logistic regression over the words of texts, weighted by how rare they are (TF-IDF), and all else given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from scipy import sparse
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression

from models.dataset import Dataset
from models.encoder import Encoder
from models.foreign_graph import alike_in_any_batch
from models.onnx_graph import serialize
from models.recipes.contract import check_parity
from models.recipes.encoding import encode
from models.recipes.errors import CannotTrain
from models.scorer import Scorer
from models.text_code import MAX_LENGTH, STEP, WordNumbers
from streams.task import TEXT, Task

Doubles = NDArray[np.float64]
ROWS = 16
"""Sigmoid is computed a register of rows at a time, and differs in the last bit for the rest."""
MAX_BUCKETS = 1 << 20


def text_linear(
    task: Task,
    rows: Dataset,
    seed: int,
    length: int = 128,
    buckets: int = 16_384,
    pairs: bool = True,
    penalty: float = 1.0,
    category_smoothing: float = 50.0,
) -> bytes:
    """L2-penalised logistic regression over TF-IDF of hashed words, standardised numbers and categories.

    A text counts by its first `length` different words and (`pairs`) pairs of neighbours, each in one of
    `buckets`: once, times its inverse document frequency, the whole of length 1 (as scikit-learn's
    TfidfTransformer). A missing text is one without words, a missing number the mean of its column.
    """
    if not 1 <= length <= MAX_LENGTH or not 1 <= buckets <= MAX_BUCKETS:
        raise CannotTrain(
            f"length={length!r}, buckets={buckets!r}: at most {MAX_LENGTH} words of a text,"
            f" {MAX_BUCKETS} buckets"
        )
    if not task.texts:
        raise CannotTrain(f"task {task.name} has no Text feature: text_linear reads words")
    code = WordNumbers(-(-length // STEP) * STEP, buckets, pairs)
    encoder, matrix = encode(task, rows, seed, category_smoothing, code)
    bags = [_Bag(encoder.places[name], buckets) for name in task.texts]
    numbers = _Numbers.fit(encoder, task, matrix)
    parts = [bag.fit(matrix) for bag in bags]
    model = LogisticRegression(C=1.0 / penalty, max_iter=1000, random_state=seed)
    model.fit(sparse.hstack([*parts, numbers(matrix)], format="csr"), rows.labels)
    data = _graph(encoder, bags, numbers, model.coef_[0], float(model.intercept_[0]))

    def library(values: Doubles) -> Doubles:
        columns = [*(bag(values) for bag in bags), numbers(values)]
        return np.asarray(model.predict_proba(sparse.hstack(columns, format="csr"))[:, 1])

    check_parity(data, rows, encoder, library)
    if not alike_in_any_batch(Scorer.from_bytes(data), matrix[:256]):
        raise CannotTrain("a row's score depends on the rows that are scored beside it")
    return data


class _Bag:
    """One text's columns of the encoded rows, as a sparse matrix (n, buckets)."""

    def __init__(self, place: slice, buckets: int) -> None:
        self.place = place
        self.buckets = buckets
        self._rarity = TfidfTransformer()

    def fit(self, matrix: NDArray[Any]) -> Any:
        return self._rarity.fit_transform(self._counts(matrix))

    def __call__(self, matrix: NDArray[Any]) -> Any:
        return self._rarity.transform(self._counts(matrix))

    @property
    def idf(self) -> Doubles:
        return np.asarray(self._rarity.idf_)

    def _counts(self, matrix: NDArray[Any]) -> Any:
        numbers = matrix[:, self.place].astype(np.int64)
        row, column = np.nonzero(numbers)
        return sparse.csr_matrix(
            (np.ones(len(row)), (row, numbers[row, column] - 1)), (len(matrix), self.buckets)
        )


class _Numbers:
    """The columns that are no text, standardised: (n, k)."""

    def __init__(self, columns: Sequence[int], center: Doubles, scale: Doubles) -> None:
        self.columns = list(columns)
        self.center = center
        self.scale = scale

    @classmethod
    def fit(cls, encoder: Encoder, task: Task, matrix: NDArray[Any]) -> _Numbers:
        places = encoder.places
        columns = [places[name].start for name, kind in task.kinds.items() if kind != TEXT]
        x = matrix[:, columns].astype(np.float64)
        known = ~np.isnan(x)
        count = np.maximum(known.sum(axis=0), 1)
        center = (np.where(known, x, 0.0).sum(axis=0) / count).astype(np.float32).astype(float)
        spread = np.sqrt((np.where(known, x - center, 0.0) ** 2).sum(axis=0) / count)
        return cls(columns, center, np.where(spread > 0, 1 / np.where(spread > 0, spread, 1), 0.0))

    def __call__(self, matrix: NDArray[Any]) -> Doubles:
        x = matrix[:, self.columns].astype(np.float64)
        return np.where(np.isnan(x), 0.0, x - self.center) * self.scale


def _graph(
    encoder: Encoder, bags: Sequence[_Bag], numbers: _Numbers, weights: Doubles, intercept: float
) -> bytes:
    """P(1) = sigmoid(intercept + each text's sum of weights over its length + sum over the numbers)."""
    nodes: list[NodeProto] = []
    values: dict[str, NDArray[Any]] = {
        "axis": np.array([1], np.int64),
        "least": np.array(1e-12, np.float32),
        "intercept": np.array([[intercept]], np.float32),
        "flat": np.array([-1], np.int64),
    }
    terms = ["intercept"]
    for index, bag in enumerate(bags):
        mine = weights[index * bag.buckets : (index + 1) * bag.buckets] * bag.idf
        name = f"text_{index}"
        values[f"{name}_begin"] = np.array([bag.place.start], np.int64)
        values[f"{name}_end"] = np.array([bag.place.stop], np.int64)
        values[f"{name}_weights"] = np.append(0.0, mine).astype(np.float32)  # 0 fills up
        values[f"{name}_squares"] = np.append(0.0, bag.idf**2).astype(np.float32)
        nodes += _text_nodes(name)
        terms.append(f"{name}_term")
    if numbers.columns:
        parts = [f"number_{index}" for index in range(len(numbers.columns))]
        values["columns"] = np.array(numbers.columns, np.int64)
        values["center"] = numbers.center.astype(np.float32)
        values["weight"] = (weights[-len(parts) :] * numbers.scale).astype(np.float32)
        values["sizes"] = np.ones(len(parts), np.int64)
        nodes += [
            helper.make_node("Gather", ["features", "columns"], ["numbers"], axis=1),
            helper.make_node("IsNaN", ["numbers"], ["missing"]),
            helper.make_node("Where", ["missing", "center", "numbers"], ["filled"]),
            helper.make_node("Sub", ["filled", "center"], ["centered"]),
            helper.make_node("Mul", ["centered", "weight"], ["products"]),
            helper.make_node("Split", ["products", "sizes"], parts, axis=1),
        ]
        terms += parts
    nodes += [
        helper.make_node("Sum", terms, ["margin"]),
        helper.make_node("Sigmoid", ["margin"], ["probability"]),
        helper.make_node("Reshape", ["probability", "flat"], ["score"]),
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in values.items()]
    return serialize(nodes, tensors, encoder, ROWS)


def _text_nodes(name: str) -> list[NodeProto]:
    here = (f"{name}_begin", f"{name}_end", "axis")
    return [
        helper.make_node("Slice", ["features", *here], [f"{name}_columns"]),
        helper.make_node("Cast", [f"{name}_columns"], [f"{name}_words"], to=TensorProto.INT64),
        helper.make_node("Gather", [f"{name}_weights", f"{name}_words"], [f"{name}_each"]),
        helper.make_node("ReduceSum", [f"{name}_each", "axis"], [f"{name}_sum"]),
        helper.make_node("Gather", [f"{name}_squares", f"{name}_words"], [f"{name}_square"]),
        helper.make_node("ReduceSum", [f"{name}_square", "axis"], [f"{name}_total"]),
        helper.make_node("Sqrt", [f"{name}_total"], [f"{name}_root"]),
        helper.make_node("Max", [f"{name}_root", "least"], [f"{name}_length"]),
        helper.make_node("Div", [f"{name}_sum", f"{name}_length"], [f"{name}_term"]),
    ]
