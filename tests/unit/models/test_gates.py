from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from models.gates import Losses, auc, brier, judge, log_loss
from streams.task import GatePolicy

POLICY = GatePolicy(max_recent_ratio=1.0, max_golden_ratio=1.05, min_rows=100)

labelled = st.lists(
    st.tuples(st.integers(0, 1), st.integers(1, 99).map(lambda n: n / 100)), min_size=2, max_size=60
).filter(lambda rows: len({label for label, _ in rows}) == 2)


def verdict(recent: Losses, golden: Losses | None = None, first: bool = False) -> tuple[bool, str]:
    found = judge(POLICY, golden, recent, challenger="wear-2", champion="wear-1", first=first)
    assert found.passed == all(gate["passed"] for gate in found.gates)
    return found.passed, found.reason


@given(labelled)
def test_losses_are_those_of_scikit_learn(rows: list[tuple[int, float]]) -> None:
    labels, scores = zip(*rows, strict=True)
    assert log_loss(labels, scores) == pytest.approx(sklearn.log_loss(labels, scores), abs=1e-8)
    assert brier(labels, scores) == pytest.approx(
        sklearn.brier_score_loss(labels, scores), abs=1e-8
    )
    assert auc(labels, scores) == pytest.approx(sklearn.roc_auc_score(labels, scores), abs=1e-8)


def test_a_sure_and_wrong_answer_costs_much_but_not_everything() -> None:
    assert log_loss([1], [0.0]) == pytest.approx(13.8, abs=0.1)
    assert log_loss([], []) == brier([], []) == 0.0
    assert auc(np.ones(3), [0.1, 0.2, 0.3]) == 0.5


def test_both_gates_must_pass() -> None:
    good, bad = Losses(0.40, 0.50, 200), Losses(0.60, 0.50, 200)
    assert verdict(good, good)[0]
    assert not verdict(good, bad)[0]
    passed, reason = verdict(bad, good)
    assert not passed
    assert "recent log-loss 0.6000 > 0.5000 (champion 0.5000, 200 rows)" in reason
    assert "golden" not in reason, "what held it back, and nothing else"


def test_the_golden_set_allows_a_little_loss_the_recent_rows_none() -> None:
    slightly = Losses(0.51, 0.50, 200)
    assert verdict(Losses(0.5, 0.5, 200), slightly)[0]
    assert not verdict(slightly, Losses(0.5, 0.5, 200))[0]


def test_the_cold_start_model_must_be_beaten_on_the_golden_set_too() -> None:
    slightly = Losses(0.51, 0.50, 200)
    assert not verdict(Losses(0.4, 0.5, 200), slightly, first=True)[0]


def test_few_rows_prove_nothing() -> None:
    passed, reason = verdict(Losses(0.1, 0.9, 99))
    assert not passed
    assert "known for 99 rows only, 100 are asked for" in reason
    assert verdict(Losses(0.1, 0.9, 100))[0]


def test_without_a_golden_ratio_old_rows_have_no_say() -> None:
    free = GatePolicy(max_recent_ratio=1.0, max_golden_ratio=None, min_rows=100)
    worse, better = Losses(0.9, 0.2, 500), Losses(0.3, 1.8, 500)
    found = judge(free, worse, better, challenger="wear-2", champion="wear-1")
    assert found.passed
    assert [gate["name"] for gate in found.gates] == ["recent_log_loss"]
    assert not judge(POLICY, worse, better, challenger="wear-2", champion="wear-1").passed
