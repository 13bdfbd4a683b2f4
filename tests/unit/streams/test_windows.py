"""Input windows close on stream time, once, and say the same whatever the batches were."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from schemas.event import Event
from streams.fold import Projector
from streams.window_rows import InputWindows
from tests.unit.streams.build import DAY, HOUR, TASK, prediction, registered


def play(events: list[Event]) -> tuple[Projector, list[Event]]:
    projector = Projector([InputWindows(TASK)])
    said: list[Event] = []
    for event in events:
        said += projector.react(event)
    return projector, said


def test_a_window_closes_once_its_grace_has_passed() -> None:
    _, said = play(
        [
            registered(),
            prediction("a", 1 * HOUR, offset=0, score=0.3),
            prediction("b", 23 * HOUR, offset=1, score=0.8, distance=5.0, carrier="??"),
            prediction("c", DAY + HOUR - 1, offset=2),
            prediction("d", DAY + HOUR, offset=3),
        ]
    )
    assert [event.data["window_start"] for event in said] == [0]
    sketch = said[0].data
    assert (sketch["count"], sketch["revision"], sketch["partition"]) == (2, 0, 0)
    by_name = {column["name"]: column for column in sketch["columns"]}
    assert by_name["distance"]["counts"] == [0, 1, 1]
    assert by_name["carrier"]["counts"] == [1, 0, 1]
    assert by_name["carrier"]["unseen"] == 1
    assert by_name["score"]["counts"] == [0, 1, 0, 1]
    assert said[0].data["caused_by"] == "d"


def test_a_late_event_restates_the_window_with_all_its_events() -> None:
    _, said = play(
        [
            registered(),
            prediction("a", 1 * HOUR, offset=0),
            prediction("b", 2 * DAY, offset=1),
            prediction("late", 2 * HOUR, offset=2),
        ]
    )
    assert [(e.data["window_start"], e.data["revision"], e.data["count"]) for e in said] == [
        (0, 0, 1),
        (0, 1, 2),
    ]
    assert len({event.id for event in said}) == 2


def test_an_event_later_than_anyone_waits_is_counted_not_summarised() -> None:
    projector, said = play(
        [
            registered(),
            prediction("a", 100 * DAY, offset=0),
            prediction("ancient", 1 * HOUR, offset=1),
        ]
    )
    assert said == []
    assert projector.states["toy.windows"].partitions[0].too_late == 1


def test_rows_wait_for_the_bins_of_their_version() -> None:
    early = [prediction("a", 1 * HOUR, offset=0), prediction("b", 2 * DAY, offset=1)]
    _, said = play([*early, registered()])
    _, in_order = play([registered(), *early])
    assert [(e.id, e.data["count"], e.data["columns"]) for e in said] == [
        (e.id, e.data["count"], e.data["columns"]) for e in in_order
    ]


def test_missing_values_have_a_count_of_their_own() -> None:
    _, said = play(
        [
            registered(),
            prediction("a", 0, offset=0, distance=None, carrier=None),
            prediction("b", 0, offset=1, distance=float("nan")),
            prediction("c", 2 * DAY, offset=2),
        ]
    )
    missing = {column["name"]: column["missing"] for column in said[0].data["columns"]}
    assert missing == {"distance": 2, "carrier": 1, "score": 0}


@given(st.integers(0, 10_000), st.integers(1, 40))
def test_batches_and_interleavings_change_nothing(seed: int, step: int) -> None:
    rng = random.Random(seed)
    streams: list[list[Event]] = [[registered()]]
    for partition in range(3):
        times = sorted(rng.randrange(5 * DAY) + rng.randrange(HOUR // 2) for _ in range(30))
        streams.append(
            [
                prediction(
                    f"{partition}-{n}", time, partition=partition, offset=n, score=rng.random()
                )
                for n, time in enumerate(times)
            ]
        )
    one = Projector([InputWindows(TASK)])
    one.feed([event for stream in streams for event in stream])
    other = Projector([InputWindows(TASK)])
    mixed = interleave(streams, rng)
    for start in range(0, len(mixed), step):
        other.feed(mixed[start : start + step])
    assert one.fingerprint("toy.windows") == other.fingerprint("toy.windows")
    assert statements(play(mixed)[1]) == statements(play([e for s in streams for e in s])[1])


def interleave(streams: list[list[Event]], rng: random.Random) -> list[Event]:
    queues = [list(stream) for stream in streams]
    out = []
    while any(queues):
        queue = rng.choice([queue for queue in queues if queue])
        out.append(queue.pop(0))
    return out


def statements(said: list[Event]) -> set[tuple[str, int, str]]:
    """The last word on each window."""
    last: dict[object, Event] = {}
    for event in said:
        data = event.data
        last[data["model_version"], data["window_start"], data["partition"]] = event
    return {
        (e.data["model_version"], e.data["count"], repr(e.data["columns"])) for e in last.values()
    }
