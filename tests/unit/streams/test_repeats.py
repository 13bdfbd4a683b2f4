"""Repeats: what counts as one follows from the log alone, wherever a reader began."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from streams.repeats import Repeats

SPAN = 8


def found(names: list[int], begin: int = 0) -> list[bool]:
    """Whether each record from `begin` on is the first with its id."""
    repeats = Repeats(SPAN)
    start = repeats.warm_from(begin)
    ids = np.array([[name, name * 7 + 1] for name in names[start:]], np.uint64).reshape(-1, 2)
    fresh = repeats.first(ids, np.arange(start, len(names), dtype=np.int64))
    return [bool(one) for one in fresh[begin - start :]]


@given(st.lists(st.integers(0, 12), max_size=60), st.integers(0, 60))
@example([0, *range(1, 8), 0, *range(20, 27), 0], 16)
def test_a_repeat_was_there_in_its_generation_or_the_one_before(
    names: list[int], begin: int
) -> None:
    begin = min(begin, len(names))
    expected = [
        name not in names[max(0, (place // SPAN - 1) * SPAN) : place]
        for place, name in enumerate(names)
    ]
    assert found(names) == expected
    assert found(names, begin) == expected[begin:]
