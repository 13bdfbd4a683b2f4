"""Projector, fingerprints, merge and join: what every fold stands on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.event import Event, Position
from streams.canonical import fingerprint, transient
from streams.fold import Projector, Seen
from streams.join import LabelJoin
from streams.merge import Merger
from streams.watermark import Watermark


def event(partition: int, offset: int, event_id: str, recorded_ms: int = 0) -> Event:
    data = {"event_id": event_id, "event_time": offset}
    return Event("t", "Counted", data, Position("t", partition, offset), recorded_ms)


class Count:
    """Counts what reaches it."""

    name = "count"
    topics = ("t",)

    def initial(self) -> dict[str, int]:
        return {}

    def apply(self, state: dict[str, int], batch: Sequence[Event]) -> dict[str, int]:
        for item in batch:
            state[item.id] = state.get(item.id, 0) + 1
        return state


def test_a_record_fed_twice_counts_once() -> None:
    projector = Projector([Count()])
    projector.feed([event(0, 0, "a"), event(0, 1, "b")])
    projector.feed([event(0, 1, "b"), event(0, 2, "c")])
    assert projector.states["count"] == {"a": 1, "b": 1, "c": 1}


def test_a_repeat_at_a_new_offset_counts_once() -> None:
    projector = Projector([Count()])
    projector.feed([event(0, 0, "a"), event(0, 1, "a"), event(1, 0, "a")])
    assert projector.states["count"] == {"a": 1}
    assert projector.offsets == {("t", 0): 2, ("t", 1): 1}


def test_seen_is_bounded_and_remembers_at_least_its_capacity() -> None:
    seen = Seen(capacity=10)
    for number in range(100):
        assert seen.add(str(number))
        assert not seen.add(str(max(0, number - 9)))
    assert len(seen.young) + len(seen.old) <= 20


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.floats(allow_nan=True),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.text(), plain))
def test_fingerprint_ignores_insertion_order(state: dict[str, Any]) -> None:
    assert fingerprint(state) == fingerprint(dict(reversed(state.items())))


def test_fingerprint_tells_states_apart() -> None:
    states: list[Any] = [
        None, True, 1, 1.0, "1", b"1", [1], {"1": 1}, {1: 1}, {1}, [], {}, "", b"", 0, False, [[1], 2],
        [1, [2]], ["ab", "c"], ["a", "bc"], {"a": None}, {"a": 0},
    ]  # fmt: skip
    assert len({fingerprint(state) for state in states}) == len(states)


def test_transient_fields_are_no_part_of_the_fingerprint() -> None:
    @dataclass
    class State:
        kept: int = 1
        cache: dict[str, int] = transient(default_factory=dict)
        more: list[int] = field(default_factory=list)

    assert fingerprint(State(cache={"x": 1})) == fingerprint(State())
    assert fingerprint(State(kept=2)) != fingerprint(State())


def test_fingerprint_is_the_same_in_every_release() -> None:
    state = {"b": [1, 2.5, None, True], "a": {"x": b"\x00", "y": "ü"}}
    assert fingerprint(state) == "2ad84f1a9d9739a82a44e6aec6b5b5b7d14cb0b2f0e58deebf6f1c6c873338a1"


def test_fingerprint_refuses_what_has_no_canonical_form() -> None:
    with pytest.raises(TypeError, match="object"):
        fingerprint({"x": object()})


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50)), max_size=60), st.integers(1, 7))
def test_merge_keeps_the_order_of_each_partition(rows: list[tuple[int, int]], step: int) -> None:
    merger = Merger([("t", p) for p in range(4)])
    counts: dict[int, int] = {}
    events = []
    for partition, stamp in rows:
        offset = counts.get(partition, 0)
        counts[partition] = offset + 1
        events.append(event(partition, offset, f"{partition}-{offset}", stamp))
    out: list[Event] = []
    for start in range(0, len(events), step):
        for item in events[start : start + step]:
            merger.push(item)
        out += merger.pop()
    for partition in range(4):
        merger.close(("t", partition))
    out += merger.pop()
    assert len(out) == len(events) and len(merger) == 0
    for partition in range(4):
        mine = [item.at.offset for item in out if item.at and item.at.partition == partition]
        assert mine == sorted(mine)


def test_merge_waits_for_a_partition_that_has_more_to_come() -> None:
    merger = Merger([("t", 0), ("t", 1)])
    merger.push(event(0, 0, "late", recorded_ms=9))
    assert list(merger.pop()) == []
    merger.push(event(1, 0, "early", recorded_ms=1))
    assert [item.id for item in merger.pop()] == ["early"]
    merger.close(("t", 1))
    assert [item.id for item in merger.pop()] == ["late"]


@given(st.permutations([*(("p", n) for n in range(6)), *(("l", n) for n in range(6))]))
def test_the_label_join_does_not_care_who_comes_first(order: list[tuple[str, int]]) -> None:
    join: LabelJoin[int] = LabelJoin(delay_ms=10)
    matched = set()
    for side, n in order:
        if side == "p":
            match = join.prediction(str(n), time=n, payload=n)
        else:
            match = join.label(str(n), time=n + 2 * n, label=n % 2)
        if match:
            matched.add((match.payload, match.label))
    assert matched == {(n, n % 2) for n in range(6) if 2 * n <= 10}
    assert not join.predictions and not join.labels


def test_the_watermark_waits_for_the_slowest_but_not_for_the_idle() -> None:
    mark = Watermark()
    assert mark.low(2, idle_ms=100) == -1
    mark.see(0, 1_000)
    assert mark.low(2, idle_ms=100) == 900
    mark.see(1, 950)
    assert mark.low(2, idle_ms=100) == 950
    mark.see(2, 1_010)  # a partition that nobody asks for counts for how far time is
    assert mark.low(2, idle_ms=100) == 950
    assert mark.low(2, idle_ms=20) == 990
