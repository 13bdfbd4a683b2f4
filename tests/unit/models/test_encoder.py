from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.encoder import Encoder, FeatureCode

ENCODER = Encoder("wear", (FeatureCode("size"), FeatureCode("colour", {"red": 0.75}, 0.25)))

names = st.text(min_size=1, max_size=8)
numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)
features = st.builds(FeatureCode, names) | st.builds(
    FeatureCode, names, st.dictionaries(st.text(), numbers), numbers
)


def test_categories_become_codes_and_what_is_missing_nan() -> None:
    matrix = ENCODER.encode(
        [
            {"size": 1.5, "colour": "red", "more": "ignored"},
            {"size": None, "colour": "blue"},
            {"colour": None},
        ]
    )
    expected = [[1.5, 0.75], [np.nan, 0.25], [np.nan, np.nan]]
    np.testing.assert_array_equal(matrix, np.array(expected, dtype=np.float32))
    assert matrix.dtype == np.float32


def test_numbers_beyond_single_precision_stay_finite() -> None:
    matrix = ENCODER.encode([{"size": 1e300}, {"size": -1e300}])
    assert matrix[0, 0] == np.finfo(np.float32).max
    assert matrix[1, 0] == np.finfo(np.float32).min


def test_text_where_a_number_belongs_is_an_error() -> None:
    with pytest.raises((ValueError, TypeError)):
        ENCODER.encode([{"size": "large"}])


@given(st.text(), st.lists(features, max_size=4))
def test_the_code_book_survives_its_json(task: str, codes: list[FeatureCode]) -> None:
    encoder = Encoder(task, tuple(codes))
    assert Encoder.from_json(encoder.to_json()) == encoder


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"task": 7},
        {"features": {}},
        {"features": [{"name": "size", "kind": "pickle"}]},
        {"features": [{"name": None, "kind": "double"}]},
        {"features": [{"name": "c", "kind": "string", "categories": {"a": "1"}, "unknown": 0.0}]},
        {"features": [{"name": "c", "kind": "string", "categories": {"a": 1.0}, "unknown": None}]},
        {"features": [{"name": "c", "kind": "string", "categories": [], "unknown": 0.0}]},
    ],
)
def test_another_code_book_is_refused(change: dict[str, object]) -> None:
    book = json.loads(ENCODER.to_json()) | change
    with pytest.raises(ValueError, match=r"code book|feature"):
        Encoder.from_json(json.dumps(book))


@pytest.mark.parametrize("text", ["", "null", "[]", '"wear"', "{"])
def test_what_is_no_code_book_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - JSON's own error is one
        Encoder.from_json(text)
