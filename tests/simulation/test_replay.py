"""Replay beside live runs of one history: the same answers, and where a live fold went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.catalogue import (
    ALERTS,
    RETRAIN_REQUESTS,
    SKETCHES,
    STATE_HASHES,
    system_topics,
)
from schemas.codec import Codec
from schemas.event import Event, derive
from streams.cascade import Cascade, answers
from streams.divergence import EXAMINED, diverged, statements
from streams.features import FeatureFold
from streams.fold import Fold, Projector
from streams.folds import control_folds
from streams.outcomes import OutcomeWindows
from streams.policy import RetrainReactor
from streams.scoring import Scoring
from streams.simulation import Faults, Process, SimulatedLog, run_history
from streams.task import Task
from streams.window_rows import InputWindows
from tests.simulation.histories import KEYS, LABELS, PARTITIONS, PREDICTIONS, TASK, inputs
from tests.simulation.replaying import reader, whole

CALM, ROUGH = Faults(max_poll=50), Faults(0.1, 0.1, 0.1, max_poll=20, hold_back=10)


class Ids:
    """A registry in memory: a number for each schema."""

    def __init__(self) -> None:
        self._known: list[Any] = []

    def schema_id(self, subject: str, schema: Any) -> int:
        if schema not in self._known:
            self._known.append(schema)
        return self._known.index(schema)

    def schema_by_id(self, schema_id: int) -> Any:
        return self._known[schema_id]


CODEC = Codec(Ids(), [*system_topics(), *TASK.topics(PARTITIONS)])


@dataclass
class Share:
    """Of one window: rows stated by partition and version."""

    counts: dict[str, int] = field(default_factory=dict)
    due: list[Event] = field(default_factory=list)


class QuietWindows:
    """A monitor that nobody had thought of: it raises an alarm for each window of few rows, once."""

    name = "toy.quiet"
    topics = (SKETCHES,)

    def initial(self) -> Share:
        return Share()

    def apply(self, state: Share, batch: Sequence[Event]) -> Share:
        state.due = []
        for event in batch:
            data = event.data
            if data["kind"] == "outcomes" and data["count"] < 13:
                window = f"{data['model_version']} {data['window_start']}"
                if window not in state.counts:
                    state.counts[window] = data["count"]
                    state.due.append(self._alarm(event))
        return state

    def react(self, state: Share, event: Event) -> list[Event]:
        return state.due

    @staticmethod
    def _alarm(event: Event) -> Event:
        data = event.data
        return derive(
            ALERTS,
            "AlertRaised",
            *("quiet", data["model_version"], data["window_start"]),
            time=data["window_end"],
            caused_by=event.id,
            task="toy",
            subject="volume",
            message=f"{data['count']} rows",
        )


def lived(seed: int, processes: Sequence[Sequence[Fold]], faults: Faults) -> SimulatedLog:
    log = SimulatedLog(
        {PREDICTIONS: PARTITIONS, LABELS: PARTITIONS},
        lambda event: str(event.data[KEYS.get(event.topic, "event_id")]),
    )
    run_history(inputs(seed), log, [Process(log, folds) for folds in processes], seed, faults)
    return log


def encoded(events: Sequence[Event]) -> list[bytes]:
    """The bytes of each distinct event, in the order of its first copy."""
    return list(dict.fromkeys(CODEC.encode(event) for event in events))


def logged(log: SimulatedLog, topic: str) -> list[Event]:
    return [event for key in log.partitions(topic) for event in log.records.get(key, [])]


def worker(task: Task = TASK) -> list[Fold]:
    """What the live services fold at high rate."""
    return [FeatureFold(task, PARTITIONS), InputWindows(task), OutcomeWindows(task, PARTITIONS)]


def upstream() -> list[list[Fold]]:
    return [worker(), [Scoring(TASK, PARTITIONS)]]


@pytest.mark.parametrize("faults", [CALM, ROUGH], ids=["calm", "rough"])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "monitor", [QuietWindows(), RetrainReactor(TASK)], ids=["new code", "policy"]
)
def test_a_monitor_added_today_says_what_it_would_have_said_live(
    monitor: Fold, seed: int, faults: Faults
) -> None:
    without = lived(seed, upstream(), faults)
    with_it = lived(seed, [*upstream(), [monitor]], faults)
    said = [answer for _, answer in answers(whole(without), [monitor])]
    live = [*logged(with_it, ALERTS), *logged(with_it, RETRAIN_REQUESTS)]
    assert live
    assert sorted(encoded(said)) == sorted(encoded(live))
    if faults is CALM:
        for topic in (ALERTS, RETRAIN_REQUESTS):  # and in the same order
            mine = [answer for answer in said if answer.topic == topic]
            assert encoded(mine) == encoded(logged(with_it, topic))


@pytest.mark.parametrize("seed", range(4))
def test_a_cascade_from_the_inputs_says_what_the_processes_said(seed: int) -> None:
    control = control_folds([TASK], PARTITIONS)
    log = lived(seed, [[OutcomeWindows(TASK, PARTITIONS)], control], CALM)
    chain: list[Fold] = [OutcomeWindows(TASK, PARTITIONS), *control]
    made = {SKETCHES, "driftlog.drift_scores", "driftlog.performance_scores"}
    cascade = Cascade(chain, made | {"driftlog.quality_reports"})
    said = [answer for event in whole(log) for answer in cascade.feed(event)
            if event.topic in cascade.topics]  # fmt: skip
    for topic in (SKETCHES, "driftlog.performance_scores", RETRAIN_REQUESTS, ALERTS):
        assert encoded([e for e in said if e.topic == topic]) == encoded(logged(log, topic))


class Turncoat(OutcomeWindows):
    """A live fold that counts one prediction twice: `at` says which."""

    def __init__(self, at: tuple[str, int, int]) -> None:
        super().__init__(TASK, PARTITIONS)
        self._at = at

    def apply(self, state: Any, batch: Sequence[Event]) -> Any:
        for event in batch:
            super().apply(state, [event])
            place = event.at
            assert place is not None
            if (place.topic, place.partition, place.offset) == self._at:
                state.join.predictions[f"{event.id} again"] = (1 << 60, ("toy-1", 0.5))
        return state


def stated_by(fold: Fold, log: SimulatedLog, every: Sequence[int]) -> Projector:
    """Run `fold` live over the log as it stands and append a StateHashed after each of `every` events."""
    projector = Projector([fold])
    for count, event in enumerate(reader(log)(fold.topics), 1):
        projector.react(event)
        if count in every:
            log.append(state_hashed(projector, fold))
    return projector


def state_hashed(projector: Projector, fold: Fold) -> Event:
    at = sorted(projector.offsets.items())
    return derive(
        STATE_HASHES,
        "StateHashed",
        *(fold.name, at),
        time=0,
        caused_by=None,
        fold=fold.name,
        offsets=[{"topic": t, "partition": p, "offset": o} for (t, p), o in at],
        sha256=projector.fingerprint(fold.name),
        events=projector.events,
    )


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_range_holds_the_record_at_which_the_live_fold_went_wrong(data: st.DataObject) -> None:
    log = lived(1, [], CALM)
    honest = OutcomeWindows(TASK, PARTITIONS)
    events = list(reader(log)(honest.topics))
    wrong = data.draw(st.sampled_from(events))
    every = data.draw(st.sets(st.integers(1, len(events)), min_size=1))
    assert wrong.at is not None
    place = wrong.at.topic, wrong.at.partition, wrong.at.offset
    stated_by(Turncoat(place), log, sorted(every))
    read = reader(log)
    found = diverged(read, honest, statements(read, honest.name))
    position = events.index(wrong) + 1
    later = [count for count in sorted(every) if count >= position]
    if not later:
        assert found is None
        return
    assert found is not None
    key = place[0], place[1]
    assert found.begin[key] <= place[2] < found.end[key]
    before = max((count for count in every if count < position), default=0)
    assert found.records == later[0] - before  # no tighter range is known, and none wider is named
    assert found.first is not None and found.first.at == events[before].at
    assert str(found.first.at) in str(found)


def test_an_honest_fold_diverges_nowhere() -> None:
    log = lived(1, [], CALM)
    honest = OutcomeWindows(TASK, PARTITIONS)
    stated_by(honest, log, range(1, 60, 3))
    assert diverged(reader(log), honest, statements(reader(log), honest.name)) is None
    assert diverged(reader(log), honest, []) is None


def test_many_statements_are_narrowed_in_two_passes() -> None:
    log = SimulatedLog({PREDICTIONS: 1, LABELS: 1}, lambda event: event.id)
    for event in inputs(1, hours=40):
        log.append(event)
    honest = OutcomeWindows(TASK, PARTITIONS)
    events = list(reader(log)(honest.topics))
    assert len(events) > 3 * EXAMINED
    wrong = events[3 * EXAMINED + 7]
    assert wrong.at is not None
    fold = Turncoat((wrong.at.topic, wrong.at.partition, wrong.at.offset))
    stated_by(fold, log, range(1, len(events) + 1))
    steps: list[int] = []
    read = reader(log)
    found = diverged(
        read, honest, statements(read, honest.name), lambda done, total: steps.append(done)
    )
    assert found is not None and found.records == 1
    assert found.first is not None and found.first.at == wrong.at
    assert len(steps) < len(events) / 2
