from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from models.dataset import Dataset, from_arrow, golden_rows, schema, to_arrow
from tests.unit.models.model_parts import WEAR, rows


def equal(one: Dataset, other: Dataset) -> bool:
    pairs = [(one.ids, other.ids), (one.times, other.times), (one.labels, other.labels)]
    pairs += [(one.label_times, other.label_times)]
    pairs += [(values, other.columns[name]) for name, values in one.columns.items()]
    return all(
        a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype == np.float64)
        for a, b in pairs
    )


def test_rows_survive_arrow_and_what_is_missing_is_null() -> None:
    data = rows(50)
    table = to_arrow(WEAR, data)
    assert table.schema == schema(WEAR)
    assert (
        table.column("features_speed").null_count == int(np.isnan(data.columns["speed"]).sum()) > 0
    )
    assert equal(from_arrow(WEAR, table), data)


def test_a_table_without_a_feature_is_an_error() -> None:
    table = to_arrow(WEAR, rows(5)).drop_columns(["features_speed"])
    with pytest.raises(KeyError):
        from_arrow(WEAR, table)


def test_other_integer_types_and_column_orders_are_read_alike() -> None:
    data = rows(5)
    table = to_arrow(WEAR, data)
    wide = table.set_column(2, "label", table.column("label").cast(pa.int32()))
    assert equal(from_arrow(WEAR, wide.select(wide.column_names[::-1])), data)


def test_the_same_rows_are_golden_in_every_snapshot() -> None:
    data = rows(4_000)
    mask = golden_rows(data.ids, 0.1)
    assert 0.08 < mask.mean() < 0.12
    half = golden_rows(data.ids[::2], 0.1)
    assert np.array_equal(mask[::2], half)
    assert not golden_rows(data.ids, 0.0).any()
    assert golden_rows(data.ids, 1.0).all()
    more = golden_rows(data.ids, 0.2)
    assert np.all(more[mask]), "a larger share keeps the rows of the smaller one"


def test_a_selection_takes_all_columns_along() -> None:
    data = rows(20)
    few = data.where(data.labels == 1)
    assert len(few) == data.positives == few.positives
    assert few.columns["colour"].tolist() == data.columns["colour"][data.labels == 1].tolist()
