"""Samples depend on the seed and the ids alone, and are as fair as they say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.sampling import Reservoir, reservoir, stratified, training_sample, weighted
from streams.task import DAY_MS, Recipe
from tests.unit.models.model_parts import rows

IDS = np.array([f"id-{n}" for n in range(400)], dtype=object)


@given(st.permutations(range(60)), st.integers(1, 70), st.integers(0, 3), st.data())
@settings(max_examples=80, deadline=None)
def test_a_reservoir_of_a_stream_is_that_of_its_ids(
    order: list[int], size: int, seed: int, data: st.DataObject
) -> None:
    """Whatever the order, the repeats, and how the stream was split and merged again."""
    expected = sorted(IDS[:60][reservoir(IDS[:60], size, seed)].tolist())
    cut = data.draw(st.integers(0, 60))
    first, second = Reservoir(size, seed), Reservoir(size, seed)
    for number in order[:cut]:
        first.offer(IDS[number], number)
    for number in [*order[cut:], *order[: cut // 2]]:
        second.offer(IDS[number], number)
    first.merge(second)
    assert [id_ for id_, _ in first.items()] == expected
    assert all(IDS[item] == id_ for id_, item in first.items())


def test_reservoirs_of_other_seeds_do_not_merge() -> None:
    with pytest.raises(ValueError, match="do not merge"):
        Reservoir(3, 1).merge(Reservoir(3, 2))


def test_each_row_has_the_same_chance() -> None:
    counts = sum(reservoir(IDS, 100, seed).astype(int) for seed in range(400))
    assert np.sum(counts) == 400 * 100
    # 400 binomials of 400 draws at 1/4: mean 100, standard deviation 8.7; six of them hold for all rows.
    assert np.abs(counts - 100).max() < 6 * 8.7


def test_a_weighted_draw_goes_by_the_weights() -> None:
    weights = np.where(np.arange(400) < 200, 3.0, 1.0)
    heavy = [int(weighted(IDS, weights, 20, seed)[:200].sum()) for seed in range(300)]
    # 20 of 400 rows: nearly with replacement, so three quarters of the draws; 6,000 draws in all.
    assert abs(sum(heavy) / 6_000 - 0.75) < 6 * np.sqrt(0.75 * 0.25 / 6_000)


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=200), st.integers(1, 220), st.integers(0, 9)
)
def test_strata_keep_their_share(strata: list[int], size: int, seed: int) -> None:
    groups = np.array(strata)
    chosen = stratified(IDS[: len(groups)], groups, size, seed)
    assert chosen.sum() == min(size, len(groups))
    for group in set(strata):
        share = size * (groups == group).sum() / len(groups)
        if size < len(groups):
            assert abs(chosen[groups == group].sum() - share) < 1


@pytest.mark.parametrize("sampling", ["reservoir", "stratified", "weighted"])
def test_a_recipe_limits_its_rows(sampling: str) -> None:
    data = rows(1_500)
    recipe = Recipe(max_rows=300, sampling=sampling, half_life_days=2)
    sample = training_sample(data, recipe, DAY_MS)
    assert len(sample) == 300
    assert sample.ids.tolist() == training_sample(data, recipe, DAY_MS).ids.tolist()
    other = training_sample(data, dataclasses.replace(recipe, seed=8), DAY_MS)
    assert other.ids.tolist() != sample.ids.tolist()
    assert np.all(np.diff(sample.times) >= 0), "in the order of time"
    if sampling == "stratified":
        assert abs(sample.labels.mean() - data.labels.mean()) < 20 / 300
        days = np.bincount((sample.times - data.times[0]) // DAY_MS)
        assert days.min() >= 14 and days.max() <= 16
    if sampling == "weighted":
        age = (data.times[-1] - sample.times) / DAY_MS
        assert np.median(age) < 4, "half of the chance every two days, of twenty"


def test_without_a_limit_every_row_stays() -> None:
    data = rows(200)
    assert training_sample(data, Recipe(), DAY_MS) is data
    assert training_sample(data, Recipe(max_rows=200), DAY_MS) is data
