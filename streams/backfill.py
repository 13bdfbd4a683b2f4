"""Backfill: the window fold over slices of a topic that are folded apart, and the scores that follow.

`fold_slice` runs wherever a slice is read (see `streams.spark`) and is the live worker's own code; `gather`
and `score` put together what the slices said. Everything is as of now: the latest word on each window.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np

from schemas.catalogue import DRIFT_SCORES, SKETCHES
from schemas.codec import Codec
from schemas.columnar import Records
from schemas.columnar.decoder import ColumnDecoder
from schemas.errors import UnknownSchema
from schemas.event import Event, Position
from schemas.registry.client import RegistryClient
from streams.raw_files import rows_of
from streams.references import Reference
from streams.repeats import Repeats
from streams.scoring import Scoring
from streams.slices import BLOCK, Slice
from streams.task import Task
from streams.window_partition import Progress, WindowPartition
from streams.windows import Window, WindowFold

MAX_BAD = 1_000
"""Unreadable records of a slice that are named one by one; all are counted."""
SCORED_TOGETHER = 500
"""Sketches whose columns are measured in one call."""
Fields = dict[str, Any]
Said = tuple[str, Fields]
"""('sketch', a SketchTaken's fields), ('bad', offset and error) or, once at the end, ('done', counts)."""


class KnownSchemas:
    """The registry as an executor knows it: what it was given, then what the address answers."""

    def __init__(self, schemas: Mapping[int, Any], url: str = "") -> None:
        self._schemas = dict(schemas)
        self._url = url
        self._client: RegistryClient | None = None

    def schema_by_id(self, schema_id: int) -> Any:
        """Raises UnknownSchema or RegistryUnavailable."""
        if schema_id not in self._schemas:
            if not self._url:
                raise UnknownSchema(f"no schema with id {schema_id} came with the records")
            self._client = self._client or RegistryClient(self._url)
            self._schemas[schema_id] = self._client.schema_by_id(schema_id)
        return self._schemas[schema_id]

    def schema_id(self, subject: str, schema: Any) -> int:
        """Nothing is written by executors, so nothing is registered."""
        raise UnknownSchema(f"{subject}: no id is known for {schema.get('name')}")


@dataclass(frozen=True)
class Job:
    """What whoever folds a slice must know; goes to executors by pickle."""

    task: Task
    schemas: Mapping[int, Any]
    registry: str
    """Address to ask for schemas that are not in `schemas`; empty: there is none."""
    references: Mapping[str, Reference]

    @classmethod
    def of(
        cls, task: Task, models: Iterable[Event], schemas: Mapping[int, Any], registry: str = ""
    ) -> Job:
        """`models`: ModelRegistered events in the order of the log; the first about a version counts."""
        references: dict[str, Reference] = {}
        for event in models:
            references.setdefault(event.data["model_version"], event.data["reference"])
        return cls(replace(task, source=None), schemas, registry, references)  # a source is code

    @property
    def topic(self) -> str:
        return WindowFold(self.task).topic

    def codec(self) -> Codec:
        return Codec(KnownSchemas(self.schemas, self.registry), self.task.topics())


@dataclass
class Counts:
    """What was read of a partition, and what became of it."""

    records: int = 0
    events: int = 0
    """Predictions that went into windows: neither unreadable nor repeats."""
    bad: int = 0
    too_late: int = 0
    """Events whose window had been forgotten when they came."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.records + other.records,
            self.events + other.events,
            self.bad + other.bad,
            self.too_late + other.too_late,
        )


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A record that is no prediction, and why."""

    at: Position
    error: str


@dataclass
class Gathered:
    """What all slices said."""

    sketches: list[Event] = field(default_factory=list)
    """The latest SketchTaken of each (window, version, partition), in this order."""
    unreadable: list[Unreadable] = field(default_factory=list)
    """At most MAX_BAD of a slice."""
    partitions: dict[int, Counts] = field(default_factory=dict)
    unknown_versions: list[str] = field(default_factory=list)
    """Versions that answered and that no ModelRegistered describes: nothing can be said of their windows."""

    @property
    def counts(self) -> Counts:
        return sum(self.partitions.values(), Counts())


def fold_slice(job: Job, part: Slice, records: Iterable[Records]) -> Iterator[Said]:
    """Fold the records of offsets `part.begin` to `part.end`; speak of those from `part.stated` on.

    Of each window only the last sketch is said, once nothing more can come of it. `records` in offset order,
    each once. Raises RegistryUnavailable.
    """
    run = WindowPartition(
        job.task, job.codec(), part.partition, job.references, Progress(part.stated, part.mark)
    )
    counts = Counts()
    before = 0, 0
    latest: dict[Window, Fields] = {}
    for some in records:
        own = int(np.searchsorted(some.offset, part.stated))
        if own > 0:
            run.take(rows_of(some, slice(0, own)))
            before = run.events, run.state.too_late
        if own == len(some):
            continue
        spoken = rows_of(some, slice(own, None))
        said, bad = run.take(spoken)
        latest |= {(e.data["model_version"], e.data["window_start"]): dict(e.data) for e in said}
        for window in sorted(latest.keys() - run.state.windows.keys()):
            yield "sketch", latest.pop(window)
        for one in bad[: max(0, MAX_BAD - counts.bad)]:
            yield "bad", {"offset": int(spoken.offset[one.index]), "error": str(one.error)}
        counts.records += len(spoken)
        counts.bad += len(bad)
    counts.events, counts.too_late = run.events - before[0], run.state.too_late - before[1]
    yield from (("sketch", fields) for fields in latest.values())
    yield "done", {**asdict(counts), "versions": run.unknown_versions()}


def greatest_times(
    job: Job, part: Slice, records: Iterable[Records], block: int = BLOCK
) -> dict[int, int]:
    """The greatest event time of each block of offsets from `part.stated` on, without repeats: for `cut`."""
    decoder = ColumnDecoder(
        job.codec(), job.topic, "PredictionMade", {"event_id": "id", "event_time": "long"}
    )
    repeats = Repeats()
    greatest: dict[int, int] = {}
    for some in records:
        columns, _ = decoder.decode(some)
        fresh = repeats.first(columns.data["event_id"], columns.offset)
        keep = fresh & (columns.offset >= part.stated)
        times, blocks = columns.data["event_time"][keep], columns.offset[keep] // block
        starts = np.flatnonzero(np.diff(blocks, prepend=-1))
        if len(starts):
            for number, time in zip(
                blocks[starts].tolist(), np.maximum.reduceat(times, starts).tolist(), strict=True
            ):
                greatest[number] = max(time, greatest.get(number, time))
    return greatest


def gather(job: Job, slices: Sequence[Slice], said: Iterable[tuple[int, Said]]) -> Gathered:
    """Put together what each slice (by its number) said."""
    found = Gathered(partitions={part.partition: Counts() for part in slices})
    latest: dict[tuple[int, str, int], Event] = {}
    versions: set[str] = set()
    for number, (kind, fields) in said:
        partition = slices[number].partition
        if kind == "sketch":
            event = Event(SKETCHES, "SketchTaken", fields)
            key = fields["window_start"], fields["model_version"], partition
            if key not in latest or latest[key].data["revision"] < fields["revision"]:
                latest[key] = event
        elif kind == "bad":
            at = Position(job.topic, partition, fields["offset"])
            found.unreadable.append(Unreadable(at, fields["error"]))
        else:
            versions.update(fields.pop("versions"))
            found.partitions[partition] += Counts(**fields)
    found.sketches = [latest[key] for key in sorted(latest)]
    found.unreadable.sort(key=lambda bad: bad.at)
    found.unknown_versions = sorted(versions)
    return found


def score(
    task: Task, partitions: int, models: Iterable[Event], sketches: Iterable[Event]
) -> list[Event]:
    """The latest DriftScored of each (window, version, feature), in this order.

    The scoring is that of the control plane; `sketches` come in the order of their windows, so each window
    is judged once, when all `partitions` of the topic are done with it.
    """
    scoring = Scoring(task, partitions)
    state = scoring.apply(scoring.initial(), list(models))
    answers = list(state.due)
    for batch in _batched(sketches, SCORED_TOGETHER):
        state = scoring.apply(state, batch)
        answers += state.due
    return latest_scores(task, answers)


def latest_scores(task: Task, events: Iterable[Event]) -> list[Event]:
    """Of the DriftScored of `task` the highest revision of each (window, version, feature), in this order."""
    latest: dict[tuple[int, str, str], Event] = {}
    for event in events:
        data = event.data
        if event.topic != DRIFT_SCORES or data["task"] != task.name:
            continue
        key = data["window_start"], data["model_version"], data["feature"]
        if key not in latest or latest[key].data["revision"] <= data["revision"]:
            latest[key] = event
    return [latest[key] for key in sorted(latest)]


def _batched(events: Iterable[Event], size: int) -> Iterator[list[Event]]:
    """Lists of `size`; the last may be shorter."""
    rest = iter(events)
    while some := list(islice(rest, size)):
        yield some
