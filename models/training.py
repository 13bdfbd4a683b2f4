"""Train, evaluate and judge one challenger: the core that the trainer and the benchmarks share. No I/O.

1. Golden rows (a fixed share, by the hash of the id) are set aside for ever.
2. *Honest fit*: on the rows before the recent window with the labels known by then; it is judged against
   the champion on the recent window and on the golden set, and its numbers are the version's metrics.
3. *Refit*: with the same recipe on all training rows, the recent ones too; this is what is registered,
   because the newest days matter most where data drift.
4. *Cross-fit*: two fits on alternate windows score each other's rows, so the reference of the score comes
   from rows that the scoring model did not see, over the whole training time.

If the request says since when the world may be another, fits on the rows since then are tried beside the one
on all rows, and the newest rows choose (see `models.scopes`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import inspect
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import (
    calibration,
    dataset,
    encoder,
    evidence,
    foreign_graph,
    gates,
    intervals,
    maturity,
    measures,
    network,
    onnx_graph,
    parity,
    recipes,
    sampling,
    scopes,
    text_code,
)
from models.dataset import Dataset, golden_rows
from models.decision_cost import choose_threshold
from models.evidence import Judged
from models.gates import Verdict, judge, metrics
from models.latency import Clock, latencies
from models.measures import BYTES, LATENCY, Measure
from models.recipes import CannotTrain, fit
from models.scorer import Scorer, with_sample
from streams import components, derived, estimate, reference, texts
from streams.estimate import calibration_map, usual_errors
from streams.reference import Kind, build_reference
from streams.task import DAY_MS, SCORE, Task

MIN_FIT_ROWS = 100
HELD_OUT = 0.25
"""Largest share of the rows that the recent window may take from the honest fit."""
_LIBRARIES = ("numpy", "scikit-learn", "onnx", "onnxruntime")
_OTHERS = ("optuna", "river", "safetensors", "skl2onnx", "tokenizers", "torch", "transformers")
"""Told where they are installed."""


@dataclass(frozen=True, slots=True)
class Champion:
    """The version to beat. `trained_until` (ms): its rows have labels before this; None if it saw none.

    `bytes`: size of its file, if known.
    """

    version: str
    scorer: Scorer
    trained_until: int | None = None
    bytes: int | None = None

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
    calibration: tuple[dict[str, Any], ...] = ()
    """CalibrationBins of the held-out scores."""
    estimate_errors: Mapping[str, float] = field(default_factory=dict)


def train(
    task: Task,
    rows: Dataset,
    labels_until: int,
    champion: Champion | None,
    golden: Dataset | None,
    version: str,
    clock: Clock | None = None,
    checkpoints: Path | None = None,
    tried_since: Sequence[int] = (),
) -> Trained:
    """Raises CannotTrain. `rows`: the snapshot, golden rows and all; `golden`: the task's golden set, if cut.

    Without a champion the task's prior score is the one to beat; without a `clock` no latency is measured.
    `checkpoints`: see `recipes.fit`. `tried_since` (ms): fits on the rows since each are tried, too.
    """
    training = rows.where(~golden_rows(rows.ids, task.gate.golden_share))
    training = sampling.training_sample(training, task.recipe, task.window_ms)
    if len(training) < MIN_FIT_ROWS:
        raise CannotTrain(
            f"{len(training)} labelled rows; {MIN_FIT_ROWS} are the least to learn from"
        )
    scope = _scope(task, rows, training, labels_until, tried_since, checkpoints)
    if scope is not None and scope.chosen is not None:
        training, cut = scope.chosen, scope.cut
    else:
        cut = recent_from(task, training.times, labels_until)
    honest = _honest(task, training, cut, checkpoints)
    recent = _judged(task, honest, champion, _fresh(task, rows, cut, champion))
    measured = metrics(recent.rows.labels, recent.challenger)
    measured |= scope.measured if scope else {}
    told = calibration.calibration(recent.rows.labels, recent.challenger)
    if told is not None:
        measured["calibration_error"] = told.error
        measured["calibration_slope"] = told.slope
        measured["calibration_intercept"] = told.intercept
    golden_losses = None
    if golden is not None:
        golden_losses = _judged(task, honest, champion, golden).losses(task)
        measured["golden_log_loss"] = golden_losses.challenger
        measured["golden_rows"] = float(golden_losses.count)
    onnx = _fit(task, training, checkpoints)
    if task.recipe.costs is not None and len(recent.rows):
        labels, usual = recent.rows.labels, task.decision_threshold
        choice = choose_threshold(labels, recent.challenger, task.recipe.costs, usual)
        measured |= {"threshold": choice.threshold, "cost": choice.cost, "task_cost": choice.before}
        onnx = onnx_graph.with_note(onnx, onnx_graph.THRESHOLD, repr(choice.threshold))
    onnx = with_sample(onnx, training.columns, len(training))
    known = evidence.maturity_of(task, rows, recent.rows, labels_until)
    verdict = judge(
        task.gate,
        golden_losses,
        recent.losses(task, known),
        challenger=version,
        champion=champion.version if champion else "the prior",
        first=champion is None or champion.untrained,
        more=[
            *evidence.beyond_losses(task, recent, known),
            *_costs(onnx, champion, recent.rows, clock),
        ],
    )
    measured["training_rows"] = float(len(training))
    reference, bins, errors = described(task, training, checkpoints)
    if scope is not None:
        verdict = dataclasses.replace(verdict, reason=f"{verdict.reason}; {scope.words}")
    return Trained(version, onnx, measured, reference, len(training), verdict, bins, errors)


def before_recent(task: Task, rows: Dataset, labels_until: int) -> Dataset:
    """What a search may look at: neither golden rows nor any that will judge the result."""
    training = rows.where(~golden_rows(rows.ids, task.gate.golden_share))
    if not len(training):
        return training
    training = sampling.training_sample(training, task.recipe, task.window_ms)
    cut = recent_from(task, training.times, labels_until)
    return training.where(_known(training, cut))


def recent_from(task: Task, times: NDArray[np.int64], labels_until: int, least: int = 0) -> int:
    """Where the recent window begins: `recent_days` before `labels_until`, or later if data are young.

    Of few rows it may take more than HELD_OUT, up to half, so that `least` lie in it.
    """
    wanted = labels_until - task.gate.recent_days * DAY_MS
    share = max(HELD_OUT, min(0.5, least / max(1, len(times))))
    quantile = np.quantile(times, 1 - share, method="inverted_cdf")
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
    streams = components, derived, estimate, reference, texts
    evaluation = calibration, evidence, gates, intervals, maturity, measures
    graphs = onnx_graph, network, foreign_graph, parity
    samples = sampling, scopes, text_code
    for module in (dataset, encoder, *evaluation, *graphs, *samples, *streams, this):
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


def _judged(task: Task, honest: Scorer, champion: Champion | None, rows: Dataset) -> Judged:
    if champion is None:
        before = np.full(len(rows), task.prior_score)
    else:
        before = champion.scorer.score_columns(rows.columns, len(rows))
    return Judged(rows, honest.score_columns(rows.columns, len(rows)), before)


def _costs(
    onnx: bytes, champion: Champion | None, rows: Dataset, clock: Clock | None
) -> list[Measure]:
    """Size and latency of the file that would answer, beside the champion's."""
    before = champion.bytes if champion else None
    found = [Measure(BYTES, float(len(onnx)), float(before) if before else None, 1)]
    if clock is not None and champion is not None and len(rows):
        scorer = Scorer.from_bytes(onnx)
        value, baseline = latencies(scorer, champion.scorer, rows.columns, clock)
        found.append(Measure(LATENCY, value, baseline, len(rows)))
    return found


