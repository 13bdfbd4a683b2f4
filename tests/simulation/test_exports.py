"""A version that the trainer made, exported, and read back by the other tools' own clients."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from driftlog.cli import models_text
from driftlog.lineage_export import NothingToExport, run_events, to_json
from tests.simulation.trainer_world import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with monkeypatch.context() as patch:
        made = World(tmp_path / "artifacts", patch)
        made.work()
        made.ask("request")
        made.work()
        yield made


def lineage(world: World, name: str = "wear-1") -> dict[str, Any]:
    state = world.log.state()
    return models_text.lineage(state, state.versions[name])


def test_openlineage_tells_snapshot_training_and_version(world: World) -> None:
    facet = pytest.importorskip("openlineage.client.facet_v2")
    client = pytest.importorskip("openlineage.client")
    shown = lineage(world)
    events = run_events(shown, "kafka://localhost:9092")
    lines = [json.loads(line) for line in to_json(events).splitlines()]
    assert [(line["job"]["name"], line["eventType"]) for line in lines] == [
        ("wear.snapshot", "START"),
        ("wear.snapshot", "COMPLETE"),
        ("wear.training", "START"),
        ("wear.training", "COMPLETE"),
    ]
    cut, trained = lines[1], lines[3]
    assert {source["name"] for source in cut["inputs"]} == {"wear.predictions", "wear.labels"}
    (rows,) = cut["outputs"]
    assert rows["facets"]["version"]["datasetVersion"] == shown["snapshot"]["snapshot"]
    assert rows["outputFacets"]["outputStatistics"]["rowCount"] == shown["snapshot"]["rows"]
    assert cut["job"]["facets"]["sql"]["query"] == shown["snapshot"]["sql"]
    read = {
        source["name"]: source["facets"]["version"]["datasetVersion"]
        for source in trained["inputs"]
    }
    assert read["wear.training_snapshot"] == shown["snapshot"]["snapshot"]
    assert read["wear.golden_snapshot"] == shown["golden"]["snapshot"]
    (model,) = trained["outputs"]
    assert model["facets"]["version"]["datasetVersion"] == "wear-1"
    assert trained["run"]["facets"]["parent"]["run"]["runId"] == cut["run"]["runId"]
    told = {
        p["key"]: p["value"] for p in trained["run"]["facets"]["executionParameters"]["parameters"]
    }
    assert (told["recipe"], told["seed"]) == ("logistic_regression", "7")
    for line in lines:  # each facet names the schema that its class stands for
        for found in (*line["run"]["facets"].values(), *line["job"]["facets"].values()):
            assert found["_schemaURL"].startswith("https://openlineage.io/spec/facets/")
            assert found["_producer"].startswith("urn:driftlog:")
    assert facet.sql_job.SQLJobFacet._get_schema() == cut["job"]["facets"]["sql"]["_schemaURL"]
    assert client is not None


def test_a_cold_start_has_no_data_flow(world: World) -> None:
    pytest.importorskip("openlineage.client")
    with pytest.raises(NothingToExport, match="wear-0 learned from no snapshot"):
        run_events(lineage(world, "wear-0"), "kafka://x")


def test_mlflow_reads_back_run_file_and_registered_version(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        pytest.skip(f"MLflow cannot be imported: {error}")
    from driftlog.mlflow_export import export

    uri = (tmp_path / "mlflow").as_uri()
    for name in ("wear-0", "wear-1"):
        shown = lineage(world, name)
        file = world.folder / shown["artifact"]["path"]
        done = export(shown, file, uri)
        assert not done.again
        assert export(shown, file, uri) == done.__class__(
            done.run_id, done.model, done.version, again=True
        )
    client = MlflowClient(uri, uri)
    run = client.get_run(done.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"recipe": "logistic_regression", "seed": "7"}
    assert run.data.metrics == shown["metrics"]
    assert run.data.tags["driftlog.snapshot"] == shown["snapshot"]["snapshot"]
    assert run.data.tags["driftlog.decision"] == shown["decisions"][-1]["type"]
    kept = client.download_artifacts(done.run_id, "model", str(tmp_path))
    (copy,) = Path(kept).iterdir()
    assert copy.read_bytes() == file.read_bytes()
    versions = client.search_model_versions("name = 'wear'")
    assert {v.tags["driftlog.version"]: v.run_id for v in versions}["wear-1"] == done.run_id
    assert len(versions) == 2
