"""Train a version again from its lineage alone, and say whether the same model comes out."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from models import recipes, snapshot_file, starts, training
from models.artifacts import ArtifactRefused, ArtifactStore
from models.dataset import Dataset, from_arrow
from models.history import History
from models.registry import RegistryState, Request, Version
from models.scorer import Scorer
from streams.task import Recipe, Task

SAMPLING = ("max_rows", "sampling", "half_life_days")
"""What TrainingStarted tells besides the recipe's parameters."""
TOLERANCE = 1e-6
"""Largest difference of a score, on any row of the snapshot, at which two models count as the same."""


class NotReproducible(Exception):
    """Something that the version was made from is gone; the message says what."""


@dataclass(frozen=True, slots=True)
class Reproduced:
    """What came of it. `differences`: in the environment, name -> (then, now)."""

    version: str
    artifact: str
    again: str
    rows: int
    largest_difference: float
    tolerance: float
    metrics: dict[str, tuple[float, float]]
    """Only those that differ: (registered, now)."""
    verdict: str | None
    """The reason that the gates give now, if the version was judged."""
    decided: str | None
    """The reason in the log."""
    differences: dict[str, tuple[str | None, str | None]]
    recut: bool
    """Whether the snapshot's file was gone and its rows were read from the history again, to the byte."""

    @property
    def identical(self) -> bool:
        return self.artifact == self.again

    @property
    def within(self) -> bool:
        return self.identical or self.largest_difference <= self.tolerance

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "identical": self.identical, "within": self.within}


def reproduce(
    task: Task,
    state: RegistryState,
    version: Version,
    store: ArtifactStore,
    history: History | None = None,
    tolerance: float = TOLERANCE,
) -> Reproduced:
    """Raises NotReproducible, and CannotTrain if the same rows no longer train.

    All inputs come from the log: the snapshot by its hash (cut from `history` again if the file is gone),
    recipe, parameters and seed of the version, the golden set and champion that it was judged by.
    """
    request = state.requests.get(version.request_id, Request())
    then = dataclasses.replace(task, recipe=_recipe(task, version, request))
    lost = sorted(set(version.features) - set(task.vector))
    if lost:
        raise NotReproducible(
            f"{version.version} learned from {lost[0]!r}, which the task has lost"
        )
    differences = _environment(version)
    if version.snapshot is None:
        return _constant(then, version, differences, tolerance)
    taken = request.step("SnapshotTaken", purpose="training")
    if taken is None:
        raise NotReproducible(f"the log holds no snapshot of request {version.request_id}")
    rows, recut = _rows(then, taken, store, history)
    golden = None
    if version.golden is not None:
        golden = _rows(then, _golden(state, version), store, None)[0]
    made = training.train(
        starts.located(then, state, store),
        rows,
        int(taken["to_time"]),
        _champion(state, version, store),
        golden,
        version.version,
        tried_since=request.asked.get("tried_since", ()) if request.asked else (),
    )
    decision = next(
        (
            d
            for d in state.decisions.get(version.task, ())
            if d.version == version.version and d.gates
        ),
        None,
    )
    again = hashlib.sha256(made.onnx).hexdigest()
    return Reproduced(
        version=version.version,
        artifact=version.artifact,
        again=again,
        rows=len(rows),
        largest_difference=_difference(version, again, made.onnx, rows, store),
        tolerance=tolerance,
        metrics={
            name: (version.metrics.get(name, float("nan")), value)
            for name, value in made.metrics.items()
            if version.metrics.get(name) != value
        },
        verdict=made.verdict.reason,
        decided=decision.reason if decision else None,
        differences=differences,
        recut=recut,
    )


