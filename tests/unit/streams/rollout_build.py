"""A task that rolls out, and makers of what happens to it, as it comes out of the log."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from schemas.catalogue import (
    DEPLOYMENTS,
    ROLLOUT_COMMANDS,
    ROLLOUTS,
    labels_topic,
    predictions_topic,
    shadows_topic,
)
from schemas.event import Event, Position, derive, derived_id
from streams.fold import Projector
from streams.rollout import RolloutReactor
from streams.rollout_state import policy_text, traffic
from streams.task import Numeric, RolloutPolicy, Task

HOUR = 3_600_000
SECOND = 1_000
START = 1_000 * HOUR


def task_of(policy: RolloutPolicy, delay: int = 6) -> Task:
    return Task(
        name="toy",
        label="late",
        label_delay_hours=delay,
        features=(Numeric("x"),),
        rollout=policy,
    )


def promoted(
    version: str,
    time: int,
    previous: str | None = None,
    kind: str = "ModelPromoted",
    actor: str = "trainer",
) -> Event:
    return derive(
        DEPLOYMENTS,
        kind,
        *(version, time),
        time=time,
        caused_by=None,
        task="toy",
        model_version=version,
        previous_version=previous,
        reason="because",
        actor=actor,
        request_id=None,
        gates=[],
    )


def started(
    policy: RolloutPolicy, time: int, version: str = "toy-2", baseline: str = "toy-1"
) -> Event:
    return derive(
        ROLLOUTS,
        "RolloutStarted",
        *(version, time),
        time=time,
        caused_by=None,
        task="toy",
        model_version=version,
        previous_version=baseline,
        strategy=policy.strategy,
        policy=policy_text(policy),
        reason="all gates passed",
        actor="trainer",
        request_id=f"request of {version}",
        gates=[],
    )


def command(what: str, time: int, rollout: str | None = None, actor: str = "ann") -> Event:
    return derive(
        ROLLOUT_COMMANDS,
        "RolloutCommandGiven",
        *(what, time),
        time=time,
        caused_by=None,
        task="toy",
        command=what,
        rollout_id=rollout,
        actor=actor,
        reason=f"{what} it",
    )


def answered(name: str, time: int, version: str, score: float, route: str | None = None) -> Event:
    data = {
        "event_id": name,
        "event_time": time,
        "caused_by": None,
        "model_version": version,
        "score": score,
        "label": int(score >= 0.5),
        "features": {"x": 0.0},
        "route": route,
    }
    return Event(predictions_topic("toy"), "PredictionMade", data)


def labelled(of: str, time: int, value: int) -> Event:
    data = {
        "event_id": derived_id("LabelObserved", of, value),
        "event_time": time,
        "caused_by": None,
        "prediction_id": of,
        "label": value,
    }
    return Event(labels_topic("toy"), "LabelObserved", data)


def shadowed(
    of: str, time: int, version: str, score: float | None, answer: tuple[str, float], reason: str
) -> Event:
    return derive(
        shadows_topic("toy"),
        "ShadowPredictionMade",
        *(of, version),
        time=time,
        caused_by=of,
        prediction_id=of,
        model_version=version,
        score=score,
        label=None if score is None else int(score >= 0.5),
        answered_by=answer[0],
        answered_score=answer[1],
        reason_id=reason,
    )


def truths(seed: int) -> Iterator[tuple[float, int]]:
    """(chance of 1, label), for ever."""
    rng = random.Random(seed)
    while True:
        chance = rng.choice([0.1, 0.3, 0.5, 0.8])
        yield chance, int(rng.random() < chance)


class Life:
    """A reactor in a world that does what it says: its events come back, and answers follow its shares.

    `good` of a version: 1 scores the true chance, 0 a constant half, -1 the opposite.
    """

    def __init__(self, policy: RolloutPolicy, good: dict[str, float], seed: int = 1) -> None:
        self.task = task_of(policy)
        self.reactor = RolloutReactor(self.task, 1)
        self.projector = Projector([self.reactor])
        self.good = good
        self.log: list[Event] = []
        self.said: list[Event] = []
        self.time = START
        self.upside_down = False
        """Whether the world has changed to the opposite."""
        self._truths = truths(seed)
        self._rng = random.Random(seed)
        self._offsets: dict[str, int] = {}

    @property
    def state(self) -> Any:
        return self.projector.states[self.reactor.name]

    @property
    def rollouts(self) -> Any:
        return self.state.rollouts

    def put(self, *events: Event) -> None:
        """Append, react, and append what is answered, until there is nothing to answer."""
        waiting = list(events)
        while waiting:
            event = waiting.pop(0)
            offset = self._offsets[event.topic] = self._offsets.get(event.topic, -1) + 1
            placed = Event(event.topic, event.type, event.data, Position(event.topic, 0, offset))
            self.log.append(placed)
            answers = self.projector.react(placed)
            self.said += answers
            waiting += answers

    def score(self, version: str, chance: float) -> float:
        quality = self.good[version]
        return min(max(0.5 + quality * (chance - 0.5), 0.02), 0.98)

    def ask(self, step_ms: int = 10 * SECOND, delay_ms: int = 2 * SECOND) -> None:
        """One answer by who serves now, and its label soon after."""
        self.time += step_ms
        chance, label = next(self._truths)
        name = f"p{self.time}"
        version, route = self.route()
        self.put(answered(name, self.time, version, self.score(version, chance), route))
        told = traffic(self.rollouts, self.task.rollout)
        if told is not None and told.shadow:
            mine, theirs = self.score(told.version, chance), self.score(version, chance)
            self.put(shadowed(name, self.time, told.version, mine, (version, theirs), told.id))
        label = 1 - label if self.upside_down else label
        self.put(labelled(name, self.time + delay_ms, label))

    def route(self) -> tuple[str, str | None]:
        now = self.rollouts.active
        if now is None or now.step == 0 or now.strategy == "shadow":
            return self.rollouts.champion, None
        arm = "challenger" if self._rng.random() < now.share else "champion"
        return (now.version if arm == "challenger" else now.baseline), f"{now.id}/{now.step}/{arm}"

    def types(self) -> list[str]:
        return [event.type for event in self.said]
