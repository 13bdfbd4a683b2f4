"""Features as of the request: nothing from the future, the same online and from the log."""

from __future__ import annotations

import json
import random

from hypothesis import given
from hypothesis import strategies as st

from schemas.event import Event
from streams.features import BUCKET_MS, FeatureFold, FeatureState, assemble, blob_keys
from streams.fold import Projector
from streams.online import expected_content
from tests.unit.streams.build import DAY, HOUR, TASK, label, observation, prediction
from tests.unit.streams.test_windows import interleave


def fold(events: list[Event]) -> FeatureState:
    projector = Projector([FeatureFold(TASK, 2)])
    projector.feed(events)
    state: FeatureState = projector.states["toy.features"]
    return state


def vector(state: FeatureState, time: int, carrier: str = "UA") -> dict[str, object]:
    return assemble(TASK, {"distance": 3.0, "carrier": carrier}, time, state.blob)


def test_a_rate_counts_the_whole_buckets_of_its_hours() -> None:
    events = [prediction(f"p{n}", HOUR, offset=n) for n in range(4)]
    events += [label(f"p{n}", 2 * HOUR + n, n % 2, offset=n) for n in range(4)]
    state = fold(events)
    assert vector(state, 2 * HOUR + 10)["carrier_rate"] is None  # the bucket has not ended
    assert vector(state, 3 * HOUR)["carrier_rate"] == 0.5
    assert vector(state, 6 * HOUR + HOUR)["carrier_rate"] is None  # and now it is too old


def test_a_rare_key_is_shrunk_towards_all() -> None:
    events = [
        prediction("a", HOUR, offset=0, carrier="UA"),
        prediction("b", HOUR, offset=1, carrier="AA"),
        label("a", HOUR, 1, offset=0),
        label("b", HOUR, 0, offset=1),
    ]
    state = fold(events)
    assert vector(state, 2 * HOUR, "UA")["carrier_rate"] == (1 + 2 * 0.5) / (1 + 2)
    assert vector(state, 2 * HOUR, "new")["carrier_rate"] == 0.5


def test_an_observation_counts_from_its_time_until_it_is_too_old() -> None:
    state = fold(
        [observation("o1", 2 * HOUR, "UA", 5.0), observation("o2", 3 * HOUR, "UA", 9.0, 1)]
    )
    assert vector(state, 2 * HOUR - 1)["wind"] is None
    assert vector(state, 2 * HOUR)["wind"] == 5.0
    assert vector(state, 3 * HOUR + 1)["wind"] == 9.0
    assert vector(state, 5 * HOUR + 1)["wind"] is None
    assert vector(state, 3 * HOUR, "AA")["wind"] is None


@given(st.integers(0, 10_000))
def test_no_feature_ever_knows_a_label_or_observation_from_after_its_time(seed: int) -> None:
    """Whatever has been folded since, the vector as of `time` rests on facts before `time` alone."""
    rng = random.Random(seed)
    past, future = [], []
    time = 20 * HOUR
    for n in range(60):
        asked = rng.randrange(30 * HOUR)
        known = asked + rng.randrange(6 * HOUR)
        events = past if known < time // BUCKET_MS * BUCKET_MS else future
        events += [prediction(f"p{n}", asked, offset=n), label(f"p{n}", known, n % 2, offset=n)]
        seen = rng.randrange(30 * HOUR)
        (past if seen <= time else future).append(
            observation(f"o{n}", seen, "UA", rng.random(), offset=n)
        )
    strip = [Event(e.topic, e.type, e.data) for e in past]
    more = [Event(e.topic, e.type, e.data) for e in [*past, *future]]
    rng.shuffle(more)
    known_then, known_now = fold(strip), fold(more)
    if len(known_now.seen.get("seen|carrier|UA", [])) < 16:
        assert vector(known_then, time)["wind"] == vector(known_now, time)["wind"]
    assert vector(known_then, time)["carrier_rate"] == vector(known_now, time)["carrier_rate"]


@given(st.integers(0, 10_000))
def test_interleavings_change_nothing(seed: int) -> None:
    rng = random.Random(seed)
    times = sorted(rng.randrange(6 * DAY) for _ in range(50))
    predictions = [
        prediction(f"p{n}", t, offset=n, carrier=rng.choice("UV")) for n, t in enumerate(times)
    ]
    arrivals = sorted((t + rng.randrange(7 * HOUR), n) for n, t in enumerate(times))
    labels = [label(f"p{n}", t, n % 2, partition=1, offset=k) for k, (t, n) in enumerate(arrivals)]
    one = Projector([FeatureFold(TASK, 2)])
    one.feed([*predictions, *labels])
    other = Projector([FeatureFold(TASK, 2)])
    for event in interleave([predictions, labels], rng):
        other.feed([event])
    for carrier in "UV":
        at = times[-1] + HOUR
        assert vector(one.states["toy.features"], at, carrier) == vector(
            other.states["toy.features"], at, carrier
        )


def test_what_the_online_store_holds_survives_json() -> None:
    events = [prediction("a", HOUR), label("a", HOUR, 1), observation("o", HOUR, "UA", 4.5)]
    state = fold(events)
    instance = {"distance": 1.0, "carrier": "UA"}
    stored = {key: json.dumps(state.blob(key)) for key in blob_keys(TASK, instance)}
    online = assemble(TASK, instance, 2 * HOUR, lambda key: json.loads(stored[key]))
    assert online == assemble(TASK, instance, 2 * HOUR, state.blob)
    assert online["wind"] == 4.5


def test_writing_only_what_changed_keeps_the_online_store_equal_to_the_fold() -> None:
    rng = random.Random(3)
    fold_ = FeatureFold(TASK, 2)
    state, store = fold_.initial(), {}
    for n in range(400):
        at = n * HOUR // 2
        batch = [
            prediction(f"p{n}", at, offset=n, carrier=rng.choice("UVWX")),
            label(f"p{n}", at + HOUR, n % 2, partition=n % 2, offset=n),
        ]
        state = fold_.apply(state, batch)
        for key in state.dirty:
            blob = state.blob(key)
            if blob:
                store[key] = blob
            else:
                store.pop(key, None)
        state.dirty.clear()
    assert len(store) > 2
    assert store == expected_content(state)
