"""Labelled rows as columns: what a snapshot holds and a recipe learns from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streams.fold import id_hash
from streams.task import Task

PREFIX = "features_"
_PERMILLE = 1000


@dataclass(frozen=True, slots=True)
class Dataset:
    """n labelled predictions, in the order of (event time, event id); times in ms.

    `columns`: feature -> n float64 values (NaN is missing) or n categories (object, None is missing).
    """

    ids: NDArray[np.object_]
    times: NDArray[np.int64]
    labels: NDArray[np.int8]
    label_times: NDArray[np.int64]
    columns: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def positives(self) -> int:
        return int(self.labels.sum())

    def where(self, mask: NDArray[np.bool_]) -> Dataset:
        """The rows at which `mask` holds."""
        columns = {name: values[mask] for name, values in self.columns.items()}
        return Dataset(
            self.ids[mask], self.times[mask], self.labels[mask], self.label_times[mask], columns
        )


def schema(task: Task) -> pa.Schema:
    """Columns of a snapshot: event_id, event_time, label, label_time and `features_<name>` each."""
    kinds = {"double": pa.float64(), "string": pa.string()}
    return pa.schema(
        [
            pa.field("event_id", pa.string(), nullable=False),
            pa.field("event_time", pa.int64(), nullable=False),
            pa.field("label", pa.int8(), nullable=False),
            pa.field("label_time", pa.int64(), nullable=False),
            *(pa.field(PREFIX + name, kinds[kind]) for name, kind in task.vector.items()),
        ]
    )


def from_arrow(task: Task, table: pa.Table) -> Dataset:
    """Read a table with (at least) the columns of `schema(task)`; raises KeyError if one is absent."""
    columns: dict[str, NDArray[Any]] = {}
    for name, kind in task.vector.items():
        values = table.column(PREFIX + name)
        if kind == "double":
            columns[name] = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
        else:
            columns[name] = np.array(values.to_pylist(), dtype=object)
    return Dataset(
        np.array(table.column("event_id").to_pylist(), dtype=object),
        table.column("event_time").to_numpy().astype(np.int64),
        table.column("label").to_numpy().astype(np.int8),
        table.column("label_time").to_numpy().astype(np.int64),
        columns,
    )


def to_arrow(task: Task, rows: Dataset) -> pa.Table:
    """The table of `schema(task)` that `from_arrow` reads; what is missing is null."""
    columns = [rows.ids, rows.times, rows.labels, rows.label_times]
    columns += [rows.columns[name] for name in task.vector]
    wanted = schema(task)
    arrays = [
        pa.array(values, field.type, from_pandas=True)
        for values, field in zip(columns, wanted, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=wanted)


def golden_rows(ids: NDArray[np.object_], share: float) -> NDArray[np.bool_]:
    """Which rows never train: chosen by the hash of their id, so the same rows in every snapshot."""
    limit = round(share * _PERMILLE)
    return np.fromiter((id_hash(str(i)) % _PERMILLE < limit for i in ids), np.bool_, len(ids))
