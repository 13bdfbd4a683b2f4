"""The benchmark on its first weeks: the arms share their first model and are judged on the same rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.flights_year import goals, summarise
from benchmarks.year_arms import scheduled
from driftlog.simulate.history import History, read_history
from driftlog.simulate.loop import LATENCY_MS, Loop, Run
from examples.flights import task
from streams.task import DAY_MS, HOUR_MS

DAYS = 9
# the first week alone is too short to beat a good prior
TASK = replace(
    task,
    prior_score=0.5,
    recipe=replace(task.recipe, parameters={"iterations": 10, "leaves": 4}),
    retrain=replace(task.retrain, first_labels=3_000),
    gate=replace(
        task.gate, min_maturity=None
    ),  # after four days an eighth of the labels is on its way
)


@pytest.fixture(scope="module")
def year() -> History:
    return read_history(TASK, DAYS)


@pytest.fixture(scope="module")
def runs(year: History) -> dict[str, Run]:
    loop = Loop(TASK, year)
    first_only = Loop(TASK, year)
    first_only.run(only_first=True)
    assert first_only.first is not None
    first = first_only.first
    return {
        "loop": loop.run(),
        "frozen": scheduled(TASK, year, "frozen", first, None, lambda now: None),
        "daily": scheduled(TASK, year, "daily", first, 2, lambda now: None),
    }


def test_a_snapshot_holds_what_was_known_and_nothing_later(year: History) -> None:
    until = int(year.data.times[0]) + 5 * DAY_MS
    rows = year.known(until - 2 * DAY_MS, until)
    assert len(rows) > 1_000
    assert rows.times.min() >= until - 2 * DAY_MS and rows.label_times.max() < until
    assert set(rows.labels.tolist()) == {0, 1}


def test_vectors_are_those_of_the_task_and_rates_begin_with_the_first_labels(year: History) -> None:
    assert list(year.data.columns) == list(TASK.vector)
    rates = year.data.columns["late_24h"]
    assert np.isnan(rates[0]) and not np.isnan(rates[-1])
    first_label = int(year.data.label_times.min())
    assert np.isnan(rates[year.data.times < first_label]).all()


def test_all_arms_answer_with_the_same_first_model_from_the_same_row_on(
    year: History, runs: dict[str, Run]
) -> None:
    starts = {int(np.flatnonzero(~np.isnan(run.scores))[0]) for run in runs.values()}
    assert len(starts) == 1
    first, *_ = runs["loop"].retrains
    begin, end = first.time + LATENCY_MS, first.time + 2 * DAY_MS
    assert first.trigger == "first_labels" and first.time % DAY_MS == 16 * HOUR_MS
    rows = (year.data.times >= begin) & (year.data.times < end)
    assert np.array_equal(runs["frozen"].scores[rows], runs["daily"].scores[rows])
    assert np.array_equal(runs["frozen"].scores[rows], runs["loop"].scores[rows])


def test_a_calendar_arm_changes_its_model_when_the_days_are_over(runs: dict[str, Run]) -> None:
    first, second, *_ = runs["daily"].retrains
    assert second.time - first.time == 2 * DAY_MS
    assert not np.array_equal(runs["daily"].scores, runs["frozen"].scores, equal_nan=True)
    assert runs["daily"].read.sum() > runs["frozen"].read.sum()


def test_the_report_measures_every_arm_on_the_same_rows(
    year: History, runs: dict[str, Run]
) -> None:
    report = summarise(year, runs, dict.fromkeys(("vectors", *runs), 1.0))
    assert len({arm["rows"] for arm in report["arms"].values()}) == 1
    assert (
        sum(month["loop"]["rows"] for month in report["months"]) == report["arms"]["loop"]["rows"]
    )


def test_goals_compare_quality_and_effort() -> None:
    def arms(loop: float, retrains: int) -> dict[str, dict[str, float]]:
        return {
            "loop": {"log_loss": loop, "retrains": retrains},
            "frozen": {"log_loss": 0.52, "retrains": 1},
            "daily": {"log_loss": 0.484, "retrains": 350},
        }

    assert [goal["met"] for goal in goals(arms(0.4855, 35))] == [True, True, True]
    assert [goal["met"] for goal in goals(arms(0.4865, 36))] == [True, False, False]
    assert [goal["met"] for goal in goals(arms(0.515, 3))] == [False, False, True]
