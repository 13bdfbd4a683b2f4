"""The outcome fold over partitions side by side: whatever arrives first, and however often it dies."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import Codec
from schemas.columnar import Records
from schemas.event import Event, Position
from streams.outcome_columns import OutcomeColumns
from streams.outcome_run import SLACK_MS, OutcomeRun
from tests.unit.schemas.memory_registry import MemoryRegistry
from tests.unit.streams.build import DAY, HOUR, TASK, label, prediction
from tests.unit.streams.test_outcomes import final, play

CODEC = Codec(MemoryRegistry(), TASK.topics(2))
FOLD = OutcomeColumns(TASK, 2)
Partition = tuple[str, int]
Log = Mapping[Partition, Sequence[Event]]


def written(rng: random.Random) -> dict[Partition, list[Event]]:
    """Predictions and labels in time, in two partitions each; some come twice."""
    names = dict(enumerate(sorted(rng.randrange(6 * DAY) for _ in range(60))))
    events = [prediction(f"p{n}", time, score=rng.random()) for n, time in names.items()]
    events += [
        label(f"p{n}", time + rng.randrange(6 * HOUR), rng.randint(0, 1))
        for n, time in names.items()
        if rng.random() < 0.9
    ]
    log: dict[Partition, list[Event]] = {(t, p): [] for t in FOLD.topics for p in range(2)}
    for n, event in enumerate(sorted(events, key=lambda event: event.time)):
        for _ in range(1 + (rng.random() < 0.1)):
            key = event.topic, hash(event.id) % 2
            at = Position(*key, len(log[key]))
            log[key].append(replace(event, at=at, recorded_ms=n * SLACK_MS // 3))
    return log


def records(key: Partition, events: Sequence[Event]) -> Records:
    return Records.of(
        *key,
        [CODEC.encode(event) for event in events],
        [event.at.offset for event in events if event.at],
        [event.recorded_ms for event in events],
    )


def live(log: Log, rng: random.Random, deaths: float) -> tuple[list[Event], OutcomeRun]:
    """Random batches as they arrive; a restart folds everything anew, up to what was committed in silence."""
    said: list[Event] = []
    committed = dict.fromkeys(log, 0)
    while True:
        run = OutcomeRun(FOLD, CODEC, FOLD.initial(), {}, committed)
        read = run.begins()
        pending: list[Event] = []
        while rng.random() >= deaths:
            for key in run.wanted():
                batch = log[key][read[key] : read[key] + rng.randint(1, 20)]
                if batch and rng.random() < 0.8:
                    assert not run.offer(records(key, batch))
                    read[key] += len(batch)
            ended = {key for key in run.wanted() if read[key] == len(log[key])}
            for key in ended:
                run.pass_over(key, len(log[key]))
            pending += run.advance(ended) or []
            if rng.random() < 0.3 and not run.silent:
                said += pending
                pending = []
                committed = run.offsets()
            if ended == log.keys():
                return said + pending, run
        said += pending  # acknowledged, but the commit behind it never came


@settings(deadline=None)
@given(st.integers(0, 1 << 40))
def test_batches_arrivals_and_deaths_change_nothing(seed: int) -> None:
    rng = random.Random(seed)
    log = written(rng)
    events = sorted((e for part in log.values() for e in part), key=lambda e: e.recorded_ms)
    rows, _ = play(events, partitions=2)
    said, run = live(log, rng, rng.choice((0.0, 0.01, 0.05)))
    expected = {
        key: (w.count, w.scores, w.log_loss, w.brier, w.score)
        for key, w in run.state.windows.items()
    }
    assert expected == final(rows)
    newest: dict[tuple[str, int], Event] = {}
    for event in said:
        key = event.data["model_version"], event.data["window_start"]
        if key not in newest or newest[key].data["revision"] <= event.data["revision"]:
            newest[key] = event
    closed = run.state.closed_hour * HOUR - DAY - TASK.label_delay_ms
    due = {key: w.revision for key, w in run.state.windows.items() if key[1] <= closed}
    assert {key: event.data["revision"] for key, event in newest.items() if key in due} == due


def test_a_partition_of_which_more_is_to_come_is_waited_for() -> None:
    (early, late) = prediction("a", HOUR), prediction("b", 2 * HOUR, partition=1)
    keys = [(FOLD.topics[0], 0), (FOLD.topics[0], 1)]
    run = OutcomeRun(FOLD, CODEC, FOLD.initial(), {}, dict.fromkeys(keys, 0))
    run.offer(records(keys[1], [replace(late, recorded_ms=9_000)]))
    assert run.advance(set()) is None
    run.offer(records(keys[0], [replace(early, recorded_ms=1_000)]))
    assert run.advance(set()) == []
    assert run.offsets() == {keys[0]: 1, keys[1]: 0}
    assert run.advance(set()) is None  # more of partition 0 may come
    assert run.advance({keys[0]}) == []
    assert run.offsets() == {keys[0]: 1, keys[1]: 1}
