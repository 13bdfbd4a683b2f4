"""The same rows straight into a ClickHouse of their own: what the log and decoding cost. `ARM EVENTS`."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.drift_windows import topic, workload
from benchmarks.drift_windows.encoder import encode, keys
from benchmarks.drift_windows.job import now, wait_for_go
from benchmarks.drift_windows.workload import Workload
from benchmarks.history_ingest import CHECKS, PARTITIONS
from consumers.history.store import Store, open_embedded
from consumers.history.tables import event_table
from infra.settings import Settings
from schemas.registry.client import RegistryClient

BLOCK = 20_000
"""Rows of one insert, as many as the service takes at once."""
_MS = pa.timestamp("ms", "UTC")


def arrow(work: Workload, folder: Path) -> tuple[float, float, list[int]]:
    """Columns that are Arrow already, through the service's own store."""
    from clickhouse_connect.driver.client import Client

    client: Client = open_embedded(folder)
    store = Store(client)
    table = event_table(topic.catalogue(work.events, PARTITIONS)[0])
    store.prepare([table])
    blocks = [_block(work, first) for first in range(0, len(work), BLOCK)]
    wait_for_go()
    began = now()
    for block in blocks:
        store.write_events(table, block)
    ended = now()
    found = client.query(CHECKS.format(table=f"{table.qualified} FINAL")).result_rows[0]
    return began, ended, [int(value) for value in found]


def _block(work: Workload, first: int) -> pa.Table:
    rows = slice(first, min(first + BLOCK, len(work)))
    count = len(work.time[rows])
    ids = keys(work, rows.start, rows.stop).decode()
    name = topic.catalogue(work.events, PARTITIONS)[0].name
    columns = {
        "event_id": pa.array([ids[36 * row : 36 * row + 36] for row in range(count)]),
        "event_time": pa.array(work.time[rows], _MS),
        "caused_by": pa.nulls(count, pa.string()),
        "model_version": pa.array([workload.MODELS[model] for model in work.model[rows]]),
        "score": pa.array(work.score[rows]),
        "label": pa.array(work.label[rows].astype(np.int32)),
        **{
            f"features_{feature}": pa.array(work.features[rows, place], from_pandas=True)
            for place, feature in enumerate(workload.FEATURES)
        },
        "_type": pa.repeat(pa.scalar("PredictionMade"), count),
        "_topic": pa.repeat(pa.scalar(name), count),
        "_partition": pa.array(work.partition[rows]),
        "_offset": pa.array(np.arange(rows.start, rows.stop)),
        "_recorded_at": pa.array(work.time[rows], _MS),
    }
    return pa.table(columns)


def avro(work: Workload, folder: Path) -> tuple[float, float, list[int]]:
    """Payloads as they are; ClickHouse decodes them with the schema of the registry."""
    settings = Settings.from_env(os.environ)
    first = topic.catalogue(work.events, PARTITIONS)[0]
    registry = RegistryClient(settings.registry, settings.home / "schemas")
    schema_id = registry.schema_id(first.subject, first.value_schema)
    client = open_embedded(folder)
    features = ", ".join(f"`features.{name}` Nullable(Float64)" for name in workload.FEATURES)
    client.command(
        "CREATE TABLE raw (event_id String, event_time DateTime64(3, 'UTC'),"
        " caused_by Nullable(String), model_version LowCardinality(String), score Float64,"
        f" label Int32, {features}) ENGINE = ReplacingMergeTree ORDER BY event_id"
    )
    names = ["event_id", "event_time", "caused_by", "model_version", "score", "label"]
    names += [f"features.{name}" for name in workload.FEATURES]
    blocks = [
        encode(work, schema_id, at, min(at + BLOCK, len(work)))[0]
        for at in range(0, len(work), BLOCK)
    ]
    wait_for_go()
    began = now()
    for block in blocks:
        client.raw_insert(
            "raw",
            names,
            block,
            settings={
                "format_avro_schema_registry_url": settings.registry,
                "max_insert_block_size": BLOCK,
            },
            fmt="AvroConfluent",
        )
    ended = now()
    found = client.query(CHECKS.format(table="raw FINAL")).result_rows[0]
    return began, ended, [int(value) for value in found]


ARMS: dict[str, Callable[[Workload, Path], tuple[float, float, list[int]]]] = {
    "arrow": arrow,
    "avro": avro,
}


def main() -> None:
    name, events = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="history-arm-") as folder:
        work = workload.make(int(events), PARTITIONS)
        began, ended, found = ARMS[name](work, Path(folder))
        print("RESULT " + json.dumps({"began": began, "ended": ended, "checks": found}), flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    main()
