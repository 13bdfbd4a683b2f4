"""Backfill on Spark: where records, schemas and models come from; how the result is held to the log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.settings import Settings
from schemas.catalogue import DRIFT_SCORES, MODEL_VERSIONS, predictions_topic
from schemas.event import Event
from schemas.registry.client import RegistryClient
from streams import log, spark
from streams.backfill import Gathered, Job, latest_scores, score
from streams.raw_files import Context, known_schemas, write_partition
from streams.reader import read_records
from streams.slices import BLOCK
from streams.task import LABEL, Task, TaskError

WRITE_BATCH = 1_000
IDENTITY = frozenset({"event_id", "caused_by", "revision"})
"""What says how often, and by what, a score was stated; the rest says what is the case."""


@dataclass(frozen=True)
class Prepared:
    """A backfill before it runs."""

    job: Job
    source: spark.Source
    models: Sequence[Event]
    partitions: int | None
    """Of the topic; None: as many as have records."""


@dataclass(frozen=True)
class Outcome:
    """What a backfill found: sketches and what was unreadable, and the scores that follow."""

    gathered: Gathered
    scores: Sequence[Event]


@dataclass(frozen=True, slots=True)
class Difference:
    """One score on which backfill and log do not agree; `backfill` or `log` is None where it has none."""

    window_start: int
    model_version: str
    feature: str
    backfill: Mapping[str, Any] | None
    log: Mapping[str, Any] | None

    @property
    def fields(self) -> list[str]:
        """The names of the fields that differ."""
        mine, theirs = self.backfill or {}, self.log or {}
        return [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]


def prepare(settings: Settings, task: Task, files: str | None, to: int | None = None) -> Prepared:
    """Records from Kafka, or from Parquet `files`: a path, or a URL that Spark can read.

    A folder that `export` wrote needs neither log nor registry (by path: what lies there is read here).
    Raises LogUnavailable, RegistryUnavailable, or TaskError for files of another task.
    """
    topic = predictions_topic(task.name)
    context = Context.read(Path(files)) if files is not None and "://" not in files else None
    if files is not None and context is not None:
        if context.topic != topic:
            raise TaskError(f"{files} holds records of {context.topic}, not of {topic}")
        job = Job.of(task, context.models, context.schemas)
        exported = spark.ParquetSource(files, topic, to)
        return Prepared(job, exported, context.models, context.partitions)
    models = registered_models(settings, task)
    job = Job.of(task, models, _registered_schemas(settings, topic), settings.registry)
    if files is not None:
        return Prepared(job, spark.ParquetSource(files, topic, to), models, None)
    source = spark.KafkaSource(settings.bootstrap, topic, to)
    return Prepared(job, source, models, len(_partitions(settings, topic)))


def run(
    session: Any,
    prepared: Prepared,
    parts: int = 1,
    on_progress: spark.Progress = lambda what, done, total: None,
    block: int = BLOCK,
) -> Outcome:
    """Fold on Spark, score here. Raises what `streams.spark.backfill` raises."""
    gathered = spark.backfill(
        session, prepared.job, prepared.source, parts, on_progress=on_progress, block=block
    )
    partitions = prepared.partitions or max(gathered.partitions, default=0) + 1
    task = prepared.job.task
    return Outcome(gathered, score(task, partitions, prepared.models, gathered.sketches))


def registered_models(settings: Settings, task: Task) -> list[Event]:
    """ModelRegistered events of the task, in the order of the log; raises LogUnavailable."""
    codec = log.connect_codec(settings, [task])
    events = log.read(settings.bootstrap, codec, [MODEL_VERSIONS])
    return [event for event in events if event.data["task"] == task.name]


def logged_scores(settings: Settings, task: Task) -> list[Event]:
    """The latest DriftScored of each window, version and feature in the log; raises LogUnavailable.

    Without those of the label, which come from labels and not from predictions.
    """
    codec = log.connect_codec(settings, [task])
    events = log.read(settings.bootstrap, codec, [DRIFT_SCORES])
    return latest_scores(task, (e for e in events if e.data["feature"] != LABEL))


def compare(mine: Sequence[Event], theirs: Sequence[Event]) -> list[Difference]:
    """The latest scores of a backfill against those of the log: equal are count, statistics and verdict."""
    found = {_place(event): _facts(event) for event in mine}
    logged = {_place(event): _facts(event) for event in theirs}
    return [
        Difference(*place, found.get(place), logged.get(place))
        for place in sorted(found.keys() | logged.keys())
        if found.get(place) != logged.get(place)
    ]


def append_missing(
    settings: Settings, task: Task, scores: Sequence[Event], differences: Sequence[Difference]
) -> int:
    """Append the scores that the log lacks, with the ids of live ones; how many. Raises LogUnavailable."""
    missing = {(d.window_start, d.model_version, d.feature) for d in differences if d.log is None}
    chosen = [event for event in scores if _place(event) in missing]
    writer = log.LogWriter(settings.bootstrap, log.connect_codec(settings, [task]))
    for start in range(0, len(chosen), WRITE_BATCH):
        writer.append(chosen[start : start + WRITE_BATCH])
    return len(chosen)


def export(
    settings: Settings,
    task: Task,
    folder: Path,
    to: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Write the raw predictions of a task as Parquet, with all that a backfill needs; the number of records.

    Raises LogUnavailable, RegistryUnavailable, or OSError.
    """
    topic = predictions_topic(task.name)
    partitions = _partitions(settings, topic)
    extents = spark.KafkaSource(settings.bootstrap, topic, to).extents(None)
    folder.mkdir(parents=True, exist_ok=True)
    total, done, ids = sum(e.end - e.first for e in extents), 0, set[int]()
    for extent in extents:
        key = topic, extent.partition
        records = read_records(settings.bootstrap, {key: extent.first}, {key: extent.end})

        def on_records(count: int, before: int = done) -> None:
            on_progress(before + count, total)

        count, seen = write_partition(folder, extent.partition, records, on_records)
        done += count
        ids |= seen
    schemas = known_schemas(RegistryClient(settings.registry), ids)
    models = registered_models(settings, task)
    Context(topic, len(partitions), schemas, models).write(folder)
    return done


def _partitions(settings: Settings, topic: str) -> list[log.Partition]:
    consumer = log.make_consumer(settings.bootstrap)
    try:
        return log.partitions_of(consumer, [topic])
    finally:
        consumer.close()


def _registered_schemas(settings: Settings, topic: str) -> dict[int, Any]:
    with RegistryClient(settings.registry) as registry:
        return {version["id"]: version["schema"] for version in registry.versions(f"{topic}-value")}


def _place(event: Event) -> tuple[int, str, str]:
    data = event.data
    return data["window_start"], data["model_version"], data["feature"]


def _facts(event: Event) -> dict[str, Any]:
    return {name: value for name, value in event.data.items() if name not in IDENTITY}
