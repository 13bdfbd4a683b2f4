"""Texts as numbers: what a shift of topic or form changes, in bins that are frozen like others."""

from __future__ import annotations

import json
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.catalogue import load_schema
from streams import derived
from streams.derived import Derived
from streams.drift import score_drift
from streams.quality import expected_checks
from streams.reference import build_reference
from streams.task import (
    Category,
    DriftPolicy,
    Expect,
    GatePolicy,
    Numeric,
    Rate,
    Task,
    TaskError,
    Text,
)
from streams.texts import MAX_WORDS, WordBook, Words, words
from streams.window_bins import ModelBins

FLIGHTS = words("late delayed flight gate crew bag seat plane thanks hours again the a to my")
PHONES = words("phone screen battery charger update app store laptop the a to my")
KINDS: dict[str, Any] = {"text": "text", "age": "double"}
POLICY = DriftPolicy(min_rows=50, min_psi=0.0)


def texts(chance: np.random.Generator, rows: int, among: list[str], longest: int = 12) -> Any:
    made = np.empty(rows, object)
    made[:] = [" ".join(chance.choice(among, chance.integers(1, longest))) for _ in range(rows)]
    made[chance.random(rows) < 0.02] = None
    return made


def reference(rows: int = 12_000) -> list[dict[str, Any]]:
    chance = np.random.default_rng(1)
    columns = {"text": texts(chance, rows, FLIGHTS), "age": chance.random(rows)}
    return build_reference(columns, KINDS, np.zeros(rows), np.arange(rows) // 400, POLICY)


BUILT = reference()


def drifted(found: Any) -> dict[str, bool]:
    """Of the text's columns in a window of these texts, counted as the worker counts them."""
    model = ModelBins(BUILT)
    tallies = model.tallies()
    data = {"features.text": found, "features.age": np.full(len(found), 0.5)}
    model.add([tallies], data, {}, np.arange(len(found)), np.array([len(found)]))
    sketches = {sketch["name"]: sketch for sketch in model.describe(tallies)}
    answers = {}
    for column in BUILT:
        if column["name"].startswith("text."):
            drift = score_drift(column, sketches[column["name"]], len(BUILT), POLICY)
            answers[column["name"]] = drift.drifted
    return answers


@given(st.lists(st.none() | st.text(max_size=40), max_size=6))
def test_a_text_has_the_same_numbers_in_any_company(found: list[str | None]) -> None:
    made = derived.from_reference(BUILT)
    assert made is not None
    whole = made.columns({"text": np.array([*found, None], object), "age": np.zeros(1)})
    for place, text in enumerate(found):
        alone = made.row({"text": text})
        for name, values in whole.items():
            assert alone[name] == values[place] or np.isnan([alone[name], values[place]]).all()


def test_words_are_lower_case_and_keep_their_apostrophes() -> None:
    assert words("Don't @united's NEW #1-Plane, co\u00f6perate\u2026") == [
        "don't", "united's", "new", "1", "plane", "co\u00f6perate",
    ]  # fmt: skip


def test_the_three_numbers_of_a_text() -> None:
    book = WordBook.fit(Words.of(["a a b", "a", None]))
    found = Words.of(["a b", "a zebra", "!", None])
    np.testing.assert_array_equal(found.counts, [2, 2, 0, np.nan])
    np.testing.assert_array_equal(book.unknown(found), [0, 0.5, np.nan, np.nan])
    expected = [(np.log2(4 / 3) + 2) / 2, (np.log2(4 / 3) + np.log2(8)) / 2, np.nan, np.nan]
    np.testing.assert_allclose(book.surprise(found), expected)


def test_a_book_holds_the_most_frequent_words_alone() -> None:
    many = [f"w{n} w{n} rare{n}" for n in range(MAX_WORDS)]
    assert len(WordBook.fit(Words.of(many)).hashes) == MAX_WORDS
    assert WordBook.fit(Words.of(many)).unknown(Words.of(["w7 rare7"])).tolist() == [0.5]
    assert WordBook.fit(Words.of([])).unknown(Words.of(["any"])).tolist() == [1.0]


def test_the_same_kind_of_texts_is_no_drift_and_another_topic_is() -> None:
    chance = np.random.default_rng(2)
    assert drifted(texts(chance, 400, FLIGHTS)) == dict.fromkeys(
        ("text.length", "text.unknown", "text.surprise"), False
    )
    other = drifted(texts(chance, 400, PHONES))
    assert other == {"text.length": False, "text.unknown": True, "text.surprise": True}
    assert drifted(texts(chance, 400, FLIGHTS, longest=40))["text.length"]


def test_known_words_in_another_mix_surprise() -> None:
    chance = np.random.default_rng(3)
    often = [*FLIGHTS, *["the"] * 30]
    columns = {"text": texts(chance, 12_000, often), "age": chance.random(12_000)}
    built = build_reference(columns, KINDS, np.zeros(12_000), np.arange(12_000) // 400, POLICY)
    made = derived.from_reference(built)
    assert made is not None
    now = made.columns({"text": texts(chance, 400, FLIGHTS), "age": np.zeros(400)})
    usual = made.columns({"text": texts(chance, 400, often), "age": np.zeros(400)})
    assert np.nanmax(now["text.unknown"]) == 0
    assert np.nanmean(now["text.surprise"]) > np.nanmean(usual["text.surprise"]) + 1


def test_a_text_column_is_an_arrow_column_a_list_or_gone() -> None:
    made = derived.from_reference(BUILT)
    assert made is not None
    given = ["late flight", None, "again"]
    arrow = pa.array(given).to_numpy(zero_copy_only=False)
    one = made.columns({"text": arrow, "age": np.zeros(3)})
    two = made.columns({"text": np.array(given, object), "age": np.zeros(3)})
    gone = made.columns({"text": np.full(3, np.nan), "age": np.zeros(3)})
    for name in made.names:
        np.testing.assert_array_equal(one[name], two[name])
        assert np.isnan(gone[name]).all()


def test_a_category_that_became_text_counts_as_missing() -> None:
    columns = {"text": np.array(["a", "b"] * 200, object)}
    built = build_reference(
        columns, {"text": "string"}, np.zeros(400), np.arange(400) // 40, POLICY
    )
    model = ModelBins(built)
    tallies = model.tallies()
    texts_ = {"features.text": np.array(["a", "b"], object)}
    model.add([tallies], texts_, {}, np.arange(2), np.array([2]))
    assert tallies.missing[0] == 2


def test_the_reference_does_not_depend_on_the_order_of_rows_in_a_window() -> None:
    chance = np.random.default_rng(5)
    rows = 2_000
    columns = {"text": texts(chance, rows, FLIGHTS), "age": chance.random(rows)}
    windows = np.arange(rows) // 400
    order = np.lexsort([chance.random(rows), windows])
    mixed = {name: values[order] for name, values in columns.items()}
    one = build_reference(columns, KINDS, np.zeros(rows), windows, POLICY)
    assert build_reference(mixed, KINDS, np.zeros(rows), windows, POLICY) == one


def test_a_reference_of_texts_fits_its_schema() -> None:
    schema = load_schema("ModelRegistered")
    item = next(f for f in schema["fields"] if f["name"] == "reference")["type"]["items"]
    filled = {f["name"]: f["default"] for f in item["fields"] if "default" in f}
    for column in BUILT:
        assert fastavro.validate({**filled, **column}, item, raise_errors=True)
    assert len(json.dumps(BUILT)) < 200_000


def test_expectations_of_a_text_are_held_against_its_length() -> None:
    column = next(c for c in BUILT if c["name"] == "text.length")
    window = {"counts": [0] * len(column["counts"]), "missing": 50, "unseen": 0}
    (check,) = expected_checks(Expect(max_missing=0.1), column, window, None)
    assert not check.passed


def test_a_text_is_looked_up_by_nobody_and_is_no_slice() -> None:
    with pytest.raises(TaskError, match="looked up by 'text'"):
        Task("t", (Text("text"), Rate("r", by=("text",))), "x")
    with pytest.raises(TaskError, match="'text' is no Category"):
        Task("t", (Text("text"),), "x", gate=GatePolicy(slices=("text",)))
    task = Task("t", (Numeric("a"), Category("b"), Text("c")), "x")
    assert task.kinds == {"a": "double", "b": "string", "c": "text"}
    assert task.vector == {"a": "double", "b": "string", "c": "string"}
    assert task.given == ("a", "b", "c")
    assert task.texts == ("c",)


def test_nothing_is_derived_where_there_is_nothing() -> None:
    assert isinstance(derived.from_reference(BUILT), Derived)
    plain = build_reference({"age": [1.0] * 9}, {"age": "double"}, [0.0] * 9, [0] * 9, POLICY)
    assert derived.from_reference(plain) is None