def _fit(task: Task, rows: Dataset, checkpoints: Path | None) -> bytes:
    recipe = task.recipe
    return fit(task, rows, recipe.name, recipe.parameters, recipe.seed, checkpoints)


def _scope(
    task: Task,
    rows: Dataset,
    training: Dataset,
    labels_until: int,
    tried_since: Sequence[int],
    checkpoints: Path | None,
) -> scopes.Scope | None:
    """What came of shorter training times; None if there are none with rows enough to fit and to judge by.

    All fits are made without the recent window of the shortest, and judged there.
    """
    least = task.gate.min_rows
    tried = scopes.shorter(training, tried_since, 2 * least)
    while tried:
        cut = recent_from(task, tried[-1].times, labels_until, least)
        if int(_known(tried[-1], cut).sum()) >= MIN_FIT_ROWS:
            break
        tried.pop()
    if not tried:
        return None
    fresh = rows.where(rows.times >= cut)
    fits = [_honest(task, each, cut, checkpoints) for each in (training, *tried)]
    scored = [fit.score_columns(fresh.columns, len(fresh)) for fit in fits]
    return scopes.choose(fresh.labels, scored, tried, cut)


def _known(rows: Dataset, cut: int) -> NDArray[np.bool_]:
    """Rows whose labels were known when the recent window began."""
    return (rows.times < cut) & (rows.label_times < cut)


def _honest(task: Task, training: Dataset, cut: int, checkpoints: Path | None) -> Scorer:
    return _scorer(task, training.where(_known(training, cut)), checkpoints)


def _scorer(task: Task, rows: Dataset, checkpoints: Path | None) -> Scorer:
    if len(rows) < MIN_FIT_ROWS:
        raise CannotTrain(
            f"{len(rows)} labelled rows before the recent window; {MIN_FIT_ROWS} are the least"
        )
    return Scorer.from_bytes(_fit(task, rows, checkpoints))


def fit_and_score(task: Task) -> Callable[[Dataset], Callable[[Dataset], NDArray[np.float64]]]:
    """Trains by the task's recipe on any rows and scores any others; raises CannotTrain."""

    def fitted(rows: Dataset) -> Callable[[Dataset], NDArray[np.float64]]:
        scorer = Scorer.from_bytes(_fit(task, rows, None))
        return lambda others: scorer.score_columns(others.columns, len(others))

    return fitted


def reference_of(task: Task, training: Dataset) -> list[dict[str, Any]]:
    return described(task, training)[0]


def described(
    task: Task, training: Dataset, checkpoints: Path | None = None
) -> tuple[list[dict[str, Any]], tuple[dict[str, Any], ...], dict[str, float]]:
    """Reference, calibration and usual errors of its estimates, from the same held-out scores."""
    windows = training.times // task.window_ms
    kinds: Mapping[str, Kind] = task.kinds  # type: ignore[assignment]
    scores = held_out_scores(training, windows, lambda rows: _scorer(task, rows, checkpoints))
    built = build_reference(
        training.columns,  # type: ignore[arg-type]
        kinds,
        scores,  # type: ignore[arg-type]
        windows.tolist(),
        task.drift,
        training.labels,
    )
    edges = next(column["edges"] for column in built if column["name"] == SCORE)
    bins = calibration_map(scores, training.labels, edges, task.decision_threshold)
    errors = usual_errors(
        *(bins, scores, training.labels, edges, task.decision_threshold, windows),
        task.drift.min_rows,
    )
    return built, tuple(bins), errors


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
