"""Raw records of a topic as Parquet: what the log holds, byte for byte, for readers that are not at the log.

Columns: `partition` int32, `offset` int64, `recorded` int64 (Kafka timestamp, ms), `value` binary (null for a
null payload). Beside the files lies `_driftlog.json` with what is needed to understand them without a
log: the writers' schemas by id, and the registered model versions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from infra.files import write_whole
from schemas.catalogue import MODEL_VERSIONS
from schemas.codec import SchemaRegistry
from schemas.columnar import Records
from schemas.errors import UnknownSchema
from schemas.event import Event

CONTEXT = "_driftlog.json"
"""Readers of Parquet pass over names that begin with an underscore."""
SCHEMA = pa.schema(
    [
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("recorded", pa.int64()),
        ("value", pa.binary()),
    ]
)
MAX_SCHEMAS = 1_000
"""Bytes that are no event may look like any schema id; so many are looked up at most."""


@dataclass(frozen=True, slots=True)
class Context:
    """What `_driftlog.json` says of the records beside it."""

    topic: str
    partitions: int
    """Of the topic; some may have no records."""
    schemas: Mapping[int, Any]
    models: Sequence[Event]
    """ModelRegistered, in the order of the log."""

    def write(self, folder: Path) -> None:
        plain = {
            "topic": self.topic,
            "partitions": self.partitions,
            "schemas": {str(number): schema for number, schema in self.schemas.items()},
            "models": [dict(event.data) for event in self.models],
        }
        write_whole(folder / CONTEXT, json.dumps(plain))

    @classmethod
    def read(cls, path: Path) -> Context | None:
        """What lies beside the Parquet at `path`, a folder or a file; None if nothing does."""
        place = (path if path.is_dir() else path.parent) / CONTEXT
        try:
            plain = json.loads(place.read_text("utf-8"))
        except FileNotFoundError:
            return None
        return cls(
            plain["topic"],
            plain["partitions"],
            {int(number): schema for number, schema in plain["schemas"].items()},
            [Event(MODEL_VERSIONS, "ModelRegistered", data) for data in plain["models"]],
        )


def write_partition(
    folder: Path,
    partition: int,
    records: Iterable[Records],
    on_progress: Callable[[int], None] = lambda count: None,
) -> tuple[int, set[int]]:
    """Write one partition's records to `partition-N.parquet`: their number, and the schema ids they name."""
    count, ids = 0, set()
    with pq.ParquetWriter(
        folder / f"partition-{partition}.parquet", SCHEMA, compression="zstd"
    ) as file:
        for some in records:
            payloads = [some.payload(row) for row in range(len(some))]
            ids |= {p[1:5] for p in payloads if p is not None and len(p) > 4 and p[0] == 0}
            columns = [
                pa.array(np.full(len(some), partition, np.int32)),
                *(pa.array(some.offset), pa.array(some.recorded), pa.array(payloads, pa.binary())),
            ]
            file.write_table(pa.Table.from_arrays(columns, schema=SCHEMA))
            count += len(some)
            on_progress(count)
    return count, {int.from_bytes(number, "big") for number in ids}


def known_schemas(registry: SchemaRegistry, ids: Iterable[int]) -> dict[int, Any]:
    """The schemas of those ids that the registry knows; raises RegistryUnavailable."""
    found = {}
    for number in sorted(ids)[:MAX_SCHEMAS]:
        try:
            found[number] = registry.schema_by_id(number)
        except UnknownSchema:
            continue  # its records are no events, and are reported as such by whoever reads them
    return found


def records_of(topic: str, partition: int, batch: pa.RecordBatch) -> Records:
    """The rows of a batch with columns `offset`, `recorded`, `value` as records; payloads stay in place."""
    value = batch.column("value")
    wide = np.int64 if pa.types.is_large_binary(value.type) else np.int32
    _, bounds, data = value.buffers()
    ends = np.frombuffer(bounds, wide)[value.offset : value.offset + len(value) + 1].astype(
        np.int64
    )
    length = np.diff(ends)
    address = ends[:-1] + (data.address if data is not None else 0)
    if value.null_count:
        absent = value.is_null().to_numpy(zero_copy_only=False)
        address[absent] = length[absent] = 0
    offset, recorded = (batch.column(name).to_numpy() for name in ("offset", "recorded"))
    return Records(topic, partition, address, length, offset, recorded, owner=value)


def rows_of(records: Records, rows: slice | NDArray[np.bool_]) -> Records:
    """Some rows of `records`: the same payloads."""
    return replace(
        records,
        address=records.address[rows],
        length=records.length[rows],
        offset=records.offset[rows],
        recorded=records.recorded[rows],
    )
