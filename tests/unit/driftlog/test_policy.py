"""`--policy` words: what they change, and what is said about those that cannot be tried."""

from __future__ import annotations

import pytest

from driftlog.policy import PolicyError, needs_references, needs_sketches, with_policy
from streams.task import Category, DriftPolicy, GatePolicy, Numeric, Recipe, RetrainPolicy, Task

TASK = Task(
    name="toy",
    label="late",
    features=(Numeric("x"), Numeric("y"), Category("c")),
    recipe=Recipe("logistic"),
    retrain=RetrainPolicy(votes=2, of_windows=3),
)


def test_settings_of_every_policy_are_taken_with_their_types() -> None:
    words = ["retrain.votes=1", "drift.min_psi=0.3", "gate.max_recent_ratio=1", "retrain.growth=2"]
    changed, differs = with_policy(TASK, words)
    assert changed.retrain == RetrainPolicy(votes=1, of_windows=3, growth=2.0)
    assert changed.drift == DriftPolicy(min_psi=0.3)
    assert changed.gate == GatePolicy()
    assert type(changed.retrain.growth) is float
    assert differs == {"drift.min_psi": "0.3", "retrain.growth": "2.0", "retrain.votes": "1"}
    assert with_policy(changed, ["retrain.growth=none"])[0].retrain.growth is None


def test_the_same_settings_are_no_difference() -> None:
    changed, differs = with_policy(TASK, ["retrain.votes=2", "drift.bins=10"])
    assert changed == TASK and differs == {}


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("retrain.votes", "write GROUP.FIELD=VALUE"),
        ("votes=1", "write GROUP.FIELD=VALUE"),
        ("policy.votes=1", "no policy 'policy'; there are drift, retrain, gate"),
        ("retrain.vots=1", "did you mean retrain.votes"),
        ("gate.zzz=1", "it has recent_days"),
        ("retrain.votes=1.5", "'1.5' is not a whole number"),
        ("retrain.votes=true", "not a whole number"),
        ("drift.alpha=tiny", "not a number"),
        ("retrain.votes=none", "not a whole number"),
        ("retrain.votes=4", "whole number from 1 to 3"),
        ("drift.alpha=1.5", "between 0 and 1"),
        ("gate.recent_days=3", "cannot be replayed"),
        ("gate.golden_share=0.1", "cannot be replayed"),
    ],
)
def test_what_cannot_be_tried_is_told(word: str, said: str) -> None:
    with pytest.raises(PolicyError, match=said):
        with_policy(TASK, [word])


def test_words_texts_and_names_of_gates() -> None:
    changed, differs = with_policy(
        TASK, ["gate.rule=gain", "gate.slices=c", "gate.min_maturity=0.9"]
    )
    assert (changed.gate.rule, changed.gate.slices) == ("gain", ("c",))
    assert set(differs) == {"gate.rule", "gate.slices", "gate.min_maturity"}
    with pytest.raises(PolicyError, match="one of ratio, not_worse, gain"):
        with_policy(TASK, ["gate.rule=best"])
    with pytest.raises(PolicyError, match="'x' is no Category"):
        with_policy(TASK, ["gate.slices=x"])
    with pytest.raises(PolicyError, match="written in the task's file"):
        with_policy(TASK, ["gate.fairness=1"])


@pytest.mark.parametrize(
    ("setting", "references", "sketches"),
    [
        ("drift.alpha", False, False),
        ("drift.min_psi", False, False),
        ("drift.min_rows", True, False),
        ("drift.grace_minutes", False, True),
        ("drift.window_hours", True, True),
        ("drift.bins", True, True),
        ("retrain.votes", False, False),
    ],
)
def test_what_has_to_be_made_anew(setting: str, references: bool, sketches: bool) -> None:
    assert needs_references({setting: "1"}) == references
    assert needs_sketches({setting: "1"}) == sketches
