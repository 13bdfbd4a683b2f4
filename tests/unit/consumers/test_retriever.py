"""The retriever: exact, as of any moment, the same in whatever order partitions are read."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.retrieval.retriever import Item, Retriever, VectorFold, Vectors
from kernels.reference.retrieval import cosine
from schemas.event import Event
from streams.canonical import fingerprint
from streams.fold import Projector


def event(key: str, time: int, vector: tuple[float, ...] | None, number: int = 0) -> Event:
    data = {"event_id": f"{key}-{time}-{number}", "event_time": time, "key": key, "vector": vector}
    return Event("things", "ThingSeen", data)


FOLD = VectorFold("things", ("things",), lambda e: [Item(e.data["key"], e.time, e.data["vector"])])


def folded(events: list[Event]) -> Vectors:
    projector = Projector([FOLD])
    projector.feed(events)
    return projector.states["things"]


def test_the_nearest_are_those_of_a_full_search() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 6)).astype(np.float32)
    retriever = Retriever([f"k{i}" for i in range(300)], list(range(300)), vectors)
    hits = retriever.nearest(vectors[7], 5, without={"k7"})
    want = sorted((i for i in range(300) if i != 7), key=lambda i: -cosine(vectors[i], vectors[7]))
    assert [hit.key for hit in hits] == [f"k{i}" for i in want[:5]]
    assert hits[0].cosine == pytest.approx(cosine(vectors[want[0]], vectors[7]))
    assert [hit.time for hit in hits] == want[:5]


def test_equal_cosines_come_by_time_and_key() -> None:
    same = np.ones((4, 2), np.float32)
    retriever = Retriever(["d", "c", "b", "a"], [5, 1, 5, 9], same)
    assert [hit.key for hit in retriever.nearest([1, 1], 4)] == ["c", "b", "d", "a"]


def test_as_of_a_moment_only_what_was_there_is_found() -> None:
    state = folded(
        [
            event("a", 10, (1, 0)),
            event("b", 20, (1, 0.1)),
            event("a", 30, (0, 1)),
            event("b", 40, None),
        ]
    )

    def keys(time: int | None) -> list[str]:
        return [hit.key for hit in state.as_of(time).nearest([1, 0], 9)]

    assert keys(5) == [] and keys(10) == ["a"] and keys(29) == ["a", "b"]
    assert keys(30) == ["b", "a"] and keys(40) == keys(None) == ["a"]
    state.put(Item("c", 50, (1.0, 0.0)))
    assert keys(None) == ["c", "a"]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.integers(0, 3)), max_size=20),
       st.randoms())  # fmt: skip
def test_the_order_of_partitions_does_not_show(
    drawn: list[tuple[str, int, int]], chance: random.Random
) -> None:
    """A key's events keep their order, those of different keys come in any."""
    events = [
        event(key, time, (float(value), 1.0) if value else None, number)
        for number, (key, time, value) in enumerate(drawn)
    ]
    queues = {key: [e for e in events if e.data["key"] == key] for key in "abc"}
    mixed = []
    while any(queues.values()):
        mixed.append(queues[chance.choice([k for k, q in queues.items() if q])].pop(0))
    one, other = folded(events), folded(mixed)
    assert fingerprint(one) == fingerprint(other)
    for moment in (None, 4):
        query = [1.0, 0.5]
        assert one.as_of(moment).nearest(query, 9) == other.as_of(moment).nearest(query, 9)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="1 keys, 2 times"):
        Retriever(["a"], [1, 2], np.ones((1, 2), np.float32))
    with pytest.raises(ValueError, match="columns"):
        Retriever(["a"], [1], np.ones((1, 2), np.float32)).nearest([1.0], 1)
