"""A version's lineage for other tools: OpenLineage run events, by OpenLineage's own client classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from driftlog import __version__

if TYPE_CHECKING:
    from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, RunEvent

PRODUCER = f"urn:driftlog:{__version__}"
NAMESPACE = "driftlog"


class NothingToExport(Exception):
    """The version came from no snapshot: there is no data flow to tell."""


def run_events(shown: Mapping[str, Any], log: str) -> list[RunEvent]:
    """Snapshot run and training run, each START and COMPLETE, of `driftlog.cli.models_text.lineage`.

    `log`: the namespace of the topics, e.g. 'kafka://127.0.0.1:19092'. Raises ImportError without
    openlineage-python, NothingToExport for a version that learned from no rows.
    """
    from openlineage.client.event_v2 import Job, RunEvent, RunState, set_producer
    from openlineage.client.facet_v2 import job_type_job, sql_job

    set_producer(PRODUCER)
    taken = shown["snapshot"]
    if not taken or not shown["training"]:
        raise NothingToExport(f"{shown['model_version']} learned from no snapshot")
    kind = job_type_job.JobTypeJobFacet("BATCH", "DRIFTLOG", "JOB")
    cut_job = Job(
        NAMESPACE,
        f"{shown['task']}.snapshot",
        {"jobType": kind, "sql": sql_job.SQLJobFacet(taken["sql"], "clickhouse")},
    )
    train_job = Job(NAMESPACE, f"{shown['task']}.training", {"jobType": kind})
    started = next(s for s in shown["steps"] if s["type"] == "TrainingStarted")
    training = shown["training"]
    topics = sorted({at["topic"] for at in taken["offsets"]})
    sources = [_topic(log, topic, taken) for topic in topics]
    rows, model = _snapshot(taken), _model(shown)
    judged = [_as_input(shown["golden"])] if shown["golden"] else []
    cut_run = _run(taken["event_id"], shown, None)
    train_run = _run(started["event_id"], shown, cut_job)

    def event(state: RunState, ms: int, run: Any, job: Job, reads: Any, writes: Any) -> RunEvent:
        return RunEvent(
            eventTime=_iso(ms),
            run=run,
            job=job,
            eventType=state,
            inputs=reads,
            outputs=writes,
            producer=PRODUCER,
        )

    return [
        event(RunState.START, taken["event_time"], cut_run, cut_job, sources, []),
        event(RunState.COMPLETE, taken["event_time"], cut_run, cut_job, sources, [rows]),
        event(
            *(RunState.START, started["event_time"], train_run, train_job),
            [_as_input(taken), *judged],
            [],
        ),
        event(
            *(RunState.COMPLETE, training["event_time"], train_run, train_job),
            [_as_input(taken), *judged],
            [model],
        ),
    ]


def to_json(events: list[RunEvent]) -> str:
    """One event a line, as OpenLineage's client would send them."""
    from openlineage.client.serde import Serde

    return "".join(Serde.to_json(event) + "\n" for event in events)


def _run(run_id: str, shown: Mapping[str, Any], parent: Job | None) -> Any:
    from openlineage.client.event_v2 import Run
    from openlineage.client.facet_v2 import (
        execution_parameters_run,
        parent_run,
        processing_engine_run,
        tags_run,
    )

    facets: dict[str, Any] = {
        "processing_engine": processing_engine_run.ProcessingEngineRunFacet(__version__, "driftlog")
    }
    if parent is not None:
        parameters = {"recipe": shown["recipe"], "seed": shown["seed"]}
        parameters |= json.loads(shown["parameters"])
        facets["executionParameters"] = execution_parameters_run.ExecutionParametersRunFacet(
            [
                execution_parameters_run.ExecutionParameter(key, value=str(value))
                for key, value in parameters.items()
            ]
        )
        facets["tags"] = tags_run.TagsRunFacet(
            [
                tags_run.TagsRunFacetFields(f"{kind}.{key}", str(value), "driftlog")
                for kind in ("metrics", "environment")
                for key, value in shown[kind].items()
            ]
        )
        facets["parent"] = parent_run.ParentRunFacet(
            parent_run.Run(shown["snapshot"]["event_id"]),
            parent_run.Job(parent.namespace, parent.name),
        )
    return Run(run_id, facets)


def _topic(log: str, topic: str, taken: Mapping[str, Any]) -> InputDataset:
    from openlineage.client.event_v2 import InputDataset
    from openlineage.client.facet_v2 import dataset_version_dataset

    ends = {str(a["partition"]): a["offset"] for a in taken["offsets"] if a["topic"] == topic}
    version = ",".join(f"{partition}:{end}" for partition, end in sorted(ends.items()))
    facet = dataset_version_dataset.DatasetVersionDatasetFacet(version)
    return InputDataset(log, topic, facets={"version": facet})


def _snapshot(taken: Mapping[str, Any]) -> OutputDataset:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import (
        dataset_version_dataset,
        output_statistics_output_dataset,
    )

    size = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
        rowCount=taken["rows"], size=taken["bytes"]
    )
    version = dataset_version_dataset.DatasetVersionDatasetFacet(taken["snapshot"])
    return OutputDataset(
        NAMESPACE,
        f"{taken['task']}.{taken['purpose']}_snapshot",
        {"outputStatistics": size},
        facets={"version": version},
    )


def _as_input(taken: Mapping[str, Any]) -> InputDataset:
    from openlineage.client.event_v2 import InputDataset

    made = _snapshot(taken)
    return InputDataset(made.namespace, made.name, facets=made.facets)


def _model(shown: Mapping[str, Any]) -> OutputDataset:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import (
        dataset_version_dataset,
        output_statistics_output_dataset,
    )

    version = dataset_version_dataset.DatasetVersionDatasetFacet(shown["model_version"])
    size = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
        size=shown["artifact"]["bytes"], fileCount=1
    )
    return OutputDataset(
        NAMESPACE, f"{shown['task']}.model", {"outputStatistics": size}, facets={"version": version}
    )


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