def _recipe(task: Task, version: Version, request: Request) -> Recipe:
    """As the version was trained: what a search found, and the rows that were sampled."""
    parameters = json.loads(version.parameters)
    if "compression" in parameters:
        raise NotReproducible(
            f"{version.version} was made from the file of {version.parent}, not from rows:"
            f" reproduce {version.parent}, and compress it again"
        )
    started = request.step("TrainingStarted", model_version=version.version)
    told = json.loads(started["parameters"]) if started else {}
    fields = {"max_rows": None, **{name: told[name] for name in SAMPLING if name in told}}
    costs = task.recipe.costs if "threshold" in version.metrics else None
    return dataclasses.replace(
        task.recipe,
        name=version.recipe,
        parameters=parameters,
        seed=version.seed,
        search={},
        costs=costs,
        **fields,
    )


def _golden(state: RegistryState, version: Version) -> Mapping[str, Any]:
    """The golden set of its time."""
    for taken in state.golden_sets.get(version.task, ()):
        if taken["snapshot"] == version.golden:
            return taken
    raise NotReproducible(f"the log holds no golden set {str(version.golden)[:12]}")


def _constant(
    task: Task,
    version: Version,
    differences: dict[str, tuple[str | None, str | None]],
    tolerance: float,
) -> Reproduced:
    """A cold start: no rows, the task's prior score."""
    score = json.loads(version.parameters).get("score")
    made = recipes.constant(task, None, version.seed, score)
    return Reproduced(
        version=version.version,
        artifact=version.artifact,
        again=hashlib.sha256(made).hexdigest(),
        rows=0,
        largest_difference=0.0,
        tolerance=tolerance,
        metrics={},
        verdict=None,
        decided=None,
        differences=differences,
        recut=False,
    )


def _rows(
    task: Task, taken: Mapping[str, Any], store: ArtifactStore, history: History | None
) -> tuple[Dataset, bool]:
    """The rows of a snapshot, and whether they had to be read from the history again."""
    try:
        return snapshot_file.from_parquet(task, store.read(taken["path"], taken["snapshot"])), False
    except ArtifactRefused as error:
        if history is None:
            raise NotReproducible(f"the snapshot is not what the log says: {error}") from error
    rows = from_arrow(task, history.query(taken["sql"]))
    found = hashlib.sha256(snapshot_file.to_parquet(task, rows)).hexdigest()
    if found != taken["snapshot"]:
        raise NotReproducible(
            f"snapshot {taken['snapshot'][:12]} is gone, and its query gives {found[:12]} now"
        )
    return rows, True


def _champion(
    state: RegistryState, version: Version, store: ArtifactStore
) -> training.Champion | None:
    """The version that it was compared with."""
    parent = state.versions.get(version.parent or "")
    if parent is None:
        return None
    try:
        scorer = Scorer.load(store.path(parent.path), parent.artifact)
    except ArtifactRefused as error:
        raise NotReproducible(f"the file of its champion {parent.version}: {error}") from error
    request = state.requests.get(parent.request_id, Request())
    taken = request.step("SnapshotTaken", purpose="training")
    return training.Champion(parent.version, scorer, int(taken["to_time"]) if taken else None)


def _difference(
    version: Version, again: str, made: bytes, rows: Dataset, store: ArtifactStore
) -> float:
    """The largest difference of a score between the registered file and the new one."""
    if again == version.artifact or not len(rows):
        return 0.0
    try:
        registered = Scorer.load(store.path(version.path), version.artifact)
    except ArtifactRefused as error:
        raise NotReproducible(f"another file came out, and {error}: nothing to compare") from error
    before = registered.score_columns(rows.columns, len(rows))
    after = Scorer.from_bytes(made).score_columns(rows.columns, len(rows))
    return float(np.max(np.abs(before - after)))


def _environment(
    version: Version, now: Callable[[], Mapping[str, str]] = training.environment
) -> dict[str, tuple[str | None, str | None]]:
    then, here = version.environment, now()
    return {
        name: (then.get(name), here.get(name))
        for name in sorted(then.keys() | here.keys())
        if then.get(name) != here.get(name)
    }
