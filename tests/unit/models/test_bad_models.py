"""A bad model is stopped at each gate, with the reason in one line; an equal one passes all of them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.dataset import Dataset
from models.evidence import Judged, beyond_losses, maturity_of
from models.gates import Verdict, judge
from models.latency import latencies
from models.measures import BYTES, LATENCY, Measure
from models.scorer import Scorer
from models.training import Champion, golden_set, train
from streams.task import DAY_MS, HOUR_MS, Fairness, GatePolicy, Task, TaskError
from tests.unit.models.model_parts import UNTIL_MS, WEAR, rows

STRICT = GatePolicy(
    recent_days=3,
    min_rows=50,
    rule="not_worse",
    min_maturity=0.9,
    max_calibration_error=0.05,
    slices=("colour",),
    fairness=Fairness("colour", max_gap=0.1, min_rows=50),
    max_latency_ratio=1.5,
    max_size_ratio=1.5,
)
TASK = replace(WEAR, gate=STRICT)
Scores = NDArray[np.float64]


@pytest.fixture(scope="module")
def data() -> Dataset:
    return rows(4_000)


@pytest.fixture(scope="module")
def fair(data: Dataset) -> Scores:
    """What a good, calibrated model says: right about most rows, and as sure as it is right."""
    return np.where(data.labels ^ _wrong(data), 0.85, 0.15)


def _wrong(data: Dataset) -> NDArray[np.bool_]:
    return np.random.default_rng(3).random(len(data)) < 0.15


def verdict(
    data: Dataset,
    challenger: Scores,
    champion: Scores,
    *,
    task: Task = TASK,
    known: float | None = 1.0,
    costs: tuple[Measure, ...] = (Measure(BYTES, 900.0, 900.0, 1), Measure(LATENCY, 9.9, 10.0, 1)),
) -> Verdict:
    recent = Judged(data, challenger, champion)
    more = [*beyond_losses(task, recent, known), *costs]
    losses = recent.losses(task, known)
    return judge(task.gate, None, losses, challenger="wear-2", champion="wear-1", more=more)


def failed(found: Verdict) -> set[str]:
    assert "\n" not in found.reason
    assert found.passed == all(gate["passed"] for gate in found.gates)
    return {gate["name"].partition(".")[0] for gate in found.gates if not gate["passed"]}


def test_an_equal_model_passes_every_gate(data: Dataset, fair: Scores) -> None:
    found = verdict(data, fair, fair)
    assert found.passed, found.reason
    assert {gate["name"].partition(".")[0] for gate in found.gates} == {
        *("recent_log_loss", "missing_labels", "calibration_error", "slice", "fairness"),
        *("latency_us", "bytes"),
    }


def test_shuffled_labels(data: Dataset) -> None:
    golden = data.where(golden_set(WEAR, data))  # type: ignore[arg-type]
    good = train(WEAR, data, UNTIL_MS, None, golden, "wear-1")
    champion = Champion("wear-1", Scorer.from_bytes(good.onnx), UNTIL_MS)
    later = rows(4_000, seed=2)
    shuffled = np.random.default_rng(5).permutation(later.labels)
    poisoned = Dataset(later.ids, later.times, shuffled, later.label_times, later.columns)
    found = train(WEAR, poisoned, UNTIL_MS + DAY_MS, champion, golden, "wear-2").verdict
    assert "golden_log_loss" in failed(found)
    assert found.reason.startswith("wear-2 stays behind wear-1: ")


class Slow:
    """Takes so many virtual nanoseconds a batch; now and then the machine is busy with something else."""

    def __init__(self, clock: Clock, cost: int) -> None:
        self._clock, self._cost = clock, cost

    def score_columns(self, columns: Mapping[str, Any], count: int) -> Scores:
        self._clock.spend(self._cost)
        return np.zeros(count)


class Clock:
    def __init__(self, seed: int) -> None:
        self._noise = random.Random(seed)
        self.now = 0
        self.load = 1.0

    def spend(self, cost: int) -> None:
        self.load = min(4.0, max(1.0, self.load + self._noise.uniform(-0.4, 0.4)))
        pause = self._noise.expovariate(1 / 20_000_000) if self._noise.random() < 0.15 else 0
        self.now += int(cost * self.load * self._noise.uniform(1.0, 1.3) + pause)

    def __call__(self) -> int:
        return self.now


@pytest.mark.parametrize("seed", range(40))
def test_twice_the_latency_is_stopped_and_the_same_passes_on_a_noisy_machine(
    seed: int, data: Dataset, fair: Scores
) -> None:
    clock = Clock(seed)
    for cost, stopped in ((2_000_000, True), (1_000_000, False)):
        pair = Slow(clock, cost), Slow(clock, 1_000_000)
        value, baseline = latencies(*pair, data.columns, clock)
        costs = (Measure(LATENCY, value, baseline, len(data)),)
        if seed:
            limit = baseline * 1.5
            assert (value > limit) == stopped, (value, baseline)
            continue
        found = verdict(data, fair, fair, costs=costs)
        assert failed(found) == ({"latency_us"} if stopped else set())
        assert not stopped or "times the champion's" in found.reason


def test_one_slice_that_got_worse(data: Dataset, fair: Scores) -> None:
    green = data.columns["colour"] == "green"
    worse = np.where(green, 0.5, fair)
    better = np.where(green, worse, np.clip(fair + (data.labels - 0.5) * 0.25, 0.02, 0.98))
    found = verdict(data, better, fair)
    assert "slice" in failed(found) and "recent_log_loss" not in failed(found)
    assert "log-loss where colour is green" in found.reason and "red" not in found.reason


def test_slices_that_differ_by_chance_alone_pass(data: Dataset, fair: Scores) -> None:
    """Noise that is the same on average in every slice: of 40 challengers few are held back."""
    task = replace(TASK, gate=replace(STRICT, fairness=None))
    refused = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        noisy = np.clip(fair + rng.normal(0, 0.08, len(data)), 0.02, 0.98)
        other = np.clip(fair + rng.normal(0, 0.08, len(data)), 0.02, 0.98)
        refused += "slice" in failed(verdict(data, noisy, other, task=task))
    assert refused <= 3


def test_scores_that_are_far_too_sure(data: Dataset, fair: Scores) -> None:
    found = verdict(data, np.where(fair > 0.5, 0.97, 0.03), fair)
    assert "calibration_error" in failed(found)
    assert "calibration error beyond chance" in found.reason


def test_a_gap_between_groups(data: Dataset, fair: Scores) -> None:
    red = data.columns["colour"] == "red"
    unfair = np.where(red, np.maximum(fair, 0.55), fair)
    task = replace(TASK, gate=replace(STRICT, slices=(), rule="ratio", max_recent_ratio=9.0))
    found = verdict(data, unfair, fair, task=task)
    assert "fairness" in failed(found)
    assert "equalized odds gap between values of colour" in found.reason
    assert "fairness" not in failed(verdict(data, unfair, unfair, task=task)), (
        "no worse than before"
    )


def test_immature_labels_are_no_evidence(data: Dataset, fair: Scores) -> None:
    """Labels that take up to five days, judged on the last three."""
    delays = np.random.default_rng(1).integers(0, 5 * 24, len(data)) * HOUR_MS
    slow = Dataset(data.ids, data.times, data.labels, data.times + delays, data.columns)
    slow_task = replace(TASK, label_delay_hours=5 * 24)
    until = int(data.times.max())
    seen = slow.where(slow.label_times < until)
    recent = seen.times >= until - 3 * DAY_MS
    known = maturity_of(slow_task, seen, seen.where(recent), until)
    asked = slow.times >= until - 3 * DAY_MS
    assert known == pytest.approx(recent.sum() / asked.sum(), abs=0.05), "as counted with hindsight"
    scores = fair[slow.label_times < until][recent]
    found = verdict(seen.where(recent), scores, scores, task=slow_task, known=known)
    assert "missing_labels" in failed(found)
    assert f"{known:.1%} of the recent labels are known, 90.0% are asked for" in found.reason
    unknown = verdict(data, fair, fair, known=None)
    assert failed(unknown) == {"missing_labels"} and "is unknown" in unknown.reason


def test_a_file_of_twice_the_size(data: Dataset, fair: Scores) -> None:
    found = verdict(data, fair, fair, costs=(Measure(BYTES, 1800.0, 900.0, 1),))
    assert failed(found) == {"bytes"}
    assert "size 1,800 bytes, 2.00 times the champion's" in found.reason


def test_an_equal_model_is_wanted_only_if_it_is_cheaper(data: Dataset, fair: Scores) -> None:
    task = replace(TASK, gate=replace(STRICT, rule="gain"))
    jitter = np.random.default_rng(2).normal(0, 0.01, len(data))
    equal = np.clip(fair + jitter, 0.02, 0.98)
    assert failed(verdict(data, equal, fair, task=task)) == {"recent_log_loss"}
    assert failed(verdict(data, fair, fair, task=task)) == {"recent_log_loss"}, "the same again"
    smaller = (Measure(BYTES, 450.0, 900.0, 1),)
    found = verdict(data, equal, fair, task=task, costs=smaller)
    assert found.passed and "cheaper: 0.50 of the champion's bytes" in found.reason
    better = np.clip(fair + (data.labels - 0.5) * 0.2, 0.02, 0.98)
    task = replace(task, gate=replace(task.gate, max_calibration_error=None))
    assert verdict(data, better, fair, task=task).passed


def test_slices_and_groups_must_be_categories() -> None:
    with pytest.raises(TaskError, match="'size' is no Category"):
        replace(WEAR, gate=GatePolicy(slices=("size",)))
    with pytest.raises(TaskError, match="no tuple"):
        replace(WEAR, gate=GatePolicy(slices="colour"))  # type: ignore[arg-type]
    with pytest.raises(TaskError, match="'speed' is no Category"):
        replace(WEAR, gate=GatePolicy(fairness=Fairness("speed")))
