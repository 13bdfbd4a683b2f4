"""The sequential tests: peeking after every label is sound, and what is there is found."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.sequential import (
    FIXED_POINT,
    Sums,
    difference,
    loss,
    mean_of,
    mismatch,
    psi,
    radius,
)

ALPHA = 0.05
STREAMS = 1_000
LABELS = 300
LEAST = 30


def summed(values: list[int]) -> Sums:
    sums = Sums()
    for value in values:
        sums.add(value)
    return sums


def aborted(seed: int, harm: float) -> bool:
    """Whether equal shares of one stream are told apart when every label is looked at."""
    rng = random.Random(seed)
    mine, theirs = Sums(), Sums()
    for _ in range(LABELS):
        chance = rng.choice((0.1, 0.3, 0.5, 0.8))
        label = int(rng.random() < chance)
        if rng.random() < 0.5:
            mine.add(loss(chance + harm * (1 - 2 * chance), label))
        else:
            theirs.add(loss(chance, label))
        found = difference([(mine, theirs)], LEAST)
        if found is not None and found.above(ALPHA) > 0:
            return True
    return False


def test_no_difference_is_called_harm_in_at_most_alpha_of_a_thousand_streams() -> None:
    false = sum(aborted(seed, 0.0) for seed in range(STREAMS))
    assert false <= ALPHA * STREAMS


def test_harm_is_found() -> None:
    assert sum(aborted(seed, 1.0) for seed in range(50)) >= 49


def test_the_radius_is_that_of_the_paper() -> None:
    """At unit information and effect: sqrt(2 * 2 * log(1 + sqrt(2) / (2 alpha)))."""
    wanted = math.sqrt(4 * math.log(1 + math.sqrt(2) / (2 * ALPHA)))
    assert radius(1.0, ALPHA, effect=1.0) == pytest.approx(wanted)
    assert radius(math.inf, ALPHA) == math.inf
    widths = [radius(1.0 / n, ALPHA) for n in (10, 100, 1_000, 10_000)]
    assert all(a > b for a, b in pairwise(widths))


@given(st.lists(st.integers(-5 * FIXED_POINT, 5 * FIXED_POINT), max_size=30), st.randoms())
def test_sums_do_not_care_about_the_order(values: list[int], rng: random.Random) -> None:
    mixed = values[:]
    rng.shuffle(mixed)
    half = len(values) // 2
    left, right = summed(mixed[:half]), summed(mixed[half:])
    left.merge(right)
    assert left == summed(values)


def test_a_few_equal_losses_prove_nothing() -> None:
    same = summed([FIXED_POINT // 10] * 30)
    assert mean_of(same).above(0.01) < 0


def test_a_step_that_was_skewed_by_its_traffic_is_compared_within_itself() -> None:
    """Simpson: pooled the challenger looks better, in each step it is worse."""
    rng = random.Random(5)

    def around(mean: float, count: int) -> Sums:
        return summed([round((mean + rng.uniform(-0.1, 0.1)) * FIXED_POINT) for _ in range(count)])

    hard = around(1.1, 100), around(1.0, 2_000)
    easy = around(0.3, 2_000), around(0.2, 100)
    found = difference([hard, easy], LEAST)
    assert found is not None
    assert found.mean == pytest.approx(0.1, abs=0.03)


def test_units_that_are_dealt_as_declared_raise_no_alarm_and_others_do() -> None:
    limit = math.log(1_000)
    alarms = 0
    for seed in range(200):
        rng = random.Random(seed)
        mine, worst = 0, -math.inf
        for n in range(1, 401):
            mine += rng.random() < 0.1
            worst = max(worst, mismatch([(mine, n - mine, 0.1)]))
        alarms += worst >= limit
    assert alarms <= 1
    assert mismatch([(200, 800, 0.1)]) > limit
    assert mismatch([(7, 0, 1.0), (0, 9, 0.0)]) == 0.0


def test_psi_is_zero_for_equal_histograms_only() -> None:
    assert psi([5, 10, 20], [5, 10, 20]) == 0.0
    assert psi([5, 10, 20], [20, 10, 5]) > 0.25


@given(st.floats(0, 1), st.integers(0, 1))
def test_a_loss_is_bounded(score: float, label: int) -> None:
    assert 0 < loss(score, label) <= round(-math.log(0.01) * FIXED_POINT)
