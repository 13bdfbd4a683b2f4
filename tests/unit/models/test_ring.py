"""Consistent hashing: sticky, fair, and few keys move."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.serving.ring import Deal, Ring

KEYS = [f"key-{n}" for n in range(20_000)]


def test_adding_a_replica_moves_about_its_share_of_the_keys_and_only_to_it() -> None:
    for count in (2, 4, 9):
        names = [f"replica-{n}" for n in range(count)]
        before, after = Ring(dict.fromkeys(names, 1.0)), Ring(dict.fromkeys([*names, "new"], 1.0))
        moved = [key for key in KEYS if before.node(key) != after.node(key)]
        assert {after.node(key) for key in moved} == {"new"}
        assert len(moved) / len(KEYS) == pytest.approx(1 / (count + 1), rel=0.25)


def test_weights_are_shares_of_the_keys() -> None:
    ring = Ring({"small": 1.0, "large": 3.0})
    assert ring.shares()["large"] == pytest.approx(0.75, abs=0.05)
    assert sum(ring.shares().values()) == pytest.approx(1.0)
    counted = sum(ring.node(key) == "large" for key in KEYS) / len(KEYS)
    assert counted == pytest.approx(ring.shares()["large"], abs=0.02)


def test_a_ring_without_nodes_is_refused() -> None:
    with pytest.raises(ValueError, match="positive weight"):
        Ring({"a": 0.0})


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.sampled_from(["r1", "r2", "r3"]))
def test_a_growing_share_keeps_whom_it_had(one: float, other: float, salt: str) -> None:
    small, large = (Deal(salt, share) for share in sorted((one, other)))
    assert all(large.takes(key) for key in KEYS[:2_000] if small.takes(key))


def test_a_share_is_exact_to_a_slot_and_another_rollout_takes_other_keys() -> None:
    first, second = Deal("r1", 0.05), Deal("r2", 0.05)
    mine = {key for key in KEYS if first.takes(key)}
    assert len(mine) / len(KEYS) == pytest.approx(0.05, abs=0.005)
    both = sum(second.takes(key) for key in mine)
    assert both / len(mine) == pytest.approx(0.05, abs=0.03)
    assert not any(Deal("r1", 0.0).takes(key) for key in KEYS[:500])
    assert all(Deal("r1", 1.0).takes(key) for key in KEYS[:500])
