"""Windows against what the task expects: bounds, shares, volume, freshness, distribution."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.catalogue import load_schema
from schemas.event import Event
from streams.complete import KEPT_WINDOWS
from streams.expectations import Expect, QualityPolicy
from streams.quality import expected_checks, share_limit, volume_checks
from streams.scoring import Scoring
from streams.task import Numeric
from tests.unit.streams.test_scoring import DAY, TASK, days, inputs, model, of, run


def reports(
    *events: Event, expect: Expect | None = None, quality: QualityPolicy | None = None
) -> list[dict[str, Any]]:
    """The QualityChecked of a task with these expectations."""
    task = dataclasses.replace(
        TASK, features=(Numeric("x", expect=expect),), quality=quality or QualityPolicy()
    )
    answers, _ = run(*events, scoring=Scoring(task, partitions=2))
    return of("QualityChecked", answers)


def window(day: int, *ranges: tuple[float, float] | None, **fields: Any) -> list[Event]:
    """Both partitions' statements; each with the least and the greatest x, None without any value."""
    events = []
    for partition, bounds in enumerate(ranges):
        known = {"minimum": bounds[0], "maximum": bounds[1]} if bounds else {}
        x = {"name": "x", "counts": [50] * 4, "missing": 0, "unseen": 0, **known}
        score = {"name": "score", "counts": [50] * 4, "missing": 0, "unseen": 0}
        events.append(inputs(day, partition, columns=[x, score], **fields))
    return events


def test_a_value_out_of_bounds_puts_the_window_in_quarantine() -> None:
    bad = window(0, (0.0, 3.0), (-2.0, 9.5))
    (report,) = reports(model(), *bad, expect=Expect(minimum=0, maximum=9))
    assert report["quarantined"] and not report["passed"]
    assert report["failures"] == [
        "x: values down to -2, at least 0 expected",
        "x: values up to 9.5, at most 9 expected",
    ]
    assert report["checks"][1] == {
        "name": "range",
        "column": "x",
        "value": 9.5,
        "threshold": 9,
        "passed": False,
        "severity": "quarantine",
    }
    (good,) = reports(model(), *bad, expect=Expect(minimum=-2, maximum=9.5))
    assert good["passed"] and not good["quarantined"]
    assert [check["passed"] for check in good["checks"]] == [True, True], "what was asked is told"


def test_an_alert_is_no_quarantine_and_without_an_expectation_nothing_is_asked() -> None:
    bad = window(0, (0.0, 3.0), (-2.0, 9.5))
    (report,) = reports(model(), *bad, expect=Expect(minimum=0, severity="alert"))
    assert (report["passed"], report["quarantined"]) == (False, False)
    (report,) = reports(model(), *bad)
    assert report["passed"] and report["checks"] == []


def test_a_late_event_sets_the_quarantine_and_says_so_with_a_higher_revision() -> None:
    first, second = window(0, (0.0, 3.0), (0.0, 3.0))
    (late,) = window(0, (0.0, 99.0), revision=1)
    expect = Expect(maximum=9)
    found = reports(model(), first, second, late, expect=expect)
    assert [(one["revision"], one["quarantined"]) for one in found] == [(0, False), (1, True)]


def test_an_old_sketch_without_bounds_is_not_held_against_any() -> None:
    (report,) = reports(model(), *days(0), expect=Expect(minimum=0))
    assert report["passed"] and report["checks"] == []


@pytest.mark.parametrize(("missing", "passed"), [(3, True), (12, True), (14, False)])
def test_a_declared_share_knows_the_number_of_rows(missing: int, passed: bool) -> None:
    """At most 1 % of 400 rows: four, and three standard deviations of six more."""
    x = {"name": "x", "counts": [50 - missing, 50, 50, 50], "missing": missing, "unseen": 0}
    score = {"name": "score", "counts": [50] * 4, "missing": 0, "unseen": 0}
    full = {**x, "counts": [50] * 4, "missing": 0}
    events = [inputs(0, 0, columns=[x, score]), inputs(0, 1, columns=[full, score])]
    (report,) = reports(model(), *events, expect=Expect(max_missing=0.01))
    # 0.01 + 3 sqrt(0.01 * 0.99 / 400) = 0.0249: nine rows of 400.
    assert report["quarantined"] is (missing > 9)
    (none,) = reports(model(), *events, expect=Expect(max_missing=0))
    assert none["quarantined"], "none is none"
    assert passed or report["failures"][0].startswith("x: missing in 3.5% of 400 rows")


def test_categories_and_unseen_ones_are_counted() -> None:
    reference = {"name": "c", "categories": ["a", "b", "c"], "counts": [9, 9, 9, 1], "missing": 0}
    column = {"counts": [5, 0, 4, 3], "missing": 0, "unseen": 3}
    checks = expected_checks(Expect(max_categories=2, max_unseen=0.2), reference, column, None)
    assert [(check.name, check.passed) for check in checks] == [
        ("unseen", True),  # 3 of 12 is beyond 20 %, but not by chance's measure
        ("categories", False),
    ]
    assert checks[1].message == "c: 3 categories, at most 2 expected"


def test_a_stream_that_was_silent_is_told_when_it_speaks_again() -> None:
    policy = QualityPolicy(max_gap_hours=24, quarantine=("freshness",))
    found = reports(model(), *days(0, 1, 3, 4), *days(5 + KEPT_WINDOWS, 99, 100), quality=policy)
    told = {
        one["window_start"] // DAY: check["value"]
        for one in found
        for check in one["checks"]
        if check["name"] == "freshness"
    }
    assert told[1] == 0 and told[3] == 24 and told[4] == 0
    assert told[5 + KEPT_WINDOWS] == 24 * KEPT_WINDOWS, "however long ago"
    assert [one["window_start"] // DAY for one in found if one["quarantined"]] == [
        5 + KEPT_WINDOWS,
        99,
    ]


def test_few_rows_and_a_far_distribution_fail_if_the_policy_asks() -> None:
    policy = QualityPolicy(min_rows=500, max_psi=0.5, quarantine=("rows",))
    (report,) = reports(model(), *days(0, counts=(200, 0, 0, 0)), quality=policy)
    assert report["quarantined"]
    assert report["failures"][0] == "rows: 400 in the window, at least 500 expected"
    assert report["failures"][1].startswith("x: PSI ")
    assert {check["severity"] for check in report["checks"]} == {"quarantine", "alert"}


@given(st.integers(0, 10_000), st.integers(1, 5_000), st.floats(1, 5))
def test_a_usual_volume_passes_and_more_data_make_the_limits_tighter(
    volume: int, usual: int, ratio: float
) -> None:
    (check,) = volume_checks(volume, usual, None, QualityPolicy(max_volume_ratio=ratio))
    if usual / ratio <= volume <= usual * ratio:
        assert check.passed
    assert check.passed or not usual / ratio <= volume <= usual * ratio
    assert share_limit(usual, 10_000, 100, 0.01) >= share_limit(usual, 10_000, 1_000, 0.01)


def test_every_report_fits_its_schema_and_old_ones_are_read() -> None:
    schema: Any = load_schema("QualityChecked")
    policy, expect = QualityPolicy(min_rows=500), Expect(maximum=1)
    found: Sequence[dict[str, Any]] = reports(
        model(), *window(0, (0.0, 3.0), None), expect=expect, quality=policy
    )
    for report in found:
        assert fastavro.validation.validate(report, schema)
