"""Avro records as columns, without a Python object per record."""

from schemas.columnar.columns import Columns, Kind, is_null
from schemas.columnar.records import Records

__all__ = ["Columns", "Kind", "Records", "is_null"]
