"""The loans: a generated stream whose drift is where the docstring says."""

from __future__ import annotations

from itertools import islice
from statistics import mean

import numpy as np
import pytest

from driftlog import Ask, Truth
from driftlog.simulate.history import read_history
from examples.loans import A_DAY, DAY_MS, DAYS, HOUR_MS, START_MS, moments, task
from models.gates import log_loss
from models.scorer import Scorer
from models.training import train
from tests.unit.examples.stream import check_stream


@pytest.fixture(scope="module")
def stream() -> list[Ask | Truth]:
    return list(moments())


def test_moments_come_in_time_order_and_each_label_after_its_question(
    stream: list[Ask | Truth],
) -> None:
    check_stream(stream)


def test_a_question_carries_the_application_and_nothing_else(stream: list[Ask | Truth]) -> None:
    asks = [moment for moment in stream if isinstance(moment, Ask)]
    assert len(asks) == DAYS * A_DAY
    for ask in asks[::500]:
        assert tuple(ask.instance) == task.given


def test_every_call_repeats_the_same_moments(stream: list[Ask | Truth]) -> None:
    assert list(islice(moments(), 2_000)) == stream[:2_000]


def test_decisions_take_hours_and_some_never_come(stream: list[Ask | Truth]) -> None:
    asked = {m.id: m.time for m in stream if isinstance(m, Ask)}
    waits = [m.time - asked[m.prediction_id] for m in stream if isinstance(m, Truth)]
    assert min(waits) >= 2 * HOUR_MS
    assert mean(waits) == pytest.approx(14 * HOUR_MS, rel=0.02)
    in_time = mean(wait <= task.label_delay_hours * HOUR_MS for wait in waits)
    assert in_time == pytest.approx(0.997, abs=0.001)
    assert len(waits) / len(asked) == pytest.approx(29 / 30, abs=0.003)


def test_each_rule_of_the_office_refuses_its_own_share(stream: list[Ask | Truth]) -> None:
    asked = {m.id: (m.time - START_MS) / DAY_MS for m in stream if isinstance(m, Ask)}
    refused = [(asked[m.prediction_id], m.label) for m in stream if isinstance(m, Truth)]

    def share(since: float, until: float) -> float:
        return mean(label for day, label in refused if since <= day < until)

    assert share(0, 50) == pytest.approx(0.50, abs=0.02)
    assert share(54, 75) == pytest.approx(0.38, abs=0.02)
    assert share(104, 150) == pytest.approx(0.18, abs=0.03)


def test_the_campaign_makes_applicants_younger(stream: list[Ask | Truth]) -> None:
    asks = [moment for moment in stream if isinstance(moment, Ask)]
    before = mean(a.instance["age"] >= 50 for a in asks if a.time < START_MS + 75 * DAY_MS)
    after = mean(a.instance["age"] >= 50 for a in asks if a.time >= START_MS + 75 * DAY_MS)
    assert before > 0.48
    assert after < 0.28


def test_it_trains_and_what_was_learned_fails_under_the_next_rule() -> None:
    year = read_history(task, days=60)
    until = START_MS + 20 * DAY_MS
    rows = year.known(until - task.recipe.training_days * DAY_MS, until)
    assert len(rows) > 3_000
    trained = train(task, rows, until, None, None, "loans-1")
    assert trained.verdict.passed
    scorer = Scorer.from_bytes(trained.onnx)

    def loss(since: int, until: int) -> float:
        times, labels = year.data.times, year.data.labels
        days = (times - START_MS) / DAY_MS
        later = year.data.where((days >= since) & (days < until) & (labels >= 0))
        return float(log_loss(later.labels, scorer.score_columns(later.columns, len(later))))

    assert loss(20, 25) < 0.3
    assert loss(55, 60) > 1.0


def test_the_feature_fold_fills_the_vector() -> None:
    data = read_history(task, days=3).data
    assert list(data.columns) == list(task.vector)
    rates = data.columns["refused_72h"]
    assert np.isnan(rates[0])  # nothing is known at first
    assert np.all((rates[-100:] > 0.3) & (rates[-100:] < 0.7))
