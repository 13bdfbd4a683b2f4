"""The contenders of `benchmarks.backfill`, each in a process of its own: histograms of every window.

    python -m benchmarks.backfill_arms ARM JOB

Says READY when all is started and warm, waits for GO, prints RESULT with seconds and a digest of its counts.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds

from benchmarks.drift_windows import workload
from infra.settings import Settings
from schemas.columnar import Records
from schemas.event import Event
from streams.backfill import Job, fold_slice, gather
from streams.raw_files import records_of
from streams.reader import read_records
from streams.slices import Extent, Slice, whole
from streams.spark import KafkaSource, ParquetSource, Source, backfill
from streams.task import DriftPolicy, Numeric, Task

Counts = dict[tuple[str, int, str], list[int]]
"""(model version, window start, column) -> bins, the missing last."""


@dataclass(frozen=True)
class Order:
    """What a contender is told."""

    bootstrap: str
    registry: str
    task: str
    ends: list[int]
    raw: str
    decoded: str
    scratch: str
    cores: int
    window_end: int
    """Windows that start before this are asked for."""

    @property
    def topic(self) -> str:
        return f"{self.task}.predictions"

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


def job_of(order: Order) -> Job:
    task = Task(
        name=order.task,
        features=tuple(Numeric(name) for name in workload.FEATURES),
        label="label",
        drift=DriftPolicy(
            window_hours=workload.WINDOW_MS / 3_600_000,
            grace_minutes=workload.LATENESS_MS / 60_000,
            bins=workload.BINS,
        ),
    )
    reference = workload.reference()
    models = [
        Event("", "ModelRegistered", {"model_version": version, "reference": reference})
        for version in workload.MODELS
    ]
    return Job.of(task, models, {}, order.registry)


def counts_of(order: Order, sketches: Iterable[Event]) -> Counts:
    """Summed over partitions."""
    found: dict[tuple[str, int, str], Any] = {}
    for event in sketches:
        data = event.data
        if data["window_start"] >= order.window_end:
            continue
        for column in data["columns"]:
            key = data["model_version"], data["window_start"], column["name"]
            bins = np.array([*column["counts"], column["missing"]])
            found[key] = found[key] + bins if key in found else bins
    return {key: bins.tolist() for key, bins in found.items()}


def native(order: Order, records: Callable[[Slice], Iterable[Records]]) -> Counts:
    """One process, one partition after the other."""
    job = job_of(order)
    slices = [whole(Extent(number, 0, end)) for number, end in enumerate(order.ends)]
    said = [
        (number, one)
        for number, part in enumerate(slices)
        for one in fold_slice(job, part, records(part))
    ]
    return counts_of(order, gather(job, slices, said).sketches)


def from_log(order: Order, part: Slice) -> Iterable[Records]:
    key = order.topic, part.partition
    return read_records(order.bootstrap, {key: 0}, {key: part.end}, 20_000)


def from_files(order: Order, part: Slice) -> Iterable[Records]:
    path = Path(order.raw) / f"partition-{part.partition}.parquet"
    for batch in ds.dataset(path).to_batches(batch_size=20_000):
        if batch.num_rows:
            yield records_of(order.topic, part.partition, batch)
        if part.end <= 20_000:
            return  # to warm up, one batch will do


def on_spark(order: Order, spark: Any, source: Source) -> Counts:
    return counts_of(order, backfill(spark, job_of(order), source).sketches)


def spark_sql(order: Order, spark: Any) -> Counts:
    """Spark alone, as its users write it: columns decoded beforehand, built-in functions, no lateness."""
    from pyspark.sql import functions as f

    frame = spark.read.parquet(order.decoded)
    frame = frame.where(frame["offset"] < max(order.ends))
    width = workload.WINDOW_MS
    start = f.floor(frame["event_time"] / width) * width
    pairs = ", ".join(f"'{name}', {name}" for name in workload.COLUMNS)
    long = frame.select(
        "model_version",
        start.alias("start"),
        f.expr(f"stack({len(workload.COLUMNS)}, {pairs}) as (name, value)"),
    ).where(f.col("start") < order.window_end)
    bins = f.lit(None).cast("int")
    for column in workload.reference():
        inside = sum((f.col("value") >= edge).cast("int") for edge in column["edges"])
        bins = f.when(f.col("name") == column["name"], inside).otherwise(bins)
    rows = (
        long.withColumn("bin", f.when(f.col("value").isNull(), workload.BINS).otherwise(bins))
        .groupBy("model_version", "start", "name", "bin")
        .count()
        .collect()
    )
    found: Counts = {}
    for row in rows:
        key = row["model_version"], row["start"], row["name"]
        found.setdefault(key, [0] * (workload.BINS + 1))[row["bin"]] = row["count"]
    return found


def main() -> None:
    arm, order = sys.argv[1], Order(**json.loads(Path(sys.argv[2]).read_text("utf-8")))
    with ExitStack() as stack:
        run = _contender(arm, order, stack)
        run(replace(order, ends=[min(end, 2_000) for end in order.ends]))  # compile, import, fork
        print("READY", flush=True)
        sys.stdin.readline()
        began = time.monotonic()
        counts = run(order)
        seconds = time.monotonic() - began
        text = json.dumps(sorted((*key, bins) for key, bins in counts.items()))
        digest = hashlib.sha256(text.encode()).hexdigest()
        told = {"seconds": seconds, "digest": digest, "windows": len(counts)}
        print("RESULT " + json.dumps(told), flush=True)
        sys.stdin.readline()


def _contender(arm: str, order: Order, stack: ExitStack) -> Callable[[Order], Counts]:
    if arm == "native-kafka":
        return lambda o: native(o, lambda part: from_log(o, part))
    if arm == "native-parquet":
        return lambda o: native(o, lambda part: from_files(o, part))
    from infra.spark import spark_session

    scratch = Path(order.scratch)
    settings = Settings(home=scratch)
    spark = stack.enter_context(spark_session(settings, order.cores, scratch / f"{arm}.log"))
    if arm == "spark-kafka":
        return lambda o: on_spark(o, spark, KafkaSource(o.bootstrap, o.topic, max(o.ends)))
    if arm == "spark-parquet":
        return lambda o: on_spark(o, spark, ParquetSource(o.raw, o.topic, max(o.ends)))
    if arm == "spark-sql":
        return lambda o: spark_sql(o, spark)
    raise SystemExit(f"no arm {arm}")


if __name__ == "__main__":
    main()
