"""What a Task's numbers and policies must satisfy, beyond what its constructor checks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from streams.task import (
    DriftPolicy,
    GatePolicy,
    Numeric,
    Observed,
    Rate,
    Recipe,
    RetrainPolicy,
    Task,
)

_MANY = 1_000_000_000


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
    kinds = {"recipe": Recipe, "drift": DriftPolicy, "retrain": RetrainPolicy, "gate": GatePolicy}
    for field, kind in kinds.items():
        if not isinstance(getattr(task, field), kind):
            found.add(field, f"must be a {kind.__name__}(...), not {getattr(task, field)!r}")
    if not any(problem.field in kinds for problem in found.problems):
        _recipe(task, found)
        _policies(task, found)
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
        if isinstance(feature, Rate):
            found.whole(f"{where}.hours", feature.hours, 1)
            found.real(f"{where}.strength", feature.strength, 0)
            for name in feature.by:
                if any(f.name == name and isinstance(f, Numeric) for f in task.features):
                    found.add(f"{where}.by", f"{name} is a Numeric: rates need a Category")
        elif isinstance(feature, Observed):
            found.whole(f"{where}.max_age_hours", feature.max_age_hours, 1)


def _recipe(task: Task, found: _Found) -> None:
    from models.recipes import RECIPES, parameters_of, unknown_parameters

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
    if retrain.growth is not None:
        found.real("retrain.growth", retrain.growth, 0.01)
    found.whole("gate.recent_days", gate.recent_days, 1)
    found.real("gate.max_recent_ratio", gate.max_recent_ratio, 0)
    if gate.max_golden_ratio is not None:
        found.real("gate.max_golden_ratio", gate.max_golden_ratio, 0)
    found.real("gate.golden_share", gate.golden_share, 0, 0.5)
    found.whole("gate.min_rows", gate.min_rows, 1)
