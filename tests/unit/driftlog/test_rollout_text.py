"""What `driftlog rollout status` and `driftlog models` say about rollouts."""

from __future__ import annotations

import json

from driftlog.cli import rollout_text
from models.registry import Registry, explain
from streams.rollout_state import Rollouts
from streams.task import RolloutPolicy
from tests.unit.streams.rollout_build import START, Life, command, promoted, started, task_of

CANARY = RolloutPolicy("canary", steps=(0.25, 1.0), min_labels=60)


def life() -> Life:
    made = Life(CANARY, {"toy-0": 0.0, "toy-1": 1.0, "toy-2": 1.0})
    made.put(promoted("toy-0", START - 9), promoted("toy-1", START, "toy-0"))
    made.put(started(CANARY, START + 5))
    return made


def test_a_status_names_share_since_reason_and_who_holds_it() -> None:
    made = life()
    made.put(command("hold", START + 9, made.rollouts.active.id))
    data = rollout_text.status(task_of(CANARY), made.rollouts)
    assert json.loads(json.dumps(data)) == data, "plain data"
    text = rollout_text.status_text(data)
    assert "toy (canary): toy-1 answers since" in text
    assert "canary of toy-2 at 25% since 1970-02-11 16:00, step 1" in text
    assert "held       by ann" in text
    made.put(command("abort", START + 10, made.rollouts.active.id))
    text = rollout_text.status_text(rollout_text.status(task_of(CANARY), made.rollouts))
    assert "aborted    toy-2: abort: abort it" in text


def test_models_show_what_stands_beside_the_champion_now_and_then() -> None:
    made = life()
    made.put(command("abort", START + 3_600_000, made.rollouts.active.id))
    control = [event for event in made.log if event.topic in Rollouts.topics]
    states = Rollouts().apply({}, control)
    decided = [event for event in control if event.topic in Registry.topics]
    registry = Registry().apply(Registry().initial(), decided)

    def beside(at: int) -> str | None:
        found = explain(registry, "toy", at)
        assert found is not None
        shown = rollout_text.at(states["toy"], found.decision, at)
        return shown and shown["words"]

    assert beside(START + 1) is None
    assert beside(START + 60_000) == "canary of toy-2 at 25% since 1970-02-11 16:00"
    assert beside(START + 2 * 3_600_000) is None
    assert rollout_text.by_version(states) == {"toy-2": "aborted"}
    running = life()
    told = rollout_text.by_version({"toy": running.rollouts})
    assert told == {"toy-2": "canary 25% since 1970-02-11 16:00"}
