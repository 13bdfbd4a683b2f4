"""A version for MLflow: a run with its parameters, metrics, tags and file, and a registered model version."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TAG = "driftlog.event_id"
MAX_TAG = 5_000
"""Characters that MLflow keeps of a tag."""


@dataclass(frozen=True, slots=True)
class Exported:
    """Where it stands in MLflow. `again`: it stood there before, and nothing was written."""

    run_id: str
    model: str
    version: str
    again: bool


def export(shown: Mapping[str, Any], file: Path, uri: str) -> Exported:
    """Write `driftlog.cli.models_text.lineage` to the tracking store at `uri`.

    `file`: the verified model file. The same version is exported once. Raises ImportError without MLflow.
    """
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    task = shown["task"]
    experiment = client.get_experiment_by_name(task)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(task)
    known = client.search_runs([experiment_id], f"tags.`{_TAG}` = '{shown['event_id']}'")
    if known:
        run_id = known[0].info.run_id
        (found,) = client.search_model_versions(f"run_id = '{run_id}'")
        return Exported(run_id, found.name, str(found.version), again=True)
    training = shown["training"] or {}
    ended = training.get("event_time", shown["registered"])
    run = client.create_run(
        experiment_id,
        start_time=ended - training.get("duration_ms", 0),
        tags={name: value[:MAX_TAG] for name, value in _tags(shown).items()},
        run_name=shown["model_version"],
    )
    run_id = run.info.run_id
    parameters = {"recipe": shown["recipe"], "seed": shown["seed"]}
    for name, value in (parameters | json.loads(shown["parameters"])).items():
        client.log_param(run_id, name, value)
    for name, value in shown["metrics"].items():
        client.log_metric(run_id, name, value, timestamp=ended)
    client.log_dict(run_id, dict(shown), "lineage.json")
    client.log_artifact(run_id, str(file), "model")
    client.set_terminated(run_id, "FINISHED", end_time=ended)
    if not client.search_registered_models(f"name = '{task}'"):
        client.create_registered_model(task)
    made = client.create_model_version(
        task,
        f"{run.info.artifact_uri}/model",
        run_id,
        tags={"driftlog.version": shown["model_version"], "live": str(shown["live"]).lower()},
        description=shown["decisions"][-1]["reason"] if shown["decisions"] else None,
    )
    return Exported(run_id, task, str(made.version), again=False)


def _tags(shown: Mapping[str, Any]) -> dict[str, str]:
    taken = shown["snapshot"] or {}
    tags = {
        _TAG: shown["event_id"],
        "driftlog.version": shown["model_version"],
        "driftlog.request_id": shown["request"]["event_id"],
        "driftlog.artifact": shown["artifact"]["sha256"],
        "driftlog.parent": shown["parent"] or "",
        "driftlog.snapshot": taken.get("snapshot", ""),
        "driftlog.snapshot_sql": taken.get("sql", ""),
        "driftlog.features": ",".join(shown["features"]),
    }
    if shown["decisions"]:
        tags["driftlog.decision"] = shown["decisions"][-1]["type"]
    return tags | {f"driftlog.made_by.{name}": v for name, v in shown["environment"].items()}
