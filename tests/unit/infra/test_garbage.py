"""Collections are seldom while many events are read, and as before afterwards."""

from __future__ import annotations

import gc

import pytest

from infra.garbage import SELDOM, seldom_collected


def test_collections_are_seldom_within_and_as_before_afterwards() -> None:
    before = gc.get_threshold()
    with seldom_collected():
        assert gc.get_threshold() == (SELDOM, *before[1:])
    assert gc.get_threshold() == before


def test_a_failure_within_leaves_nothing_behind() -> None:
    before = gc.get_threshold()
    with pytest.raises(RuntimeError), seldom_collected():
        raise RuntimeError
    assert gc.get_threshold() == before
