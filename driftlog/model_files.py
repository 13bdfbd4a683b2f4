"""What is done with the file of a registered version, beside serving it: pictures, and smaller variants."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from models import snapshot_file, training
from models.artifacts import ArtifactRefused, ArtifactStore
from models.compression.variants import Measured, Original
from models.dataset import Dataset, golden_rows
from models.lineage import Artifact, Run
from models.network import NotANetwork
from models.plots import NoPicture, activation_picture, loss_picture
from models.registry import RegistryState, Version
from models.scorer import Scorer
from schemas.event import Event, derived_id
from streams.task import Task


def snapshot_rows(
    store: ArtifactStore, state: RegistryState, task: Task, version: Version
) -> Dataset:
    """The rows of the version's snapshot, golden ones and all; raises ArtifactRefused."""
    for request in state.requests.values():
        taken = request.step("SnapshotTaken", snapshot=version.snapshot, purpose="training")
        if taken is not None:
            return snapshot_file.from_parquet(task, store.read(taken["path"], taken["snapshot"]))
    raise ArtifactRefused(f"{version.version} was not trained from a snapshot")


def draw(
    store: ArtifactStore, state: RegistryState, task: Task, version: Version, folder: Path
) -> tuple[list[Path], list[str]]:
    """(pictures written to `folder`, why others were not); raises ArtifactRefused."""
    data = store.read(version.path, version.artifact)
    name = version.version

    def maps() -> bytes:
        rows = snapshot_rows(store, state, task, version)
        encoder = Scorer.from_bytes(data).encoder
        return activation_picture(data, encoder.encode_columns(rows.columns, len(rows)), name)

    written, missing = [], []
    makers: dict[str, Callable[[], bytes]] = {
        "loss": lambda: loss_picture(data, name),
        "activations": maps,
    }
    for kind, make in makers.items():
        try:
            picture = make()
        except (NoPicture, NotANetwork) as error:
            missing.append(f"{kind}: {error}")
            continue
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}-{kind}.png"
        path.write_bytes(picture)
        written.append(path)
    return written, missing


def original(store: ArtifactStore, state: RegistryState, task: Task, version: Version) -> Original:
    """The version as `models.compression` wants it. Golden rows have trained nobody: they judge."""
    rows = snapshot_rows(store, state, task, version)
    unseen = golden_rows(rows.ids, task.gate.golden_share)
    return Original(
        task,
        store.read(version.path, version.artifact),
        version.recipe,
        json.loads(version.parameters),
        version.seed,
        rows.where(~unseen),
        rows.where(unseen),
    )


def compressed_name(version: str, method: str) -> str:
    """`<version>-<method>`: the trainer never gives such a name."""
    return f"{version}-{method.replace('_', '-')}"


def register_compressed(
    store: ArtifactStore,
    task: Task,
    parent: Event,
    made: Measured,
    strength: float | None,
    time_ms: int,
) -> Event:
    """Store the variant of `parent` (its ModelRegistered); the ModelRegistered to be said."""
    assert made.data is not None
    data = parent.data
    name = compressed_name(data["model_version"], made.method)
    request_id = derived_id("ModelCompressed", parent.id, made.method, strength)
    run = Run(task, {"event_id": request_id, "event_time": time_ms}, name)
    metrics = {
        "log_loss": made.log_loss,
        "auc": made.auc,
        "rows": float(made.gates[0]["count"]),
        "score_difference": made.difference,
    }
    parameters = json.loads(data["parameters"])
    parameters["compression"] = {"method": made.method, "strength": strength}
    artifact = Artifact(
        *(store.put_model(made.data), data["recipe"], parameters, data["seed"]),
        environment=training.environment(),
        metrics=metrics,
        reference=data["reference"],
        reference_count=data["reference_count"],
    )
    return run.registered(
        max(time_ms, parent.time),
        artifact,
        caused_by=parent.id,
        parent=data["model_version"],
        snapshot=data["snapshot"],
        golden=data["golden"],
    )


def compression_rows(found: Sequence[Measured]) -> list[dict[str, object]]:
    """The table as plain data."""
    return [
        {
            "variant": each.method,
            "bytes": each.bytes,
            "single_us": round(each.single_us, 1),
            "row_us": round(each.row_us, 3),
            "log_loss": each.log_loss,
            "auc": each.auc,
            "difference": float(np.round(each.difference, 6)),
            "largest": float(np.round(each.largest, 6)),
            "verdict": each.reason or ("" if each.method == "original" else "passes"),
        }
        for each in found
    ]
