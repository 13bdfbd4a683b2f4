"""Rollouts lived through with repeats, crashes and reordering: decided once, and the same by every reader."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import chain

import pytest

from schemas.catalogue import (
    DEPLOYMENTS,
    ROLLOUT_COMMANDS,
    ROLLOUTS,
    labels_topic,
    predictions_topic,
)
from schemas.event import Event
from streams.fold import Projector
from streams.merge import Merger
from streams.rollout import RolloutReactor
from streams.rollout_state import TaskRollouts, apply_to, traffic
from streams.simulation import Faults, Process, SimulatedLog, run_history
from streams.task import RolloutPolicy
from tests.unit.streams.rollout_build import (
    HOUR,
    SECOND,
    START,
    answered,
    command,
    labelled,
    promoted,
    started,
    task_of,
    truths,
)

PARTITIONS = 2
ASKS = "toy.asks"
POLICY = RolloutPolicy(
    "canary", (0.2, 0.5, 1.0), min_labels=30, step_hours=0.1, alpha=0.05, max_regression=0.5
)
HISTORIES = 16
COUNT = 900


class Serving:
    """Stands for serving: answers by what it knows of rollouts just then; labels come two seconds later."""

    name = "toy.serving"
    topics = (ASKS, ROLLOUTS, ROLLOUT_COMMANDS, DEPLOYMENTS)

    def __init__(self, harm: dict[str, float]) -> None:
        self._good = harm

    def initial(self) -> TaskRollouts:
        return TaskRollouts()

    def apply(self, state: TaskRollouts, batch: Sequence[Event]) -> TaskRollouts:
        for event in batch:
            if event.topic != ASKS:
                apply_to(state, event)
        return state

    def react(self, state: TaskRollouts, event: Event) -> list[Event]:
        if event.topic != ASKS:
            return []
        version, route, now = state.champion or "toy-1", None, traffic(state)
        if now is not None and now.step and not now.shadow:
            taken = event.data["place"] < now.share
            version = now.version if taken else now.baseline
            route = f"{now.route}/{'challenger' if taken else 'champion'}"
        quality, chance = self._good[version], event.data["chance"]
        score = min(max(0.5 + quality * (chance - 0.5), 0.02), 0.98)
        return [
            answered(event.id, event.time, version, score, route),
            labelled(event.id, event.time + 2 * SECOND, event.data["truth"]),
        ]


def asks(seed: int) -> list[Event]:
    rng, facts = random.Random(seed), truths(seed)
    found = []
    for n in range(COUNT):
        chance, truth = next(facts)
        time = START + n * 10 * SECOND
        data = {"event_id": f"a{seed}-{n}", "event_time": time, "place": rng.random()}
        found.append(Event(ASKS, "Ask", {**data, "chance": chance, "truth": truth}))
    return found


def history(
    seed: int, good: float, events: Sequence[Event], faults: Faults
) -> tuple[SimulatedLog, Process]:
    """Lives through `events` and the asks, by time; `good` of toy-2: 1 equal to toy-1, -1 the opposite."""
    keys = {predictions_topic("toy"): "event_id", labels_topic("toy"): "prediction_id"}
    log = SimulatedLog(
        dict.fromkeys(keys, PARTITIONS),
        lambda event: str(event.data[keys.get(event.topic, "event_id")]),
    )
    task = task_of(POLICY)
    reactor = Process(log, [RolloutReactor(task, PARTITIONS)])
    serving = Process(log, [Serving({"toy-0": 0.0, "toy-1": 1.0, "toy-2": good})])
    first = [promoted("toy-0", START - HOUR), promoted("toy-1", START - 1, "toy-0")]
    inputs = sorted([*first, *events, *asks(seed)], key=lambda event: event.time)
    run_history(inputs, log, [reactor, serving], seed, faults)
    return log, reactor


def faults_of(seed: int) -> Faults:
    rng = random.Random(seed)
    return Faults(
        repeat=rng.choice([0.0, 0.05, 0.2]),
        crash_before_append=rng.choice([0.0, 0.05, 0.1]),
        crash_before_commit=rng.choice([0.0, 0.05, 0.1]),
        max_poll=rng.choice([20, 80]),
        hold_back=rng.choice([0, 2]),
    )


def distinct(log: SimulatedLog, topic: str) -> list[Event]:
    """The topic's events, each once: the first with an id is the fact."""
    found: dict[str, Event] = {}
    for partition in log.partitions(topic):
        for event in log.records.get(partition, []):
            found.setdefault(event.id, event)
    return list(found.values())


