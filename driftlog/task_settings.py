"""What a Task's numbers and policies must satisfy, beyond what its constructor checks."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from streams.expectations import (
    ALERT,
    QUARANTINE,
    SNAPSHOT_CHECKS,
    WINDOW_CHECKS,
    Expect,
    QualityPolicy,
)
from streams.task import (
    FAIRNESS_METRICS,
    GATE_RULES,
    LABEL_STRATEGIES,
    LABEL_TRIGGERS,
    STRATEGIES,
    Category,
    DriftPolicy,
    Fairness,
    GatePolicy,
    LabelPolicy,
    Numeric,
    Observed,
    Rate,
    Recipe,
    RetrainPolicy,
    RolloutPolicy,
    Task,
    Text,
)

_MANY = 1_000_000_000
MOST_CHARACTERS = 32_768
"""Of a text: some of them in one request still fit into what serving and the log take."""


@dataclass(slots=True)
class Problem:
    """One thing to correct: `field` of the task, or of a moment (numbered from 1 in the source's order)."""

    field: str
    message: str
    moment: int | None = None
    times: int = 1
    """How many moments have it; the first is named."""

    def __str__(self) -> str:
        where = self.field if self.moment is None else f"moment {self.moment}: {self.field}"
        more = f" (and {self.times - 1:,} more)" if self.times > 1 else ""
        return f"{where}: {self.message}{more}"


def check_settings(task: Task) -> list[Problem]:
    """Wrong types and values that can work for nobody, in the order of the fields."""
    found = _Found()
    if not str(task.label or "").strip():
        found.add("label", "say in words what 1 means, e.g. 'arrives late'")
    found.whole("label_delay_hours", task.label_delay_hours, 1)
    found.real("decision_threshold", task.decision_threshold, 0, 1)
    found.real("prior_score", task.prior_score, 0, 1, inner=True)
    source: object = task.source
    if source is not None and not callable(source):
        found.add("source", "must be a function that gives moments: write source=f, not source=f()")
    _features(task, found)
    kinds = {
        "recipe": Recipe,
        "drift": DriftPolicy,
        "retrain": RetrainPolicy,
        "gate": GatePolicy,
        "rollout": RolloutPolicy,
        "quality": QualityPolicy,
    }
    for field, kind in kinds.items():
        if not isinstance(getattr(task, field), kind):
            found.add(field, f"must be a {kind.__name__}(...), not {getattr(task, field)!r}")
    if not any(problem.field in kinds for problem in found.problems):
        _recipe(task, found)
        _policies(task, found)
        _quality(task.quality, found)
        _rollout(task, found)
    return found.problems


class _Found:
    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def add(self, field: str, message: str) -> None:
        self.problems.append(Problem(field, message))

    def whole(self, field: str, value: object, least: int, most: int = _MANY) -> bool:
        if type(value) is int and least <= value <= most:
            return True
        limit = f"from {least} to {most}" if most < _MANY else f"of at least {least}"
        self.add(field, f"must be a whole number {limit}, not {value!r}")
        return False

    def real(
        self, field: str, value: object, low: float, high: float = math.inf, inner: bool = False
    ) -> None:
        if type(value) in (int, float):
            number = float(value)  # type: ignore[arg-type]
            inside = low < number < high if inner else low <= number <= high
            if inside and math.isfinite(number):
                return
        limit = f"between {low:g} and {high:g}" if high < math.inf else f"of at least {low:g}"
        both = ", without these two" if inner else ""
        self.add(field, f"must be a number {limit}{both}, not {value!r}")


def _features(task: Task, found: _Found) -> None:
    for feature in task.features:
        where = f"features.{feature.name}"
        if feature.expect is not None:
            _expect(f"{where}.expect", feature.expect, type(feature), found)
        if isinstance(feature, Text):
            found.whole(f"{where}.max_length", feature.max_length, 1, MOST_CHARACTERS)
        if isinstance(feature, Rate):
            found.whole(f"{where}.hours", feature.hours, 1)
            found.real(f"{where}.strength", feature.strength, 0)
            for name in feature.by:
                if any(f.name == name and isinstance(f, Numeric) for f in task.features):
                    found.add(f"{where}.by", f"{name} is a Numeric: rates need a Category")
        elif isinstance(feature, Observed):
            found.whole(f"{where}.max_age_hours", feature.max_age_hours, 1)


def _expect(where: str, expect: object, kind: type, found: _Found) -> None:
    if not isinstance(expect, Expect):
        found.add(where, f"must be an Expect(...), not {expect!r}")
        return
    bounds, categories = ("minimum", "maximum"), ("max_unseen", "max_categories")
    unfit = {Category: bounds, Text: bounds + categories}.get(kind, categories)
    for name in unfit:
        if getattr(expect, name) is not None:
            why = f"a {kind.__name__.lower()} has no such bound"
            why = why if name in bounds else "only a Category has categories"
            found.add(f"{where}.{name}", f"{why}: leave it out")
    for name in ("minimum", "maximum"):
        if getattr(expect, name) is not None:
            found.real(f"{where}.{name}", getattr(expect, name), -math.inf)
    for name in ("max_missing", "max_unseen"):
        if getattr(expect, name) is not None:
            found.real(f"{where}.{name}", getattr(expect, name), 0, 1)
    if expect.max_categories is not None:
        found.whole(f"{where}.max_categories", expect.max_categories, 1)
    if expect.severity not in (ALERT, QUARANTINE):
        found.add(f"{where}.severity", f"must be 'alert' or 'quarantine', not {expect.severity!r}")
    low, high = expect.minimum, expect.maximum
    if type(low) in (int, float) and type(high) in (int, float) and low > high:  # type: ignore[operator]
        found.add(where, f"minimum {low!r} is above maximum {high!r}")


def _quality(policy: QualityPolicy, found: _Found) -> None:
    found.real("quality.max_volume_ratio", policy.max_volume_ratio, 1)
    if policy.min_rows is not None:
        found.whole("quality.min_rows", policy.min_rows, 1)
    for name in ("max_gap_hours", "max_psi"):
        if getattr(policy, name) is not None:
            found.real(f"quality.{name}", getattr(policy, name), 0)
    found.real("quality.min_class_share", policy.min_class_share, 0, 0.5)
    found.real("quality.max_duplicates", policy.max_duplicates, 0, 1)
    found.real("quality.max_feature_auc", policy.max_feature_auc, 0.5, 1)
    for name, known in (("quarantine", WINDOW_CHECKS), ("stop", SNAPSHOT_CHECKS)):
        checks: object = getattr(policy, name)
        if isinstance(checks, str) or not isinstance(checks, Collection):
            found.add(f"quality.{name}", f"must be a tuple of names of checks, not {checks!r}")
            continue
        for check in checks:
            if check not in known:
                found.add(f"quality.{name}", f"no check {check!r}; there are {', '.join(known)}")


def _recipe(task: Task, found: _Found) -> None:
    from models.recipes import RECIPES, parameters_of, unknown_parameters
    from models.sampling import SAMPLINGS

    recipe = task.recipe
    if recipe.name in RECIPES:
        has = ", ".join(parameters_of(recipe.name)) or "none"
        for name in unknown_parameters(recipe.name, recipe.parameters):
            found.add(
                f"recipe.parameters.{name}", f"{recipe.name} has no such parameter; it has {has}"
            )
    else:
        found.add(
            "recipe.name", f"no recipe {recipe.name!r}; there are {', '.join(sorted(RECIPES))}"
        )
    if recipe.max_rows is not None:
        found.whole("recipe.max_rows", recipe.max_rows, 100)
    if recipe.sampling not in SAMPLINGS:
        there = ", ".join(SAMPLINGS)
        found.add("recipe.sampling", f"no sampling {recipe.sampling!r}; there are {there}")
    found.real("recipe.half_life_days", recipe.half_life_days, 0, inner=True)
    found.whole("recipe.training_days", recipe.training_days, 1)
    found.whole("recipe.seed", recipe.seed, 0, 2**32 - 1)
    _search(recipe, found)
    costs: object = recipe.costs
    if costs is not None:
        if not isinstance(costs, tuple) or len(costs) != 2:
            found.add("recipe.costs", f"must be (cost of a false 1, of a false 0), not {costs!r}")
        else:
            for cost in costs:
                found.real("recipe.costs", cost, 0)


def _search(recipe: Recipe, found: _Found) -> None:
    from models.recipes import RECIPES, parameters_of, unknown_parameters
    from models.search.space import SpaceError, parse_space

    found.whole("recipe.trials", recipe.trials, 1, 10_000)
    search: object = recipe.search
    if not isinstance(search, Mapping):
        found.add("recipe.search", f"must be a mapping of parameters to ranges, not {search!r}")
        return
    for name, given in search.items():
        where = f"recipe.search.{name}"
        if recipe.name in RECIPES and unknown_parameters(recipe.name, {name: None}):
            has = ", ".join(parameters_of(recipe.name)) or "none"
            found.add(where, f"{recipe.name} has no such parameter; it has {has}")
        if name in recipe.parameters:
            found.add(where, "is set in recipe.parameters, too: say it once")
        try:
            parse_space({name: given})
        except SpaceError as error:
            found.add(where, str(error))


def _policies(task: Task, found: _Found) -> None:
    drift, retrain, gate = task.drift, task.retrain, task.gate
    found.real("drift.window_hours", drift.window_hours, 1 / 3_600)
    found.real("drift.grace_minutes", drift.grace_minutes, 0)
    found.whole("drift.bins", drift.bins, 2, 1_000)
    multivariate: object = drift.multivariate
    if type(multivariate) is not bool:
        found.add("drift.multivariate", f"must be True or False, not {multivariate!r}")
    found.real("drift.alpha", drift.alpha, 0, 1, inner=True)
    found.real("drift.min_psi", drift.min_psi, 0)
    found.whole("drift.min_rows", drift.min_rows, 1)
    found.whole("retrain.first_labels", retrain.first_labels, 1)
    found.whole("retrain.new_labels", retrain.new_labels, 1)
    found.whole("retrain.cooldown_hours", retrain.cooldown_hours, 0)
    if found.whole("retrain.of_windows", retrain.of_windows, 1, 1_000):
        found.whole("retrain.votes", retrain.votes, 1, retrain.of_windows)
    found.real("retrain.drifted_share", retrain.drifted_share, 0, 1)
    found.real("retrain.max_log_loss_ratio", retrain.max_log_loss_ratio, 1)
    found.whole("retrain.follow_ups", retrain.follow_ups, 0)
    found.whole("retrain.retry_labels", retrain.retry_labels, 1)
    if retrain.sure_at is not None:
        found.real("retrain.sure_at", retrain.sure_at, 1)
    if retrain.refresh is not None:
        found.real("retrain.refresh", retrain.refresh, 0.01)
    since_change: object = retrain.since_change
    if type(since_change) is not bool:
        found.add("retrain.since_change", f"must be True or False, not {since_change!r}")
    if retrain.growth is not None:
        found.real("retrain.growth", retrain.growth, 0.01)
    found.whole("gate.recent_days", gate.recent_days, 1)
    found.real("gate.max_recent_ratio", gate.max_recent_ratio, 0)
    if gate.max_golden_ratio is not None:
        found.real("gate.max_golden_ratio", gate.max_golden_ratio, 0)
    found.real("gate.golden_share", gate.golden_share, 0, 0.5)
    found.whole("gate.min_rows", gate.min_rows, 1)
    _gates(gate, found)
    _labelling(task.labelling, found)


def _gates(gate: GatePolicy, found: _Found) -> None:
    """What was not asked of gates before they had intervals."""
    if gate.rule not in GATE_RULES:
        found.add("gate.rule", f"must be one of {', '.join(GATE_RULES)}, not {gate.rule!r}")
    found.real("gate.confidence", gate.confidence, 0.5, 1, inner=True)
    found.real("gate.margin", gate.margin, 0)
    found.real("gate.cheaper", gate.cheaper, 0, 1)
    found.real("gate.max_slice_ratio", gate.max_slice_ratio, 1)
    for name, high in (("min_maturity", 1), ("max_calibration_error", 1)):
        if getattr(gate, name) is not None:
            found.real(f"gate.{name}", getattr(gate, name), 0, high)
    for name in ("max_latency_ratio", "max_size_ratio"):
        if getattr(gate, name) is not None:
            found.real(f"gate.{name}", getattr(gate, name), 0)
    if gate.golden_days is not None:
        found.whole("gate.golden_days", gate.golden_days, 1)
    fairness: object = gate.fairness
    if isinstance(fairness, Fairness):
        if fairness.metric not in FAIRNESS_METRICS:
            known = ", ".join(FAIRNESS_METRICS)
            found.add("gate.fairness.metric", f"must be one of {known}, not {fairness.metric!r}")
        found.real("gate.fairness.max_gap", fairness.max_gap, 0, 1)
        found.whole("gate.fairness.min_rows", fairness.min_rows, 1)
    elif fairness is not None:
        found.add("gate.fairness", f"must be a Fairness(...), not {fairness!r}")


def _labelling(policy: object, found: _Found) -> None:
    if policy is None:
        return
    if not isinstance(policy, LabelPolicy):
        found.add("labelling", f"must be a LabelPolicy(...), not {policy!r}")
        return
    found.whole("labelling.budget", policy.budget, 1, 100_000)
    found.real("labelling.max_log_loss_ratio", policy.max_log_loss_ratio, 0)
    found.whole("labelling.seed", policy.seed, 0, 2**32 - 1)
    if policy.strategy not in LABEL_STRATEGIES:
        known = ", ".join(LABEL_STRATEGIES)
        found.add("labelling.strategy", f"must be one of {known}, not {policy.strategy!r}")
    if not policy.triggers or set(policy.triggers) - set(LABEL_TRIGGERS):
        known = ", ".join(LABEL_TRIGGERS)
        found.add("labelling.triggers", f"must be a tuple of {known}, not {policy.triggers!r}")


def _rollout(task: Task, found: _Found) -> None:
    rollout = task.rollout
    if rollout.strategy not in STRATEGIES:
        found.add(
            "rollout.strategy",
            f"no strategy {rollout.strategy!r}; there are {', '.join(STRATEGIES)}",
        )
    for step in rollout.steps:
        found.real("rollout.steps", step, 0, 1)
    if rollout.strategy == "canary" and (
        not rollout.steps or list(rollout.steps) != sorted(set(rollout.steps)) or 0 in rollout.steps
    ):
        found.add("rollout.steps", "must be growing shares above 0, e.g. (0.05, 0.25, 0.5, 1.0)")
    found.real("rollout.share", rollout.share, 0, 1, inner=True)
    found.whole("rollout.min_labels", rollout.min_labels, 30)
    found.real("rollout.step_hours", rollout.step_hours, 0)
    found.real("rollout.max_hours", rollout.max_hours, rollout.step_hours)
    found.real("rollout.alpha", rollout.alpha, 0, 0.5, inner=True)
    found.real("rollout.max_regression", rollout.max_regression, 0)
    found.real("rollout.max_null_share", rollout.max_null_share, 0, 1)
    if rollout.max_score_psi is not None:
        found.real("rollout.max_score_psi", rollout.max_score_psi, 0)
    if rollout.watch_hours is not None:
        found.real("rollout.watch_hours", rollout.watch_hours, 0)
    found.real("rollout.baseline_hours", rollout.baseline_hours, 0)
    if rollout.sticky_by is not None and rollout.sticky_by not in {*task.given} - {*task.texts}:
        found.add(
            "rollout.sticky_by",
            f"{rollout.sticky_by!r} is no Numeric or Category feature of the task: who answers is"
            " decided by what the request says",
        )
    if rollout.shadow_previous and not rollout.watch_ms:
        found.add("rollout.shadow_previous", "needs a watch: say watch_hours=24, too")
