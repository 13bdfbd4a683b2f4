"""What `driftlog task check` says about a RolloutPolicy."""

from __future__ import annotations

from typing import Any

import pytest

from driftlog.task_settings import check_settings
from streams.task import Category, Numeric, RolloutPolicy, Task


def problems(policy: Any) -> dict[str, str]:
    features = (Numeric("distance"), Category("carrier"))
    task = Task(name="toy", label="late", features=features, rollout=policy)
    return {problem.field: problem.message for problem in check_settings(task)}


@pytest.mark.parametrize(
    "policy",
    [
        RolloutPolicy(),
        RolloutPolicy("canary", steps=(0.01, 1.0), sticky_by="carrier"),
        RolloutPolicy("shadow", shadow_previous=True),
        RolloutPolicy(watch_hours=12),
    ],
)
def test_policies_that_work_pass(policy: RolloutPolicy) -> None:
    assert problems(policy) == {}


@pytest.mark.parametrize(
    ("policy", "field", "why"),
    [
        (RolloutPolicy("big_bang"), "rollout.strategy", "there are immediate, shadow"),
        (RolloutPolicy("canary", steps=(0.5, 0.1)), "rollout.steps", "growing"),
        (RolloutPolicy("canary", steps=()), "rollout.steps", "growing"),
        (RolloutPolicy("ab", share=1.0), "rollout.share", "between 0 and 1"),
        (RolloutPolicy(min_labels=5), "rollout.min_labels", "at least 30"),
        (RolloutPolicy(alpha=0), "rollout.alpha", "between 0 and 0.5"),
        (RolloutPolicy("canary", sticky_by="shop"), "rollout.sticky_by", "what the request says"),
        (RolloutPolicy(shadow_previous=True), "rollout.shadow_previous", "watch_hours=24"),
        ("canary", "rollout", "must be a RolloutPolicy(...)"),
    ],
)
def test_what_can_work_for_nobody_is_named(policy: Any, field: str, why: str) -> None:
    assert why in problems(policy)[field]
