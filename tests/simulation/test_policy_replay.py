"""Another policy over a history: nothing differs with the same one, else what it would have said live."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

import pytest

from driftlog.policy import with_policy
from driftlog.policy_replay import (
    BOTH,
    PolicyReplay,
    gated_again,
    reactors_of,
    replay_policy,
    topics_of,
)
from driftlog.replay_diff import NoSuchReplay, Written, differences, find_replays
from driftlog.replay_log import Replay, decided, rescored
from schemas.catalogue import COUNTERFACTUALS, DEPLOYMENTS, REPLAYS, RETRAIN_REQUESTS, SKETCHES
from schemas.event import Event, Position, derive
from streams.folds import control_folds
from streams.simulation import SimulatedLog
from streams.task import Task
from tests.simulation.histories import KEYS, PARTITIONS, TASK
from tests.simulation.replaying import reader
from tests.simulation.test_replay import CALM, CODEC, ROUGH, lived, logged, worker

SEEDS = range(3)


def decide_again(log: SimulatedLog, task: Task, again: bool = False) -> PolicyReplay:
    reactors, instead = reactors_of(task, PARTITIONS, again)
    return replay_policy(reader(log)(topics_of(reactors, instead)), task, reactors, instead)


def live(seed: int, task: Task = TASK, rough: bool = False) -> SimulatedLog:
    processes = [worker(task), control_folds([task], PARTITIONS)]
    return lived(seed, processes, ROUGH if rough else CALM)


@pytest.mark.parametrize("rough", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_same_policy_decides_the_same(seed: int, rough: bool) -> None:
    log = live(seed, rough=rough)
    result = decide_again(log, TASK)
    assert result.decisions
    assert {compared.verdict for compared in result.decisions} == {BOTH}
    assert all(c.then and c.now and c.then.reason == c.now.reason for c in result.decisions)
    assert (result.scores_now, result.drifted_now) == (result.scores_then, result.drifted_then)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "word", ["retrain.cooldown_hours=1", "retrain.votes=2", "drift.min_psi=5.0", "drift.min_rows=9"]
)
def test_another_policy_decides_what_it_would_have_decided_live(seed: int, word: str) -> None:
    changed, _ = with_policy(TASK, [word])
    result = decide_again(live(seed), changed)
    then, now = live(seed), live(seed, changed)
    for kind in (RETRAIN_REQUESTS, "driftlog.alerts"):
        ours = {c.now.id: c.now.reason for c in result.decisions if c.now and _on(kind, c.now.type)}
        theirs = {e.id: e.data.get("reason", e.data.get("message")) for e in logged(now, kind)}
        assert ours == theirs
        before = {c.then.id for c in result.decisions if c.then and _on(kind, c.then.type)}
        assert before == {event.id for event in logged(then, kind)}


def _on(topic: str, type_: str) -> bool:
    return (type_ == "RetrainRequested") == (topic == RETRAIN_REQUESTS)


def test_some_policy_makes_a_difference() -> None:
    changed, _ = with_policy(TASK, ["retrain.votes=2"])
    verdicts = {c.verdict for seed in SEEDS for c in decide_again(live(seed), changed).decisions}
    assert len(verdicts) > 1


def test_other_windows_are_summarised_anew() -> None:
    changed, _ = with_policy(TASK, ["drift.window_hours=2"])
    result = decide_again(live(0), changed, again=True)
    wide = live(0, changed)
    ours = {c.now.id: c.now.reason for c in result.decisions if c.now}
    theirs = {e.id: e.data["reason"] for e in logged(wide, RETRAIN_REQUESTS)}
    theirs |= {e.id: e.data["message"] for e in logged(wide, "driftlog.alerts")}
    assert ours == theirs and ours
    assert result.scores_now < result.scores_then


def test_another_reference_is_what_windows_are_held_against() -> None:
    log = live(0)
    reactors, instead = reactors_of(TASK, PARTITIONS, again=False)
    event = next(e for e in logged(log, "driftlog.model_versions") if e.data["reference"])
    wild = [{**column, "swing": 1e9} for column in event.data["reference"]]
    references = {event.data["model_version"]: wild}
    history = reader(log)(topics_of(reactors, instead))
    result = replay_policy(history, TASK, reactors, instead, references)
    assert result.drifted_then > 0 and result.drifted_now == 0


def test_a_replay_of_the_past_knows_nothing_of_what_came_later() -> None:
    log = live(0)
    reactors, instead = reactors_of(TASK, PARTITIONS, again=False)
    middle = log.now_ms // 2
    history = reader(log)(topics_of(reactors, instead))
    early = replay_policy(
        history, TASK, reactors, instead, keep=lambda event: event.recorded_ms <= middle
    )
    assert 0 < early.events < decide_again(log, TASK).events
    assert early.scores_then < decide_again(log, TASK).scores_then


def promotion(kind: str, challenger: float, champion: float, previous: str | None) -> Event:
    gate = {"name": "recent_log_loss", "baseline": champion, "count": 300, "passed": True}
    data = {
        "event_id": "d1", "event_time": 5, "caused_by": None, "task": "toy", "model_version": "toy-2",
        "previous_version": previous, "reason": "as logged", "actor": "trainer", "request_id": None,
        "gates": [{**gate, "value": challenger, "threshold": champion}],
    }  # fmt: skip
    return Event(DEPLOYMENTS, kind, data, Position(DEPLOYMENTS, 0, 7))


def test_gates_are_judged_again_with_the_logged_losses() -> None:
    lax = with_policy(TASK, ["gate.max_recent_ratio=1.2"])[0]
    refused = promotion("PromotionRejected", 0.55, 0.5, "toy-1")
    then, now = gated_again(refused, TASK, first=False)
    assert now.id == then.id and now.type == "PromotionRejected"
    then, now = gated_again(refused, lax, first=False)
    assert now.id != then.id and now.type == "ModelPromoted" and "0.5500 <= 0.6000" in now.reason
    # The cold-start model must be beaten whatever ratio the policy allows.
    assert gated_again(refused, lax, first=True)[1].type == "PromotionRejected"


REPLAY = Replay("policy", "toy", {"retrain.votes": "1"}, {(SKETCHES, 0): 12})


def test_a_replay_has_the_same_id_as_long_as_it_is_the_same() -> None:
    assert replace(REPLAY).id == REPLAY.id
    others = [
        replace(REPLAY, parameters={"retrain.votes": "2"}),
        replace(REPLAY, offsets={(SKETCHES, 0): 13}),
        replace(REPLAY, task="other"),
        replace(REPLAY, kind="model"),
    ]
    assert len({each.id for each in [REPLAY, *others]}) == 5


def findings(replay: Replay, word: str) -> list[Event]:
    result = decide_again(live(0), with_policy(TASK, [word])[0])
    return [decided(replay, compared) for compared in result.decisions]


def written(*replays: tuple[Replay, list[Event]], finished: bool = True) -> SimulatedLog:
    log = SimulatedLog({}, lambda event: str(event.data[KEYS.get(event.topic, "event_id")]))
    for replay, found in replays:
        events = [replay.started(1), *found]
        events += [replay.finished(2, 10, len(found), {"both": 1.0})] if finished else []
        for event in events:
            assert CODEC.encode(event)
            log.append(event)
            log.append(event)  # written again: the same ids
    return log


def test_two_replays_with_the_same_policy_do_not_differ() -> None:
    other = replace(REPLAY, offsets={(SKETCHES, 0): 99})
    found = findings(REPLAY, "retrain.votes=1"), findings(other, "retrain.votes=1")
    log = written((REPLAY, found[0]), (other, found[1]))
    one, two = find_replays(reader(log), [REPLAY.id[:8], other.id])
    assert len(one.findings) == len(found[0]) > 0
    assert list(differences(one, two)) == []
    assert list(differences(one, one)) == []


def test_the_first_difference_comes_first_with_its_place() -> None:
    other = replace(REPLAY, parameters={"retrain.votes": "2"})
    ours, theirs = findings(REPLAY, "retrain.votes=1"), findings(other, "retrain.votes=2")
    log = written((REPLAY, ours), (other, theirs))
    found = list(differences(*find_replays(reader(log), [REPLAY.id, other.id])))
    assert found
    times = [each.event.time for each in found]
    assert times == sorted(times)
    mine = {e.data["decision_id"]: e for e in ours}
    yours = {e.data["decision_id"]: e for e in theirs}
    expected = {
        key
        for key in {**mine, **yours}
        if key not in mine
        or key not in yours
        or any(
            mine[key].data[f] != yours[key].data[f]
            for f in ("verdict", "reason", "logged_reason", "logged_offset")
        )
    }
    assert {each.what[1] for each in found} == expected
    first = found[0]
    data = first.event.data
    assert first.place.endswith(f"@{data['logged_offset']}")
    assert first.to_json()["at"] == first.place


def test_scores_that_differ_are_named_with_both_values() -> None:
    made = derive("toy.predictions", "PredictionMade", 1, time=3, caused_by=None,
                  model_version="toy-1", score=0.25)  # fmt: skip
    made = dataclasses.replace(made, at=Position("toy.predictions", 1, 4))
    one, other = (
        Written({"replay_id": name}, True, {("PredictionRescored", made.id): event})
        for name, event in (
            ("a", rescored(REPLAY, made, "toy-2", 0.5)),
            ("b", rescored(REPLAY, made, "toy-3", 0.5)),
        )
    )
    (found,) = differences(one, other)
    assert found.fields == {"model_version": ("toy-2", "toy-3")}
    assert found.place == "toy.predictions[1]@4"


def test_replays_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(REPLAY, task="other")
    log = written((REPLAY, []), (other, []))
    with pytest.raises(NoSuchReplay, match=REPLAY.id[:8]):
        find_replays(reader(log), ["nonsense"])
    with pytest.raises(NoSuchReplay, match="2 replays begin with"):
        find_replays(reader(log), [""])
    with pytest.raises(NoSuchReplay, match="not finished"):
        find_replays(reader(written((REPLAY, []), finished=False)), [REPLAY.id])
    with pytest.raises(NoSuchReplay, match="--write keeps one"):
        find_replays(reader(SimulatedLog({}, lambda event: "")), ["a"])


def test_no_live_fold_reads_what_replays_write() -> None:
    from models.registry import Registry

    folds: list[Any] = [
        *worker(), *control_folds([TASK], PARTITIONS), Registry(),
    ]  # fmt: skip
    read = {topic for fold in folds for topic in fold.topics}
    assert not read & {REPLAYS, COUNTERFACTUALS}
