"""Golden sets as events: the first stands until one names it as replaced; and a version on golden rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from models import recipes
from models.dataset import golden_rows
from models.evaluation import evaluate, held_out
from models.golden import due
from models.lineage import Cut, Run
from models.registry import Registry, RegistryState
from models.scorer import Scorer
from schemas.event import Event
from streams.task import DAY_MS, Fairness, GatePolicy
from tests.unit.models.model_parts import WEAR, asked, rows


def taken(sha: str, request: str, replaces: str | None = None) -> Event:
    cut = Cut(sha, f"snapshots/{sha}.parquet", 10, 5, 2, 0, 9, "SELECT 1", {})
    return Run(WEAR, asked(request).data, "wear-1").snapshot_taken(cut, "golden", replaces)


def registry(*events: Event) -> RegistryState:
    return Registry().apply(Registry().initial(), events)


def test_a_set_that_names_the_one_before_it_takes_its_place() -> None:
    state = registry(taken("a", "r1"), taken("b", "r2", "a"), taken("c", "r3", "b"))
    assert state.golden["wear"]["snapshot"] == "c"
    assert [each["snapshot"] for each in state.golden_sets["wear"]] == ["a", "b", "c"]


def test_a_set_that_replaces_nothing_or_something_else_does_not_count() -> None:
    state = registry(taken("a", "r1"), taken("b", "r2"), taken("c", "r3", "x"))
    assert state.golden["wear"]["snapshot"] == "a"


@pytest.mark.parametrize(
    ("trigger", "days", "age", "wanted"),
    [("drift", None, 900, False), ("golden", None, 1, True), ("drift", 90, 89, False),
     ("drift", 90, 90, True)],
)  # fmt: skip
def test_when_it_is_cut_anew(trigger: str, days: int | None, age: int, wanted: bool) -> None:
    request = asked("r", time=age * DAY_MS, trigger=trigger).data
    assert due(GatePolicy(golden_days=days), {"to_time": 0}, request) == wanted
    assert due(GatePolicy(golden_days=days), None, request)


@pytest.fixture(scope="module")
def shown() -> dict[str, Any]:
    task = replace(WEAR, gate=replace(WEAR.gate, fairness=Fairness("colour", min_rows=20)))
    first, later = rows(3_000), rows(3_000, seed=2)
    found = held_out(task, [first, first.where(golden_rows(first.ids, 0.1)), later])
    assert found is not None
    assert len(set(found.ids)) == len(found) and golden_rows(found.ids, 0.1).all()
    assert (np.diff(found.times) >= 0).all()
    learned = first.where(~golden_rows(first.ids, 0.1))
    parameters = task.recipe.parameters
    scorer = Scorer.from_bytes(recipes.fit(task, learned, "gradient_boosting", parameters, 1))
    return evaluate(task, scorer, found, ["colour"])


def test_a_version_is_shown_with_intervals_slices_and_groups(shown: dict[str, Any]) -> None:
    metrics = shown["metrics"]
    assert metrics["log_loss_low"] < metrics["log_loss"] < metrics["log_loss_high"] < 0.69
    assert metrics["auc"] > 0.7
    assert sum(each["rows"] for each in shown["calibration"]["bins"]) == shown["rows"]
    assert {each["value"] for each in shown["slices"]} == {"red", "green", "blue"}
    (group,) = shown["fairness"]
    assert 0 <= group["demographic_parity_gap"] <= 1 and set(group["groups"]) == {
        *("red", "green", "blue")
    }
    rates = [row["selection_rate"] for row in group["groups"].values()]
    assert group["demographic_parity_gap"] == pytest.approx(max(rates) - min(rates))


def test_it_is_printed(shown: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    from driftlog.cli import evaluation_text

    evaluation_text.show({"model_version": "wear-1", **shown})
    said = capsys.readouterr().out
    assert "wear-1 on" in said and "slope" in said and "equalized odds gap" in said


def test_without_golden_rows_there_is_nothing_to_show() -> None:
    first = rows(300)
    assert held_out(WEAR, []) is None
    assert held_out(WEAR, [first.where(~golden_rows(first.ids, 0.1))]) is None