def check(log: SimulatedLog, process: Process) -> TaskRollouts:
    """What must hold whatever happened: all readers agree, each step is decided once, an end is an end."""
    reactor = process.folds[0]
    live = process.projector.fingerprint(reactor.name)
    assert live == _folded(reactor, _merged(log)).fingerprint(reactor.name)
    by_topic = chain.from_iterable(log.records[key] for key in sorted(log.records, reverse=True))
    assert live == _folded(reactor, [e for e in by_topic if e.topic != ASKS]).fingerprint(
        reactor.name
    )
    ended = False
    for number, event in enumerate(distinct(log, ROLLOUTS)):
        assert not ended, "something was said after the end"
        if number:
            assert event.data["step"] == number
            limit = [*POLICY.steps, 1.0][min(number, len(POLICY.steps)) - 1]
            assert event.data["share"] <= limit
        ended = event.type in ("RolloutAborted", "RolloutFinished")
    state: TaskRollouts = process.projector.states[reactor.name].rollouts
    return state


def _merged(log: SimulatedLog) -> list[Event]:
    merger = Merger()
    for records in log.records.values():
        for event in records:
            if event.topic != ASKS:
                merger.push(event)
    return list(merger.pop())


def _folded(reactor: RolloutReactor, events: Sequence[Event]) -> Projector:
    projector = Projector([reactor])
    projector.feed(events)
    return projector


@pytest.mark.parametrize("seed", range(HISTORIES))
def test_a_harmful_challenger_is_aborted_whatever_crashes(seed: int) -> None:
    log, process = history(seed, -1.0, [started(POLICY, START)], faults_of(seed))
    state = check(log, process)
    assert [rollout.outcome for rollout in state.past] == ["aborted"]
    assert state.champion == "toy-1"


@pytest.mark.parametrize("seed", range(HISTORIES // 2))
def test_an_equal_challenger_is_promoted_once_whatever_crashes(seed: int) -> None:
    log, process = history(seed, 1.0, [started(POLICY, START)], faults_of(seed + 100))
    state = check(log, process)
    assert [rollout.outcome for rollout in state.past] == ["finished"]
    promotions = [e for e in distinct(log, DEPLOYMENTS) if e.data["actor"] == "policy"]
    assert [e.type for e in promotions] == ["ModelPromoted"]
    assert state.champion == "toy-2"


@pytest.mark.parametrize("seed", range(HISTORIES // 2))
def test_a_bad_promotion_is_rolled_back_once_whatever_crashes(seed: int) -> None:
    bad = promoted("toy-2", START + 4_000 * SECOND, "toy-1", actor="bob")
    log, process = history(seed, -1.0, [bad], faults_of(seed + 200))
    state = check(log, process)
    back = [e for e in distinct(log, DEPLOYMENTS) if e.type == "ModelRolledBack"]
    assert [e.data["model_version"] for e in back] == ["toy-1"]
    assert state.champion == "toy-1"


@pytest.mark.parametrize("seed", range(3))
def test_frozen_nothing_changes_whatever_crashes(seed: int) -> None:
    events = [command("freeze", START), started(POLICY, START)]
    log, process = history(seed, -1.0, events, faults_of(seed + 300))
    state = check(log, process)
    assert state.active is not None and state.active.step == 0
    assert len(distinct(log, DEPLOYMENTS)) == 2
