"""Past promotions under another policy: the numbers of the log decide, and the same ones as live."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models.evidence import Judged, beyond_losses
from models.gates import judge
from models.measures import BYTES, Measure
from models.registry import Registry, RegistryState
from models.rejudge import rejudge
from streams.task import GatePolicy
from tests.unit.models.model_parts import WEAR, decided, registered, rows

DATA = rows(2_000)
GOOD = np.where(DATA.labels, 0.8, 0.2)
WORSE = np.where(DATA.labels, 0.7, 0.3)
COSTS = [Measure(BYTES, 500.0, 1000.0, 1)]
POLICIES = [
    GatePolicy(),
    GatePolicy(rule="gain"),
    GatePolicy(rule="not_worse", margin=0.5),
    GatePolicy(max_recent_ratio=2.0),
    GatePolicy(min_maturity=0.9),
    GatePolicy(max_calibration_error=0.01),
    GatePolicy(max_size_ratio=0.4),
    GatePolicy(rule="gain", confidence=0.8),
]


def live(policy: GatePolicy, challenger: Any, champion: Any, first: bool = False) -> Any:
    recent = Judged(DATA, challenger, champion)
    return judge(
        policy,
        None,
        recent.losses(WEAR, 0.8),
        challenger="wear-2",
        champion="wear-1",
        first=first,
        more=[*beyond_losses(WEAR, recent, 0.8), *COSTS],
    )


def history(then: Any, first: bool = False) -> RegistryState:
    kind = "ModelPromoted" if then.passed else "PromotionRejected"
    decision = decided("wear-2", 2, kind, "wear-1", "r", then.gates)
    data = {**decision.data, "evidence": list(then.evidence)}
    events = [
        registered("wear-1", snapshot=None if first else "s"),
        decided("wear-1"),
        type(decision)(decision.topic, decision.type, data),
        decided("wear-1", 3, previous="wear-2"),
    ]
    registry = Registry()
    return registry.apply(registry.initial(), events)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("logged", POLICIES[:3])
@pytest.mark.parametrize(("challenger", "champion"), [(GOOD, WORSE), (WORSE, GOOD), (GOOD, GOOD)])
def test_the_log_tells_what_any_policy_would_have_decided(
    policy: GatePolicy, logged: GatePolicy, challenger: Any, champion: Any
) -> None:
    then, now = live(logged, challenger, champion), live(policy, challenger, champion)
    (judged,) = rejudge(history(then), "wear", policy)
    assert judged.verdict.passed == now.passed
    assert {gate["name"]: gate["passed"] for gate in judged.verdict.gates} == {
        gate["name"]: gate["passed"] for gate in now.gates
    }
    for ours, theirs in zip(judged.verdict.gates, now.gates, strict=True):
        assert ours["threshold"] == pytest.approx(theirs["threshold"], abs=1e-6)
    assert judged.changed == (then.passed != now.passed)


def test_some_policies_disagree_with_the_day() -> None:
    then = live(POLICIES[0], GOOD, WORSE)
    changed = [any(j.changed for j in rejudge(history(then), "wear", p)) for p in POLICIES]
    assert then.passed and any(changed) and not changed[0]


def test_the_cold_start_model_costs_nothing() -> None:
    policy = GatePolicy(max_size_ratio=0.4)
    then = live(policy, GOOD, WORSE, first=True)
    assert then.passed
    (judged,) = rejudge(history(then, first=True), "wear", policy)
    assert judged.verdict.passed


def test_what_an_older_log_does_not_tell_is_said() -> None:
    gate = {"name": "recent_log_loss", "value": 0.4, "baseline": 0.5, "count": 500}
    logged = decided("wear-2", 2, "ModelPromoted", "wear-1", "r", ({**gate, "passed": True},))
    registry = Registry()
    state = registry.apply(registry.initial(), [registered("wear-1", snapshot="s"), logged])
    (judged,) = rejudge(state, "wear", GatePolicy(min_maturity=0.9, max_golden_ratio=1.0))
    assert judged.verdict.passed
    assert judged.verdict.reason.endswith("; not measured: golden log loss, missing labels")
    (judged,) = rejudge(state, "wear", GatePolicy(rule="gain"))
    assert not judged.verdict.passed and "no interval" in judged.verdict.reason
