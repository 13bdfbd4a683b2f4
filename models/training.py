"""Train, evaluate and judge one challenger: the core that the trainer and the benchmarks share. No I/O.

1. Golden rows (a fixed share, by the hash of the id) are set aside for ever.
2. *Honest fit*: on the rows before the recent window with the labels known by then; it is judged against
   the champion on the recent window and on the golden set, and its numbers are the version's metrics.
3. *Refit*: with the same recipe on all training rows, the recent ones too; this is what is registered,
   because the newest days matter most where data drift.
4. *Cross-fit*: two fits on alternate windows score each other's rows, so the reference of the score comes
   from rows that the scoring model did not see, over the whole training time.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import platform
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import dataset, encoder, foreign_graph, gates, network, onnx_graph, recipes
from models.dataset import Dataset, golden_rows
from models.decision_cost import choose_threshold
from models.gates import Losses, Verdict, judge, log_loss, metrics
from models.recipes import CannotTrain, fit
from models.scorer import Scorer
from streams import components, derived, reference
from streams.reference import Kind, build_reference
from streams.task import DAY_MS, Task

MIN_FIT_ROWS = 100
HELD_OUT = 0.25
"""Largest share of the rows that the recent window may take from the honest fit."""
_LIBRARIES = ("numpy", "scikit-learn", "onnx", "onnxruntime")
_OTHERS = ("optuna", "river", "safetensors", "skl2onnx", "torch")
"""Told where they are installed."""


@dataclass(frozen=True, slots=True)
class Champion:
    """The version to beat. `trained_until` (ms): its rows have labels before this; None if it saw none."""

    version: str
    scorer: Scorer
    trained_until: int | None = None

    @property
    def untrained(self) -> bool:
        return self.trained_until is None


@dataclass(frozen=True, slots=True)
class Trained:
    """A challenger: `onnx` is the refitted file; the rest comes from rows the scoring fit did not see."""

    version: str
    onnx: bytes
    metrics: dict[str, float]
    reference: list[dict[str, Any]]
    reference_count: int
    verdict: Verdict


def train(
    task: Task,
    rows: Dataset,
    labels_until: int,
    champion: Champion | None,
    golden: Dataset | None,
    version: str,
    checkpoints: Path | None = None,
) -> Trained:
    """Raises CannotTrain. `rows`: the snapshot, golden rows and all; `golden`: the task's golden set, if cut.

    Without a champion the task's prior score is the one to beat. `checkpoints`: see `recipes.fit`.
    """
    training = rows.where(~golden_rows(rows.ids, task.gate.golden_share))
    if len(training) < MIN_FIT_ROWS:
        raise CannotTrain(
            f"{len(training)} labelled rows; {MIN_FIT_ROWS} are the least to learn from"
        )
    cut = recent_from(task, training.times, labels_until)
    honest = _scorer(task, before_recent(task, rows, labels_until), checkpoints)
    recent = _fresh(task, rows, cut, champion)
    scores = honest.score_columns(recent.columns, len(recent))
    measured = metrics(recent.labels, scores)
    golden_losses = None
    if golden is not None:
        golden_losses = _losses(task, honest, champion, golden)
        measured["golden_log_loss"] = golden_losses.challenger
        measured["golden_rows"] = float(golden_losses.count)
    verdict = judge(
        task.gate,
        golden_losses,
        _losses(task, honest, champion, recent),
        challenger=version,
        champion=champion.version if champion else "the prior",
        first=champion is None or champion.untrained,
    )
    measured["training_rows"] = float(len(training))
    onnx = _fit(task, training, checkpoints)
    if task.recipe.costs is not None and len(recent):
        choice = choose_threshold(recent.labels, scores, task.recipe.costs, task.decision_threshold)
        measured |= {"threshold": choice.threshold, "cost": choice.cost, "task_cost": choice.before}
        onnx = onnx_graph.with_note(onnx, onnx_graph.THRESHOLD, repr(choice.threshold))
    return Trained(
        version,
        onnx,
        measured,
        reference_of(task, training, checkpoints),
        len(training),
        verdict,
    )


def before_recent(task: Task, rows: Dataset, labels_until: int) -> Dataset:
    """What a search may look at: neither golden rows nor any that will judge the result."""
    training = rows.where(~golden_rows(rows.ids, task.gate.golden_share))
    if not len(training):
        return training
    cut = recent_from(task, training.times, labels_until)
    return training.where((training.times < cut) & (training.label_times < cut))


def recent_from(task: Task, times: NDArray[np.int64], labels_until: int) -> int:
    """Where the recent window begins: `recent_days` before `labels_until`, or later if data are young."""
    wanted = labels_until - task.gate.recent_days * DAY_MS
    quantile = np.quantile(times, 1 - HELD_OUT, method="inverted_cdf")
    return max(wanted, int(quantile))


def golden_set(task: Task, rows: Dataset) -> NDArray[np.bool_] | None:
    """Which rows of a first snapshot become the golden set; None while they are too few to judge by."""
    mask = golden_rows(rows.ids, task.gate.golden_share)
    return mask if int(mask.sum()) >= task.gate.min_rows else None


def environment() -> dict[str, str]:
    """Versions of what made the file; `code` is the SHA-256 of our own modules that had a part in it."""
    found = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    for name in _OTHERS:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return {"python": platform.python_version(), "code": code_version(), **found}


def code_version() -> str:
    """SHA-256 (hex) over the sources of the modules that decide what comes out of a training."""
    digest = hashlib.sha256()
    this = sys.modules[__name__]
    streams = components, derived, reference
    for module in (dataset, encoder, gates, onnx_graph, network, foreign_graph, *streams, this):
        digest.update(inspect.getsource(module).encode())
    for file in sorted(Path(recipes.__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _fresh(task: Task, rows: Dataset, cut: int, champion: Champion | None) -> Dataset:
    """Recent rows that neither model learned from (golden rows train nobody)."""
    mask = rows.times >= cut
    if champion is not None and champion.trained_until is not None:
        unseen = (rows.label_times >= champion.trained_until) | golden_rows(
            rows.ids, task.gate.golden_share
        )
        mask &= unseen
    return rows.where(mask)


def _losses(task: Task, honest: Scorer, champion: Champion | None, rows: Dataset) -> Losses:
    if champion is None:
        before = np.full(len(rows), task.prior_score)
    else:
        before = champion.scorer.score_columns(rows.columns, len(rows))
    scores = honest.score_columns(rows.columns, len(rows))
    return Losses(log_loss(rows.labels, scores), log_loss(rows.labels, before), len(rows))


def _fit(task: Task, rows: Dataset, checkpoints: Path | None) -> bytes:
    recipe = task.recipe
    return fit(task, rows, recipe.name, recipe.parameters, recipe.seed, checkpoints)


def _scorer(task: Task, rows: Dataset, checkpoints: Path | None) -> Scorer:
    if len(rows) < MIN_FIT_ROWS:
        raise CannotTrain(
            f"{len(rows)} labelled rows before the recent window; {MIN_FIT_ROWS} are the least"
        )
    return Scorer.from_bytes(_fit(task, rows, checkpoints))


def reference_of(
    task: Task, training: Dataset, checkpoints: Path | None = None
) -> list[dict[str, Any]]:
    windows = training.times // task.window_ms
    kinds: Mapping[str, Kind] = task.vector  # type: ignore[assignment]
    return build_reference(
        training.columns,  # type: ignore[arg-type]
        kinds,
        held_out_scores(training, windows, lambda rows: _scorer(task, rows, checkpoints)),  # type: ignore[arg-type]
        windows.tolist(),
        task.drift,
        training.labels,
    )


def held_out_scores(
    rows: Dataset, windows: NDArray[np.int64], scorer: Callable[[Dataset], Scorer]
) -> NDArray[np.float64]:
    """A score for each row by a model that did not learn from its window: two fits, on alternate windows.

    With a single window, rows alternate instead. Raises CannotTrain.
    """
    order = np.unique(windows, return_inverse=True)[1]
    half = (order if order.max(initial=0) > 0 else np.arange(len(rows))) % 2 == 0
    scores = np.empty(len(rows))
    for mask in (half, ~half):
        other = rows.where(mask)
        scores[mask] = scorer(rows.where(~mask)).score_columns(other.columns, len(other))
    return scores
