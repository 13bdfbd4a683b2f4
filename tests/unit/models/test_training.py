from __future__ import annotations

import numpy as np
import pytest

from models import recipes
from models.dataset import Dataset, golden_rows
from models.recipes import CannotTrain
from models.scorer import Scorer
from models.training import (
    MIN_FIT_ROWS,
    Champion,
    Trained,
    environment,
    golden_set,
    held_out_scores,
    recent_from,
    train,
)
from streams.task import DAY_MS, Recipe, Task
from tests.unit.models.model_parts import UNTIL_MS, WEAR, rows

COLD = Champion("wear-0", Scorer.from_bytes(recipes.constant(WEAR, None, 0)))


@pytest.fixture(scope="module")
def data() -> Dataset:
    return rows()


@pytest.fixture(scope="module")
def golden(data: Dataset) -> Dataset:
    mask = golden_set(WEAR, data)
    assert mask is not None
    return data.where(mask)


@pytest.fixture(scope="module")
def trained(data: Dataset, golden: Dataset) -> Trained:
    return train(WEAR, data, UNTIL_MS, COLD, golden, "wear-1")


def test_a_model_that_learned_beats_the_constant(trained: Trained) -> None:
    assert trained.verdict.passed, trained.verdict.reason
    assert trained.metrics["log_loss"] < 0.6
    assert trained.metrics["auc"] > 0.7
    assert {gate["name"] for gate in trained.verdict.gates} == {
        "recent_log_loss",
        "golden_log_loss",
    }


def test_training_again_gives_the_same_bytes_and_numbers(
    trained: Trained, data: Dataset, golden: Dataset
) -> None:
    again = train(WEAR, data, UNTIL_MS, COLD, golden, "wear-1")
    assert again == trained


def test_golden_rows_never_train(trained: Trained, data: Dataset, golden: Dataset) -> None:
    turned = 1 - data.labels
    labels = np.where(golden_rows(data.ids, 0.1), turned, data.labels)
    other = Dataset(data.ids, data.times, labels, data.label_times, data.columns)
    assert train(WEAR, other, UNTIL_MS, COLD, golden, "wear-1").onnx == trained.onnx


def test_labels_of_the_recent_window_do_not_reach_the_fit_that_is_judged(
    trained: Trained, data: Dataset, golden: Dataset
) -> None:
    """Turned around, they ruin the recent loss; the golden loss of the honest fit is the same."""
    recent = data.times >= recent_from(WEAR, data.times, UNTIL_MS)
    labels = np.where(recent, 1 - data.labels, data.labels)
    other = Dataset(data.ids, data.times, labels, data.label_times, data.columns)
    leaked = train(WEAR, other, UNTIL_MS, COLD, golden, "wear-1")
    assert leaked.metrics["golden_log_loss"] == trained.metrics["golden_log_loss"]
    assert leaked.metrics["log_loss"] > 2 * trained.metrics["log_loss"]
    assert not leaked.verdict.passed
    assert leaked.onnx != trained.onnx, "what is registered learns from them, too"


def test_a_challenger_of_turned_labels_stays_behind_a_good_champion(
    trained: Trained, golden: Dataset
) -> None:
    best = Champion("wear-1", Scorer.from_bytes(trained.onnx), UNTIL_MS)
    worse = train(WEAR, rows(seed=2, turned=True), UNTIL_MS + DAY_MS, best, golden, "wear-2")
    assert not worse.verdict.passed
    assert "golden log-loss" in worse.verdict.reason


def test_rows_that_the_champion_learned_from_do_not_judge(trained: Trained, data: Dataset) -> None:
    best = Champion("wear-1", Scorer.from_bytes(trained.onnx), UNTIL_MS + 1)
    again = train(WEAR, data, UNTIL_MS, best, None, "wear-2")
    (gate,) = again.verdict.gates
    recent = data.where(data.times >= recent_from(WEAR, data.times, UNTIL_MS))
    assert gate["count"] == int(golden_rows(recent.ids, 0.1).sum()) < 50
    assert not again.verdict.passed


def changed(day: float) -> tuple[Dataset, int]:
    """Rows whose labels say the opposite from that day on, and when that is (ms)."""
    data = rows(2_000)
    at = int(data.times[0] + day * DAY_MS)
    labels = np.where(data.times >= at, 1 - data.labels, data.labels)
    return Dataset(data.ids, data.times, labels, data.label_times, data.columns), at


