"""References of models as they would have been under another drift policy, from the same training rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from models import snapshot_file, training
from models.artifacts import ArtifactStore
from models.dataset import golden_rows
from schemas.catalogue import MODEL_VERSIONS, SNAPSHOTS
from schemas.event import Event
from streams.replay import Reader
from streams.task import Task

References = dict[str, list[dict[str, Any]]]
"""Version -> its `ReferenceColumn`s."""


def references_again(
    read: Reader,
    store: ArtifactStore,
    task: Task,
    on_version: Callable[[str], None] = lambda version: None,
) -> References:
    """Cut the reference of each trained version of `task` anew, under `task.drift`.

    It fits each recipe twice for the held-out scores, as the training did. Raises ArtifactRefused if a
    snapshot is not what was taken.
    """
    taken: dict[str, Event] = {}
    versions: list[Event] = []
    for event in read([SNAPSHOTS, MODEL_VERSIONS]):
        if event.data["task"] != task.name:
            continue
        if event.topic == SNAPSHOTS:
            taken.setdefault(event.data["snapshot"], event)
        elif event.data["reference"]:
            versions.append(event)
    found: References = {}
    for event in versions:
        snapshot = taken.get(event.data["snapshot"] or "")
        if snapshot is None or event.data["model_version"] in found:
            continue
        on_version(event.data["model_version"])
        data = store.read(snapshot.data["path"], snapshot.data["snapshot"])
        rows = snapshot_file.from_parquet(task, data)
        learned = rows.where(~golden_rows(rows.ids, task.gate.golden_share))
        found[event.data["model_version"]] = training.reference_of(task, learned)
    return found
