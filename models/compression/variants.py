"""The variants of a model: made, measured beside it, judged."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from models.compression.distillation import distil
from models.compression.gate import CompressionPolicy, gates, verdict
from models.compression.low_rank import factorise
from models.compression.pruning import prune
from models.compression.quantisation import quantise
from models.compression.tuning import tune
from models.dataset import Dataset
from models.gates import auc, log_loss
from models.network import NotANetwork, read, write
from models.onnx_graph import METADATA, PAD, WEIGHTS
from models.parity import PARITY
from models.recipes import CannotTrain
from models.scorer import Scorer, with_sample
from streams.task import Task

STRENGTHS = {"int8": 0.0, "prune": 0.3, "low_rank": 0.9, "distil": 0.5}
"""Method -> its default strength: share of units to leave out, of energy to keep, of size to keep."""
METHODS = tuple(STRENGTHS)
_REPEATS = 7


@dataclass(frozen=True, slots=True)
class Original:
    """A model, what it was made by, the rows that it learned from, and rows that it has not seen."""

    task: Task
    data: bytes
    recipe: str
    parameters: Mapping[str, Any]
    seed: int
    learned: Dataset
    unseen: Dataset


@dataclass(frozen=True, slots=True)
class Measured:
    """One line of the table. `single_us`, `row_us`: of a row alone and in a batch of 256 (median).

    `difference`, `largest`: mean and largest distance of its scores from the original's. `reason`: why
    it is refused, or was not made; empty if it may take the original's place.
    """

    method: str
    data: bytes | None
    bytes: int = 0
    single_us: float = 0.0
    row_us: float = 0.0
    log_loss: float = 0.0
    auc: float = 0.0
    difference: float = 0.0
    largest: float = 0.0
    gates: Sequence[Mapping[str, Any]] = field(default_factory=list)
    reason: str = ""


def variant(original: Original, method: str, strength: float | None = None) -> bytes:
    """The compressed file; raises CannotTrain if the method does not fit the model."""
    amount = STRENGTHS[method] if strength is None else strength
    scorer = Scorer.from_bytes(original.data)
    learned = original.learned
    if method == "distil":
        given = original.parameters
        return distil(original.task, learned, scorer, original.recipe, given, original.seed, amount)
    notes = notes_of(original.data)
    matrix = scorer.encoder.encode_columns(learned.columns, len(learned))
    if method == "int8" and WEIGHTS in notes:
        return quantise(original.data, matrix, notes)
    try:
        network = read(original.data)
    except NotANetwork as error:
        raise CannotTrain(f"{method} is for networks: {error}") from error
    if method == "int8":
        return quantise(original.data, matrix, notes)
    if method == "low_rank":
        return write(factorise(network, amount), scorer.encoder, notes)
    pruned, whole = prune(network, amount), scorer.score_matrix(matrix)
    tries = [pruned]
    if pruned.parameters < network.parameters:
        tries.append(tune(pruned, matrix, whole, original.seed))
    files = [write(one, scorer.encoder, notes) for one in tries]

    def apart(data: bytes) -> float:
        return float(np.abs(Scorer.from_bytes(data).score_matrix(matrix) - whole).mean())

    return min(files, key=apart)  # where units that said nothing went, there is nothing to learn


def notes_of(data: bytes) -> dict[str, str]:
    """The file's metadata beside its code book."""
    properties = onnx.load_model_from_string(data).metadata_props
    own = (METADATA, PAD, PARITY)
    return {item.key: item.value for item in properties if item.key not in own}


def table(
    original: Original,
    methods: Sequence[str],
    policy: CompressionPolicy,
    strength: float | None = None,
    on_method: Callable[[str], None] = lambda method: None,
) -> list[Measured]:
    """The original, then each variant; a method that does not fit is a line with its reason."""
    rows = original.unseen
    before = Scorer.from_bytes(original.data).score_columns(rows.columns, len(rows))
    found = [measure("original", original.data, rows, before, None)]
    for method in methods:
        on_method(method)
        try:
            data = _sampled(original, variant(original, method, strength))
        except CannotTrain as error:
            found.append(Measured(method, None, reason=str(error)))
            continue
        found.append(measure(method, data, rows, before, policy))
    return found


def _sampled(original: Original, data: bytes) -> bytes:
    rows = original.learned
    return with_sample(data, rows.columns, len(rows))


def measure(
    method: str,
    data: bytes,
    rows: Dataset,
    before: np.ndarray[Any, np.dtype[np.float64]],
    policy: CompressionPolicy | None,
) -> Measured:
    """`before`: the original's scores of `rows`; without a policy nothing is judged."""
    scorer = Scorer.from_bytes(data)
    scores = scorer.score_columns(rows.columns, len(rows))
    apart = np.abs(scores - before)
    loss, difference = log_loss(rows.labels, scores), float(apart.mean()) if len(rows) else 0.0
    judged = (
        gates(policy, loss, log_loss(rows.labels, before), difference, len(rows)) if policy else []
    )
    matrix = scorer.encoder.encode_columns(rows.columns, len(rows))
    return Measured(
        *(method, data, len(data), _median_us(scorer, matrix[:1])),
        row_us=_median_us(scorer, np.resize(matrix, (256, matrix.shape[1]))) / 256,
        log_loss=loss,
        auc=auc(rows.labels, scores),
        difference=difference,
        largest=float(apart.max(initial=0.0)),
        gates=judged,
        reason=verdict(policy, judged) if policy else "",
    )


def _median_us(scorer: Scorer, matrix: np.ndarray[Any, np.dtype[np.float32]]) -> float:
    took = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        for _ in range(5):
            scorer.score_matrix(matrix)
        took.append((time.perf_counter() - began) / 5)
    return statistics.median(took) * 1e6
