"""A search for parameters looks at nothing it must not see, and survives the death of its trainer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import recipes
from models.dataset import Dataset, golden_rows
from models.recipes import CannotTrain
from models.search import study
from models.search.space import Choices, Real, SpaceError, Whole, parse_space
from models.search.study import COMPLETE, FAILED, Trial, best, search, study_id
from models.search.time_folds import time_folds
from models.training import before_recent, recent_from
from streams.task import Recipe, Task
from tests.unit.models.memory_trainer import Killed, MemoryLog, run_trainer
from tests.unit.models.model_parts import UNTIL_MS, WEAR, asked, rows

pytest.importorskip("optuna")

SEARCH = {"penalty": (0.01, 100.0, "log"), "category_smoothing": [1.0, 20.0, 50.0]}
TASK = replace(WEAR, recipe=Recipe("logistic_regression", search=SEARCH, trials=8))


@pytest.fixture(scope="module")
def data() -> Dataset:
    return rows(500)


@pytest.fixture(scope="module")
def trials(data: Dataset) -> list[Trial]:
    return list(search(TASK, data, []))


def test_each_trial_has_parameters_of_the_space_and_a_loss_a_fold(trials: list[Trial]) -> None:
    assert [trial.number for trial in trials] == list(range(8))
    for trial in trials:
        assert trial.state == COMPLETE
        assert 0.01 <= trial.parameters["penalty"] <= 100
        assert trial.parameters["category_smoothing"] in (1.0, 20.0, 50.0)
        assert len(trial.values) == study.FOLDS
    assert len({trial.parameters["penalty"] for trial in trials}) == 8
    assert best(trials).value == min(trial.value for trial in trials)


@pytest.mark.parametrize("known", [0, 1, 5, 7, 8])
def test_a_search_that_goes_on_makes_the_trials_that_are_missing_and_the_same_ones(
    data: Dataset, trials: list[Trial], known: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits: list[Any] = []
    fit = recipes.fit
    monkeypatch.setattr(study.recipes, "fit", lambda *a: fits.append(a) or fit(*a))
    assert list(search(TASK, data, trials[:known])) == trials[known:]
    assert len(fits) == (8 - known) * study.FOLDS


def test_a_trial_that_cannot_train_has_failed_and_the_search_goes_on(data: Dataset) -> None:
    fixed = {"estimator": "tests.unit.models.estimators:pipeline"}
    space = {"strength": [1.0, -1.0]}
    task = replace(TASK, recipe=Recipe("sklearn", fixed, search=space, trials=6))
    found = list(search(task, data, []))
    assert len(found) == 6
    failed = [trial for trial in found if trial.state == FAILED]
    assert failed
    for trial in failed:
        assert trial.value is None
        assert trial.reason
    with pytest.raises(CannotTrain, match="trials of the search failed, the last one so: "):
        best(failed)


def test_another_space_or_other_rows_are_another_study() -> None:
    recipe = TASK.recipe
    ids = {
        study_id(recipe, "a"),
        study_id(recipe, "b"),
        study_id(replace(recipe, seed=8), "a"),
        study_id(replace(recipe, search={"penalty": (0.1, 1.0)}), "a"),
        study_id(replace(recipe, parameters={"penalty": 2.0}), "a"),
    }
    assert len(ids) == 5
    assert study_id(replace(recipe, trials=99), "a") in ids, "more trials continue the same study"


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(20, 300), st.integers(1, 5))
def test_no_fold_learns_from_what_was_not_known_when_its_judging_rows_began(
    seed: int, count: int, folds: int
) -> None:
    made = rows(count, seed=seed)
    delays = np.random.default_rng(seed).integers(0, 10**9, count)
    made = replace(made, label_times=made.times + delays)
    seen = np.zeros(count, np.int64)
    for fold in time_folds(made, folds):
        assert not (fold.learn & fold.judge).any()
        assert np.all(made.times[fold.learn] < fold.begins)
        assert np.all(made.label_times[fold.learn] < fold.begins)
        assert np.all(made.times[fold.judge] >= fold.begins)
        seen += fold.judge
    assert seen.max() == 1, "a row judges once"
    assert seen[made.times > np.median(made.times)].all(), "the later half judges"


def test_neither_golden_rows_nor_those_that_judge_the_result_are_searched_on(data: Dataset) -> None:
    learnable = before_recent(TASK, data, UNTIL_MS)
    assert not golden_rows(learnable.ids, TASK.gate.golden_share).any()
    training = data.where(~golden_rows(data.ids, TASK.gate.golden_share))
    cut = recent_from(TASK, training.times, UNTIL_MS)
    assert learnable.times.max() < cut
    assert learnable.label_times.max() < cut


def test_a_space_is_ranges_and_choices() -> None:
    space = {"b": (1, 9), "a": (0.1, 1, "log"), "c": ["x", "y"]}
    assert parse_space(space) == {
        "a": Real(0.1, 1.0, True),
        "b": Whole(1, 9),
        "c": Choices(("x", "y")),
    }
    for wrong in ((3, 1), (0, 1, "log"), 5, ("a", "b"), (1, 2, "lin"), ["one"], [object(), 1]):
        with pytest.raises(SpaceError, match="x: "):
            parse_space({"x": wrong})


def told(log: MemoryLog) -> list[tuple[str, dict[str, Any]]]:
    """What the log says of the version, without how long it took."""
    hidden = ("duration_ms", "evidence")  # what was measured beside the gates has latencies in it
    return [
        (event.type, {n: v for n, v in event.data.items() if n not in hidden})
        for event in log.events
        if event.data.get("model_version") != "wear-0" and event.type != "RetrainRequested"
    ]


def begun(task: Task, data: Dataset, folder: Path) -> MemoryLog:
    """A log with the cold-start version and a request for the next one."""
    log = MemoryLog()
    run_trainer(task, data, log, folder)
    log.say(asked("r1", UNTIL_MS))
    return log


def test_a_trainer_killed_before_any_event_ends_with_the_same_version(
    data: Dataset, tmp_path: Path
) -> None:
    task = replace(TASK, recipe=replace(TASK.recipe, trials=3))
    whole = begun(task, data, tmp_path / "whole")
    run_trainer(task, data, whole, tmp_path / "whole")
    types = [event.type for event in whole.events]
    start = types.index("SnapshotTaken")
    assert types[start:] == [
        *("SnapshotTaken", "QualityChecked", "TrialFinished", "TrialFinished", "TrialFinished"),
        *("TrainingStarted", "TrainingFinished", "ModelRegistered", "ModelPromoted"),
    ]
    for place in range(start, len(whole.events)):
        log = begun(task, data, tmp_path / str(place))
        log.kill_before = place
        with pytest.raises(Killed):
            run_trainer(task, data, log, tmp_path / str(place))
        log.kill_before = None
        run_trainer(task, data, log, tmp_path / str(place))
        assert told(log) == told(whole), types[place]


def test_what_was_found_is_what_is_trained(data: Dataset, tmp_path: Path) -> None:
    log = begun(TASK, data, tmp_path)
    run_trainer(TASK, data, log, tmp_path)
    version = log.state.versions["wear-1"]
    finished = log.state.requests["r1"].all_of("TrialFinished")
    chosen = min(finished, key=lambda trial: trial["value"])
    assert version.parameters == chosen["parameters"]
    assert not list(tmp_path.glob("checkpoints/*"))
