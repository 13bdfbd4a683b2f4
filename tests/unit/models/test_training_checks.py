"""Training sets: what is planted is found, what is honest passes, and the numbers know the sample size."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.dataset import Dataset
from models.expected_rows import failing_windows, inside
from models.leakage import leakage_checks, shuffled_labels_check, time_reversed_check
from models.lineage import Run
from models.training import fit_and_score
from models.training_checks import feature_aucs, refusal, training_checks
from schemas.event import Position
from streams.expectations import Expect, QualityPolicy
from streams.quality import Check, verdict
from streams.quarantine import Span
from streams.task import DAY_MS, Category, Numeric, Task
from tests.unit.models.model_parts import START_MS, WEAR, asked, rows
from tests.unit.models.serving_parts import codec

LEAKY = dataclasses.replace(WEAR, features=(*WEAR.features, Numeric("late_note")))


def with_column(data: Dataset, values: NDArray[Any], name: str = "late_note") -> Dataset:
    return dataclasses.replace(data, columns={**data.columns, name: values})


def noisy_label(data: Dataset, noise: float, seed: int = 5) -> NDArray[np.float64]:
    """What is known only afterwards: the label and some noise."""
    return data.labels + np.random.default_rng(seed).normal(0, noise, len(data))


def failed(task: Task, data: Dataset, before: dict[str, float] | None = None) -> list[Check]:
    checks = training_checks(task, data, fit_and_score(task), before or {})
    return [check for check in checks if not check.passed]


@pytest.mark.parametrize("seed", range(4))
def test_an_honest_training_set_passes(seed: int) -> None:
    assert failed(WEAR, rows(1_500, seed)) == []
    assert failed(WEAR, rows(200, seed)) == []


def test_a_feature_that_knows_the_label_stops_the_training() -> None:
    data = rows(1_500)
    (check,) = failed(LEAKY, with_column(data, noisy_label(data, 0.3)))
    assert (check.name, check.column, check.severity) == ("single_feature", "late_note", "stop")
    said = {"checks": [check.record()], "failures": [check.message]}
    assert str(refusal(said)).startswith("quality: late_note alone tells the label: AUC 0.99")
    assert "\n" not in str(refusal(said))


@pytest.mark.parametrize("shape", ["u", "missing", "category", "few rows"])
def test_a_leak_of_any_shape_is_found(shape: str) -> None:
    data = rows(200 if shape == "few rows" else 1_500)
    task, ones = LEAKY, data.labels == 1
    noise = np.random.default_rng(3).normal(size=len(data))
    values: NDArray[Any] = data.labels + 0.01 * noise
    if shape == "u":
        values = np.where(ones, np.sign(noise) * (2 + abs(noise)), noise.clip(-1, 1))
    elif shape == "missing":
        values = np.where(ones, np.nan, noise)
    elif shape == "category":
        task = dataclasses.replace(WEAR, features=(*WEAR.features, Category("late_note")))
        many = np.random.default_rng(4).integers(0, 20, len(data))
        values = np.array([f"{a}{b}" for a, b in zip(ones, many, strict=True)], dtype=object)
    assert [check.column for check in failed(task, with_column(data, values))] == ["late_note"]


def test_a_column_of_names_is_no_leak() -> None:
    data = rows(1_500)
    task = dataclasses.replace(WEAR, features=(*WEAR.features, Category("late_note")))
    assert failed(task, with_column(data, data.ids)) == []


def test_a_feature_that_suddenly_matters_is_found_against_the_version_before() -> None:
    data = rows(1_500)
    leaky = with_column(data, noisy_label(data, 0.5))
    assert failed(LEAKY, leaky) == [], "an AUC of 0.92 is possible for an honest feature"
    (check,) = failed(LEAKY, leaky, {"late_note": 0.55, "size": 0.7})
    assert (check.name, check.severity) == ("importance_spike", "stop")
    assert "0.550 for the version before" in check.message
    assert failed(LEAKY, leaky, {"late_note": 0.9}) == []


def test_a_recipe_that_sees_the_labels_it_is_judged_by_beats_chance() -> None:
    (honest,) = shuffled_labels_check(rows(1_500), fit_and_score(WEAR), QualityPolicy(), 7)
    (peeking,) = shuffled_labels_check(
        rows(1_500), lambda _: lambda seen: seen.labels * 0.3 + 0.1, QualityPolicy(), 7
    )
    assert honest.passed and not peeking.passed
    (small,) = shuffled_labels_check(rows(200), fit_and_score(WEAR), QualityPolicy(), 7)
    assert small.threshold > honest.threshold, "fewer rows prove less"


def test_old_rows_that_were_filled_in_afterwards_are_told_by_the_direction_of_time() -> None:
    data = rows(3_000)
    noise = np.random.default_rng(8).random(len(data))
    early = np.arange(len(data)) < 1_500
    filled = early | (np.random.default_rng(9).random(len(data)) < 0.2)
    values = np.where(filled, data.labels + 0.3 * noise, np.nan)
    (check,) = time_reversed_check(with_column(data, values), QualityPolicy())
    assert not check.passed and check.severity == "alert"
    assert time_reversed_check(data, QualityPolicy())[0].passed


def test_what_cannot_be_judged_is_left_out() -> None:
    data = rows(1_500)
    rare = dataclasses.replace(data, labels=(np.arange(1_500) < 5).astype(np.int8))
    assert leakage_checks(rare, fit_and_score(WEAR), QualityPolicy(), 7, {}) == []
    (check,) = failed(WEAR, rare)
    assert check.message == "5 of 1500 rows have the rarer label: 0.33%, at least 0.50% expected"
    assert check.severity == "alert"


def test_constant_columns_and_repeated_rows_are_told() -> None:
    data = rows(400)
    twice = Dataset(
        *(np.concatenate([part, part]) for part in (data.ids, data.times, data.labels)),
        np.concatenate([data.label_times] * 2),
        {name: np.concatenate([values] * 2) for name, values in data.columns.items()},
    )
    policy = QualityPolicy(max_duplicates=0.4, stop=("duplicates",))
    task = dataclasses.replace(LEAKY, quality=policy)
    found = failed(task, with_column(twice, np.full(800, np.nan)))
    assert [check.name for check in found] == ["duplicates", "constant"]
    assert (found[0].value, found[0].severity) == (0.5, "stop")
    assert found[1].message == "late_note has the same value in all 800 rows"
    apart = dataclasses.replace(twice, labels=np.repeat([0, 1], 400).astype(np.int8))
    checks = training_checks(task, with_column(apart, np.zeros(800)), fit_and_score(task), {})
    assert checks[1].value == 0, "the label is part of a row"


def test_the_event_says_it_all_and_a_second_look_decides_the_same() -> None:
    data = rows(1_500)
    leaky = with_column(data, noisy_label(data, 0.2))
    checks = training_checks(LEAKY, leaky, fit_and_score(LEAKY), {})
    assert checks == training_checks(LEAKY, leaky, fit_and_score(LEAKY), {})
    run = Run(LEAKY, asked("r1", 100).data, "wear-1")
    snapshot = {"event_id": "s", "from_time": 1, "to_time": 2, "rows": len(data)}
    event = run.checked(snapshot, checks)
    schemas = codec(LEAKY)
    back = schemas.decode(Position(event.topic, 0, 0), schemas.encode(event)).data
    assert back == event.data
    assert (back["subject"], back["quarantined"], back["request_id"]) == ("snapshot", False, "r1")
    assert refusal(back) == refusal(verdict(checks)) is not None
    assert set(feature_aucs(back)) == {"size", "speed", "colour", "late_note"}
    assert feature_aucs(None) == {}


def test_windows_that_break_an_expectation_are_named_with_the_reason() -> None:
    expect = Expect(minimum=0, maximum=1, max_missing=0.5)
    task = dataclasses.replace(
        WEAR, features=(Numeric("size", expect=expect), Numeric("speed"), Category("colour"))
    )
    data = rows(2_000)
    assert failing_windows(task, data) == []
    size = data.columns["size"].copy()
    size[[150, 151]] = -3.0, 40.0
    size[300:400] = np.nan
    bad = dataclasses.replace(data, columns={**data.columns, "size": size})
    begin = START_MS // DAY_MS * DAY_MS
    found = failing_windows(task, bad)
    assert [(span.from_time, span.to_time) for span in found] == [
        (begin + day * DAY_MS, begin + (day + 1) * DAY_MS) for day in (1, 3)
    ]
    assert found[0].reason == (
        "size: values down to -3, at least 0 expected; size: values up to 40, at most 1 expected"
    )
    assert found[1].reason == "size: missing in 100.0% of 100 rows, at most 50.0% expected"
    left = bad.where(~inside(bad.times, found))
    assert len(left) == 1_800 and failing_windows(task, left) == []
    alerting = dataclasses.replace(expect, severity="alert")
    features = (Numeric("size", expect=alerting), *WEAR.features[1:])
    assert failing_windows(dataclasses.replace(task, features=features), bad) == []
    assert inside(np.array([1, 2, 3]), [Span(2, 3, "")]).tolist() == [False, True, False]