def test_rows_since_a_change_are_what_is_learned_from() -> None:
    data, at = changed(15)
    mixed = train(WEAR, data, UNTIL_MS, COLD, None, "wear-1")
    made = train(WEAR, data, UNTIL_MS, COLD, None, "wear-1", tried_since=[at])
    newer = int(((data.times >= at) & ~golden_rows(data.ids, 0.1)).sum())
    assert made.reference_count == newer == made.metrics["training_rows"]
    assert at <= made.metrics["trained_since"] < at + DAY_MS
    assert made.metrics["shorter_log_loss"] < made.metrics["all_rows_log_loss"]
    assert made.metrics["log_loss"] < mixed.metrics["log_loss"]
    assert f"learned from the newest {newer:,} rows" in made.verdict.reason


def test_of_several_times_the_one_that_fits_is_chosen() -> None:
    data, at = changed(12)
    tried = [at - 5 * DAY_MS, at, at + 5 * DAY_MS]
    made = train(WEAR, data, UNTIL_MS, COLD, None, "wear-1", tried_since=tried)
    assert at <= made.metrics["trained_since"] < at + DAY_MS


def test_without_a_change_all_rows_are_learned_from(trained: Trained, data: Dataset) -> None:
    half = int(np.median(data.times))
    made = train(WEAR, data, UNTIL_MS, COLD, None, "wear-1", tried_since=[half])
    assert made.onnx == trained.onnx
    assert made.verdict.reason.count("learned from all rows") == 1
    assert "trained_since" not in made.metrics


@pytest.mark.parametrize("since", [0, UNTIL_MS - DAY_MS // 2, UNTIL_MS + DAY_MS])
def test_a_time_that_leaves_all_rows_or_too_few_is_not_tried(
    since: int, data: Dataset, trained: Trained, golden: Dataset
) -> None:
    again = train(WEAR, data, UNTIL_MS, COLD, golden, "wear-1", tried_since=[since])
    assert again == trained


def test_the_reference_describes_the_training_rows(trained: Trained, data: Dataset) -> None:
    count = int((~golden_rows(data.ids, 0.1)).sum())
    assert trained.reference_count == count == trained.metrics["training_rows"]
    assert [column["name"] for column in trained.reference] == [
        *("size", "speed", "colour", "score", "label")
    ]
    for column in trained.reference:
        assert sum(column["counts"]) + column["missing"] == count, column["name"]


def test_a_reference_score_comes_from_a_model_that_did_not_see_the_row() -> None:
    data = rows(400)
    windows = data.times // DAY_MS
    seen: list[set[str]] = []

    class Spy:
        def __init__(self, learned: Dataset) -> None:
            self.ids = set(learned.ids.tolist())
            seen.append(self.ids)

        def score_columns(self, columns: dict[str, np.ndarray], count: int) -> np.ndarray:
            mine = set(map(tuple, zip(*columns.values(), strict=True)))
            assert not mine & {
                tuple(row)
                for row, id_ in zip(zip(*data.columns.values(), strict=True), data.ids, strict=True)
                if id_ in self.ids
            }
            return np.full(count, 0.5)

    scores = held_out_scores(data, windows, Spy)  # type: ignore[arg-type]
    assert scores.tolist() == [0.5] * 400
    assert seen[0] | seen[1] == set(data.ids.tolist())
    for ids in seen:
        days = {int(w) for w, i in zip(windows, data.ids, strict=True) if i in ids}
        assert all(abs(a - b) != 1 for a in days for b in days), "every other window"


def test_too_few_rows_cannot_train_and_the_reason_has_the_number() -> None:
    with pytest.raises(CannotTrain, match=rf"labelled rows; {MIN_FIT_ROWS} are the least"):
        train(WEAR, rows(80), UNTIL_MS, COLD, None, "wear-1")
    with pytest.raises(CannotTrain, match="0 labelled rows"):
        train(WEAR, rows(0), UNTIL_MS, COLD, None, "wear-1")


@pytest.mark.parametrize(
    ("recipe", "why"),
    [
        (Recipe("magic"), "no recipe 'magic'; there are cnn, constant, "),
        (Recipe("constant", {"scor": 1}), "no parameter 'scor'; it has score"),
    ],
)
def test_a_recipe_that_is_none_says_what_there_is(recipe: Recipe, why: str) -> None:
    task = Task("wear", WEAR.features, label="breaks", recipe=recipe)
    with pytest.raises(CannotTrain, match=why):
        train(task, rows(600), UNTIL_MS, None, None, "wear-1")


def test_one_label_alone_teaches_nothing(data: Dataset) -> None:
    zeros = np.zeros(len(data), np.int8)
    same = Dataset(data.ids, data.times, zeros, data.label_times, data.columns)
    with pytest.raises(CannotTrain, match="the same label"):
        train(WEAR, same, UNTIL_MS, None, None, "wear-1")


def test_what_made_the_file_is_told() -> None:
    made_by = environment()
    assert {"python", "code", "numpy", "scikit-learn", "onnx", "onnxruntime"} <= set(made_by)
    assert len(made_by["code"]) == 64
