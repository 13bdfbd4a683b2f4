"""Backfill: all drift windows of a topic anew, on Apache Spark, by the live engine, by plain Spark SQL.

    python -m benchmarks.backfill [--quick] [--events N] [--cores N] [--json FILE]

Every contender must count the same in every bin. The engine in one process is the measure (1.00): Spark
runs the same code, in as many processes as there are cores. Starting Spark and compiling are not counted.
Exit status 0 if every goal was met, 1 if not.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import harness
from benchmarks.backfill_arms import Order
from benchmarks.drift_windows import topic as topics
from benchmarks.drift_windows import workload
from benchmarks.drift_windows.encoder import encode
from benchmarks.drift_windows.workload import Workload
from infra.settings import Settings
from schemas.columnar import Records
from schemas.registry.client import RegistryClient
from streams.raw_files import write_partition

EVENTS, QUICK_EVENTS = 2_000_000, 300_000
PARTITIONS, REPLICATION = 4, 1
TIMEOUT_S = 900.0
CHUNK = 50_000
NATIVE, SPARK, SQL = (
    ("native-kafka", "native-parquet"),
    ("spark-kafka", "spark-parquet"),
    "spark-sql",
)
TITLES = {
    "native-kafka": "driftlog, one process, from Kafka",
    "spark-kafka": "driftlog on Spark, from Kafka",
    "native-parquet": "driftlog, one process, from raw Parquet",
    "spark-parquet": "driftlog on Spark, from raw Parquet",
    "spark-sql": "Spark SQL, from decoded Parquet",
}


@dataclass
class Row:
    """What one contender showed, or why it showed nothing."""

    arm: str
    seconds: float = 0.0
    cpu_s: float = 0.0
    peak_mb: float = 0.0
    digest: str = ""
    note: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    events = asked.events or (QUICK_EVENTS if asked.quick else EVENTS)
    console = harness.console()
    with ExitStack() as stack:
        home = Path(tempfile.mkdtemp(prefix="backfill-"))
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        settings = Settings(
            home=home,
            port_offset=asked.port_offset,
            cache=asked.cache.expanduser(),
            partitions=PARTITIONS,
        )
        stack.enter_context(harness.cluster(settings))
        order = fill(settings, workload.make(events, PARTITIONS), asked.cores)
        rows = [run(arm, order, home) for arm in TITLES]
    by_arm = {row.arm: row for row in rows}
    title = (
        f"backfill: {events:,} predictions, {PARTITIONS} partitions, {len(workload.COLUMNS)} columns,"
        f" {asked.cores} cores"
    )
    header = ("contender", "events/s", "ratio", "seconds", "CPU s", "peak MB", "counts")
    table = [_cells(row, by_arm, events) for row in rows]
    harness.show_table(console, title, header, table)
    for row in rows:
        if row.note:
            console.print(f"{row.arm}: {row.note}", highlight=False)
    report = {"events": events, "cores": asked.cores, "contenders": [vars(row) for row in rows]}
    return harness.finish(console, goals(by_arm), report, asked.json)


def fill(settings: Settings, work: Workload, cores: int) -> Order:
    """The workload in a topic, as raw Parquet, and as decoded Parquet."""
    topics.produce(settings, work, REPLICATION)
    topic = topics.catalogue(work.events, work.partitions)[0]
    schema_id = RegistryClient(settings.registry).schema_id(topic.subject, topic.value_schema)
    raw, decoded, scratch = (settings.home / name for name in ("raw", "decoded", "scratch"))
    for folder in (raw, decoded, scratch):
        folder.mkdir()
    payloads = payloads_by_partition(work, schema_id)
    for partition, mine in enumerate(payloads):
        batches = (
            Records.of(
                topic.name, partition, mine[n : n + CHUNK], range(n, min(n + CHUNK, len(mine)))
            )
            for n in range(0, len(mine), CHUNK)
        )
        write_partition(raw, partition, batches)
    write_decoded(work, decoded)
    windows = workload.START_MS + work.windows * workload.WINDOW_MS
    return Order(
        bootstrap=settings.bootstrap,
        registry=settings.registry,
        task=topics.task_name(work.events),
        ends=work.ends,
        raw=str(raw),
        decoded=str(decoded),
        scratch=str(scratch),
        cores=cores,
        window_end=windows,
    )


def payloads_by_partition(work: Workload, schema_id: int) -> list[list[bytes]]:
    """What the topic holds, partition by partition."""
    found: list[list[bytes]] = [[] for _ in range(work.partitions)]
    for first in range(0, len(work), CHUNK):
        last = min(first + CHUNK, len(work))
        payloads, ends = encode(work, schema_id, first, last)
        begin = 0
        for partition, end in zip(work.partition[first:last].tolist(), ends.tolist(), strict=True):
            found[partition].append(bytes(payloads[begin:end]))
            begin = end
    return found


def write_decoded(work: Workload, folder: Path) -> None:
    """The columns that are counted, as somebody who has decoded them has them: a file for each partition."""
    names = np.array(workload.MODELS)
    for partition in range(work.partitions):
        mine = work.partition == partition
        columns: dict[str, Any] = {
            "offset": np.arange(mine.sum()),
            "event_time": work.time[mine],
            "model_version": names[work.model[mine]],
            "score": work.score[mine],
        }
        for place, name in enumerate(workload.FEATURES):
            columns[name] = pa.array(work.features[mine, place], from_pandas=True)  # NaN is null
        pq.write_table(pa.table(columns), folder / f"{partition}.parquet", compression="zstd")


def run(arm: str, order: Order, home: Path) -> Row:
    """One contender in a process of its own."""
    file = home / f"{arm}.json"
    order.write(file)
    argv = [sys.executable, "-m", "benchmarks.backfill_arms", arm, str(file)]
    child = harness.Child(argv, home / f"{arm}.log")
    try:
        child.ready(TIMEOUT_S)
        result, used = child.go(TIMEOUT_S)
    except harness.NotRun as why:
        return Row(arm, note=str(why))
    finally:
        child.end()
    return Row(arm, result["seconds"], used.cpu_s, used.peak_mb, result["digest"])


def goals(rows: dict[str, Row]) -> list[harness.Goal]:
    digests = {row.digest for row in rows.values()}
    equal = len(digests) == 1 and "" not in digests
    told = f"{len(rows)} contenders, {len(digests)} different results"
    made = [harness.Goal("every contender counts the same", told, equal)]
    peer = rows[SQL]
    for arm in SPARK:
        ratio = peer.seconds / rows[arm].seconds if rows[arm].seconds and peer.seconds else 0.0
        claim = f"{TITLES[arm]}: at least as fast as Spark SQL on decoded columns"
        made.append(harness.Goal(claim, f"{ratio:.2f}x", ratio >= 1.0))
    return made


def _cells(row: Row, rows: dict[str, Row], events: int) -> list[str]:
    if not row.seconds:
        return [TITLES[row.arm], *[""] * 5, "none"]
    base = rows["native-kafka" if row.arm.endswith("kafka") else "native-parquet"]
    ratio = f"{base.seconds / row.seconds:.2f}" if base.seconds else ""
    same = row.digest == rows[NATIVE[0]].digest
    return [
        TITLES[row.arm],
        f"{events / row.seconds:,.0f}",
        ratio,
        f"{row.seconds:.2f}",
        f"{row.cpu_s:.1f}",
        f"{row.peak_mb:,.0f}",
        "equal" if same else "DIFFER",
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.backfill", description=__doc__.splitlines()[0]
    )
    add: Any = parser.add_argument
    add("--quick", action="store_true", help=f"{QUICK_EVENTS:,} events")
    add("--events", type=int, metavar="N", help=f"{EVENTS:,} unless given")
    add("--cores", type=int, default=2, help="of Spark in local mode; 2 unless given")
    add("--port-offset", type=int, default=900, help="of the cluster; 900 unless given")
    add("--cache", type=Path, default=Path("~/.cache/driftlog"), help="where Kafka's jars are kept")
    add("--json", type=Path, metavar="FILE", help="write the figures to this file, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
