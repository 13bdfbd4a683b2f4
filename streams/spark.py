"""The Spark runner: the window fold over far more data than one machine handles, with the same results.

Executors run `streams.backfill.fold_slice` on slices of the topic. From Kafka each reads its slices itself,
with the reader of the live worker, so no payload passes through the JVM; from Parquet Spark brings each
slice together, in offset order, and streams it to Python as Arrow batches. What comes back is small:
sketches, a few for each window.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from confluent_kafka import TopicPartition

from schemas.columnar import Records
from streams import log
from streams.backfill import Gathered, Job, Said, fold_slice, gather, greatest_times
from streams.raw_files import records_of, rows_of
from streams.reader import read_records
from streams.slices import BLOCK, Extent, Slice, cut, even, whole

POLL_RECORDS = 20_000
LOOK_SECONDS = 0.5
Progress = Callable[[str, int, int], None]
"""Called with what is being done, slices that are done, and slices in all."""
_ANSWER = pa.schema(
    [("slice", pa.int32()), ("place", pa.int64()), ("kind", pa.string()), ("fields", pa.binary())]
)
_ANSWER_DDL = "slice int, place long, kind string, fields binary"
Answer = Callable[[Slice, Iterable[Records]], Iterator[Said]]
"""What an executor does with a slice."""


class UnusableFiles(Exception):
    """Parquet that does not hold raw records; the message says what is missing."""


@dataclass(frozen=True)
class KafkaSource:
    """The topic itself, up to the offset `to` of each partition (default: its end as of now)."""

    bootstrap: str
    topic: str
    to: int | None = None

    def extents(self, spark: Any) -> list[Extent]:  # noqa: ARG002
        """Raises LogUnavailable."""
        consumer = log.make_consumer(self.bootstrap)
        try:
            partitions = log.partitions_of(consumer, [self.topic])
            last = log.end_offsets(consumer, partitions)
            low = {
                key: consumer.get_watermark_offsets(TopicPartition(*key), timeout=10)[0]
                for key in partitions
            }
        finally:
            consumer.close()
        if not partitions:
            raise log.LogUnavailable(f"the brokers know no topic {self.topic}")
        ends = {p: _end(end, self.to) for (_, p), end in last.items()}
        return [Extent(p, min(first, ends[p]), ends[p]) for (_, p), first in low.items()]

    def answers(self, spark: Any, slices: Sequence[Slice], answer: Answer) -> Any:
        """A DataFrame of what executors answer about the slices."""
        numbers = spark.range(0, len(slices), 1, len(slices))
        read = partial(_from_log, self.bootstrap, self.topic, tuple(slices), answer)
        return numbers.mapInArrow(read, _ANSWER_DDL)


@dataclass(frozen=True)
class ParquetSource:
    """Files with columns partition, offset, recorded, value (see `streams.raw_files`), in any order."""

    path: str
    topic: str
    to: int | None = None

    def extents(self, spark: Any) -> list[Extent]:
        """Raises UnusableFiles."""
        found = (
            self._records(spark)
            .groupBy("partition")
            .agg({"offset": "max"})
            .withColumnRenamed("max(offset)", "last")
            .collect()
        )
        ends = {row["partition"]: row["last"] + 1 for row in found}
        return [Extent(p, 0, _end(end, self.to)) for p, end in sorted(ends.items())]

    def answers(self, spark: Any, slices: Sequence[Slice], answer: Answer) -> Any:
        """A DataFrame of what executors answer about the slices, each of them one task."""
        from pyspark.sql import functions as f

        rows = ", ".join(
            f"({n}, {part.partition}, {part.begin}L, {part.end}L)" for n, part in enumerate(slices)
        )
        plan = spark.sql(f"select * from values {rows} as slices(slice, of, begin, end)")  # noqa: S608
        records = self._records(spark)
        mine = (
            (records["partition"] == plan["of"])
            & (records["offset"] >= plan["begin"])
            & (records["offset"] < plan["end"])
        )
        return (
            records.join(f.broadcast(plan), mine)
            .select("slice", "offset", "recorded", "value")
            .repartitionById(len(slices), "slice")
            .sortWithinPartitions("slice", "offset")
            .mapInArrow(partial(_from_batches, self.topic, tuple(slices), answer), _ANSWER_DDL)
        )

    def _records(self, spark: Any) -> Any:
        from pyspark.errors import AnalysisException

        try:
            frame = spark.read.parquet(self.path)
        except AnalysisException as error:
            raise UnusableFiles(f"{self.path}: {error.getCondition() or error}") from error
        kinds = dict(frame.dtypes)
        wanted = {"partition": "int", "offset": "bigint", "recorded": "bigint", "value": "binary"}
        wrong = [
            f"{name} {kind}" + (f" (it is {kinds[name]})" if name in kinds else "")
            for name, kind in wanted.items()
            if kinds.get(name) != kind
        ]
        if wrong:
            raise UnusableFiles(
                f"{self.path} holds no raw records: it lacks {', '.join(wrong)};"
                " `driftlog backfill TASK --export DIR` writes what is needed"
            )
        return frame.select(*wanted)


Source = KafkaSource | ParquetSource


def _end(end: int, to: int | None) -> int:
    return end if to is None else min(end, to)


def backfill(
    spark: Any,
    job: Job,
    source: Source,
    parts: int = 1,
    on_progress: Progress = lambda what, done, total: None,
    block: int = BLOCK,
) -> Gathered:
    """Fold everything in `source`, each partition in about `parts` slices.

    More than one means a scan of event times first, and slices that overlap (see `streams.slices`): worth it
    where there are more cores than partitions. Raises LogUnavailable, UnusableFiles, or what Spark raises
    for a task that failed.
    """
    extents = [extent for extent in source.extents(spark) if extent.end > extent.first]
    slices = [whole(extent) for extent in extents]
    if parts > 1:
        slices = _cut(spark, job, source, extents, parts, on_progress, block)
    answers = _collect(spark, source, slices, partial(_fold, job), "windows", on_progress)
    return gather(job, slices, answers)


def _cut(
    spark: Any,
    job: Job,
    source: Source,
    extents: Sequence[Extent],
    parts: int,
    on_progress: Progress,
    block: int,
) -> list[Slice]:
    scans = [part for extent in extents for part in even(extent, parts, block)]
    greatest: dict[int, dict[int, int]] = {extent.partition: {} for extent in extents}
    scan = partial(_scan, job, block)
    for number, (_, times) in _collect(spark, source, scans, scan, "event times", on_progress):
        mine = greatest[scans[number].partition]
        for name, time_ms in times.items():
            mine[int(name)] = max(time_ms, mine.get(int(name), time_ms))
    return [
        part
        for extent in extents
        for part in cut(job.task, extent, greatest[extent.partition], parts, block)
    ]


def _fold(job: Job, part: Slice, records: Iterable[Records]) -> Iterator[Said]:
    return fold_slice(job, part, records)


def _scan(job: Job, block: int, part: Slice, records: Iterable[Records]) -> Iterator[Said]:
    times = greatest_times(job, part, records, block)
    yield "times", {str(number): time for number, time in times.items()}


def _collect(
    spark: Any,
    source: Source,
    slices: Sequence[Slice],
    answer: Answer,
    what: str,
    on_progress: Progress,
) -> list[tuple[int, Said]]:
    """(slice, what was said), slice by slice, each in its order."""
    if not slices:
        return []
    on_progress(what, 0, len(slices))
    with warnings.catch_warnings(), _watched(spark, partial(on_progress, what), len(slices)):
        warnings.simplefilter("ignore", FutureWarning)  # about pandas, which is not used here
        rows = source.answers(spark, slices, answer).collect()
    on_progress(what, len(slices), len(slices))
    rows.sort(key=lambda row: (row["slice"], row["place"]))
    decode = msgspec.msgpack.decode
    return [(row["slice"], (row["kind"], decode(bytes(row["fields"])))) for row in rows]


@contextmanager
def _watched(spark: Any, on_progress: Callable[[int, int], None], total: int) -> Iterator[None]:
    """Tells how many of the slices' tasks are done, while they run."""
    done = threading.Event()
    tracker = spark.sparkContext.statusTracker()

    def look() -> None:
        while not done.wait(LOOK_SECONDS):
            for stage in tracker.getActiveStageIds():
                info = tracker.getStageInfo(stage)
                if info is not None and info.numTasks == total:
                    on_progress(info.numCompletedTasks, total)

    thread = threading.Thread(target=look, name="spark-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _from_log(
    bootstrap: str,
    topic: str,
    slices: Sequence[Slice],
    answer: Answer,
    batches: Iterable[pa.RecordBatch],
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for number in batch.column(0).to_pylist():
            part, key = slices[number], (topic, slices[number].partition)
            records = read_records(bootstrap, {key: part.begin}, {key: part.end}, POLL_RECORDS)
            yield from _answers(number, answer(part, records))


def _from_batches(
    topic: str, slices: Sequence[Slice], answer: Answer, batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Batches are sorted by slice and offset."""
    pieces = (
        (number, records_of(topic, slices[number].partition, piece))
        for batch in batches
        for number, piece in _by_slice(batch)
    )
    for number, group in groupby(pieces, key=lambda piece: piece[0]):
        records = _without_copies(records for _, records in group)
        yield from _answers(number, answer(slices[number], records))


def _by_slice(batch: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
    numbers = batch.column("slice").to_pylist()
    begin = 0
    for number, rows in groupby(numbers):
        count = sum(1 for _ in rows)
        yield number, batch.slice(begin, count)
        begin += count


def _answers(number: int, said: Iterable[Said]) -> Iterator[pa.RecordBatch]:
    encode = msgspec.msgpack.encode
    for place, (kind, fields) in enumerate(said):
        columns = [[number], [place], [kind], [encode(fields)]]
        yield pa.RecordBatch.from_arrays(
            [pa.array(c, f.type) for c, f in zip(columns, _ANSWER, strict=True)], schema=_ANSWER
        )


def _without_copies(records: Iterable[Records]) -> Iterator[Records]:
    """Without the records that are there again, right after the first (files that were written twice)."""
    last = -1
    for some in records:
        fresh = np.diff(some.offset, prepend=last) > 0
        last = int(some.offset[-1])
        yield some if fresh.all() else rows_of(some, fresh)
