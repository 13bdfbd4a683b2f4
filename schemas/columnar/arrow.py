"""Columns as an Arrow record batch, for ClickHouse, Parquet, pandas and everybody else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.columnar.columns import Columns
from schemas.columnar.dictionary import Dictionary


def to_arrow(columns: Columns, dictionaries: Mapping[str, Dictionary]) -> pa.RecordBatch:
    """One field for each path, then `_offset` and `_recorded`; topic and partition are metadata.

    `dictionaries` are the decoder's. Numbers and texts share the memory of `columns`: doubles are float64
    (NaN stays NaN), longs int64, texts string. Codes become dictionary<int32, string> (null for NULL_CODE
    and UNKNOWN_CODE), ids fixed_size_binary[16] in the byte order of a UUID.
    """
    arrays = {path: _array(values, dictionaries.get(path)) for path, values in columns.data.items()}
    arrays["_offset"] = pa.array(columns.offset)
    arrays["_recorded"] = pa.array(columns.recorded)
    batch = pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))
    origin = {"topic": columns.topic, "partition": str(columns.partition)}
    return batch.replace_schema_metadata(origin)


def _array(values: Any, dictionary: Dictionary | None) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    if dictionary is not None:
        codes = pa.array(values, mask=values < 0)
        return pa.DictionaryArray.from_arrays(codes, pa.array(dictionary.values, pa.string()))
    if values.ndim == 2:
        big_endian = pa.py_buffer(values.astype(">u8", order="C"))
        return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(values), [None, big_endian])
    return pa.array(np.ascontiguousarray(values))
