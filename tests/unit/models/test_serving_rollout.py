"""Serving while a version is rolled out: who answers, what is said, and that callers never pay for it."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.artifacts import ArtifactStore
from models.registry import Registry, before
from models.serving.core import Champion
from models.serving.deployments import Swapper, candidates
from models.serving.lineup import Lineup
from models.serving.service import Desk, Service
from models.serving.shadow import Shadows
from schemas.catalogue import ROLLOUTS
from schemas.event import Event, derive
from streams.rollout_state import Rollouts, TaskRollouts, Traffic, policy_text, traffic
from streams.task import RolloutPolicy
from tests.unit.models.serving_parts import NOW_MS, MemoryLog, champion, flight, service
from tests.unit.models.test_serving_deployments import flip_a_byte, promoted, registered


class Broken:
    """A model whose file loads and that fails at every request, or answers with NaN."""

    def __init__(self, raises: bool) -> None:
        self.raises = raises

    def score(self, vectors: Any) -> Any:
        if self.raises:
            raise RuntimeError("shape mismatch")
        return np.full(len(vectors), np.nan)


def split(share: float = 0.5, shadow: bool = False, sticky: str | None = None) -> Traffic:
    return Traffic("r1", 1, "flights-1", "flights-2", share, shadow, sticky)


def rolling(traffic: Traffic, log: MemoryLog | None = None) -> Service:
    made = service(log)
    made.desks["flights"].lineup = Lineup(traffic, champion("flights-2", 0.6))
    return made


def body(count: int, **changes: Any) -> dict[str, Any]:
    return {"instances": [flight(event_id=f"e{n}", **changes) for n in range(count)]}


async def test_instances_of_one_request_say_who_answered_them() -> None:
    log = MemoryLog()
    answer = await rolling(split(), log).predict("flights", body(200))
    assert answer["model_version"] == "flights-1"
    versions = Counter(p["model_version"] for p in answer["predictions"])
    assert 70 < versions["flights-2"] < 130 and versions.total() == 200
    for said, event in zip(answer["predictions"], log.events, strict=True):
        assert said["event_id"] == event.id
        assert said["model_version"] == event.data["model_version"]
        arm = "challenger" if said["model_version"] == "flights-2" else "champion"
        assert event.data["route"] == f"r1/1/{arm}"
        assert (said["score"] > 0.5) == (arm == "challenger")


async def test_a_key_stays_with_its_version() -> None:
    served = rolling(split())
    once = await served.predict("flights", body(50))
    again = await served.predict("flights", body(50))
    assert [p["model_version"] for p in once["predictions"]] == [
        p["model_version"] for p in again["predictions"]
    ]
    served = rolling(split(sticky="carrier"))
    for carrier in ("AA", "UA", "DL"):
        answer = await served.predict("flights", body(20, carrier=carrier))
        assert "model_version" not in answer["predictions"][0]  # one version answered them all


@pytest.mark.parametrize("raises", [True, False])
async def test_a_broken_challenger_fails_no_request(raises: bool) -> None:
    log = MemoryLog()
    served = rolling(split(), log)
    lineup = served.desks["flights"].lineup
    assert lineup is not None
    broken = Champion("flights-2", Broken(raises), NOW_MS, "all gates passed")
    served.desks["flights"].lineup = Lineup(lineup.traffic, broken)
    answer = await served.predict("flights", body(100))
    assert answer["model_version"] == "flights-1"
    assert len(answer["predictions"]) == 100
    routes = Counter(event.data["route"] for event in log.events)
    assert set(routes) == {"r1/1/champion", "r1/1/null"}


async def test_a_lineup_of_another_champion_does_not_count() -> None:
    log = MemoryLog()
    served = rolling(split(1.0), log)
    served.desks["flights"].champion = champion("flights-3")
    answer = await served.predict("flights", body(5))
    assert answer["model_version"] == "flights-3"
    assert {event.data["route"] for event in log.events} == {None}


async def test_the_shadow_scores_what_was_answered_and_nobody_sees_it() -> None:
    log = MemoryLog()
    served = rolling(split(0.0, shadow=True), log)
    answer = await served.predict("flights", body(10))
    assert answer["model_version"] == "flights-1"
    await served.shadows.settle()
    shadows = [event for event in log.events if event.type == "ShadowPredictionMade"]
    assert [event.data["prediction_id"] for event in shadows] == [f"e{n}" for n in range(10)]
    for event in shadows:
        assert event.data["answered_by"] == "flights-1"
        assert event.data["score"] == pytest.approx(event.data["answered_score"] + 0.5)
        assert event.data["reason_id"] == "r1"


async def test_a_shadow_that_cannot_follow_is_dropped_and_counted() -> None:
    log = MemoryLog()
    served = rolling(split(0.0, shadow=True), log)
    served.shadows = Shadows(served.metrics, lambda: served.log, limit=4)
    await served.predict("flights", body(10))
    await served.shadows.settle()
    assert sum(event.type == "ShadowPredictionMade" for event in log.events) == 4
    text = served.metrics.text().decode()
    assert 'shadow_predictions_dropped_total{task="flights"} 6.0' in text


async def test_a_shadow_without_a_log_costs_the_caller_nothing() -> None:
    log = MemoryLog()
    served = rolling(split(0.0, shadow=True), log)
    await served.predict("flights", body(3))
    log.broken = True
    await served.shadows.settle()
    log.broken = False
    answer = await asyncio.wait_for(served.predict("flights", body(2)), 60)
    assert len(answer["predictions"]) == 2


class Stage:
    """Serving that follows a log of versions, rollouts and deployments, with real model files."""

    def __init__(self, folder: Path) -> None:
        self.store = ArtifactStore(folder)
        self.service = service(MemoryLog())
        self.desk: Desk = self.service.desks["flights"]
        self.desk.champion = None
        self.desk.task = replace(self.desk.task, rollout=RolloutPolicy("blue_green"))
        self.swapper = Swapper(self.service, self.store)
        self.registry, self.rollouts = Registry(), Rollouts()
        self.state, self.rolled = self.registry.initial(), self.rollouts.initial()

    async def after(self, *events: Event) -> None:
        self.registry.apply(self.state, [e for e in events if e.topic in self.registry.topics])
        self.rollouts.apply(self.rolled, [e for e in events if e.topic in self.rollouts.topics])
        now = traffic(self.rolled.get("flights", TaskRollouts()))
        await self.swapper.line_up(self.desk, now, self.state.versions)
        await self.swapper.reconcile(self.desk, candidates(self.state, "flights"))
        back = before(self.state, "flights")
        await self.swapper.stay_warm(self.desk, back, self.state.versions)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def start(version: str, baseline: str) -> Event:
    policy = RolloutPolicy("canary", steps=(0.5, 1.0))
    return derive(
        ROLLOUTS,
        "RolloutStarted",
        version,
        time=NOW_MS,
        caused_by=None,
        task="flights",
        model_version=version,
        previous_version=baseline,
        strategy="canary",
        policy=policy_text(policy),
        reason="all gates passed",
        actor="trainer",
        request_id=None,
        gates=[],
    )


def step(rollout: Event, number: int, share: float, type_: str = "RolloutAdvanced") -> Event:
    return derive(
        ROLLOUTS,
        type_,
        *(rollout.id, number),
        time=NOW_MS + number,
        caused_by=None,
        task="flights",
        rollout_id=rollout.id,
        model_version=rollout.data["model_version"],
        step=number,
        share=share,
        reason="because",
        actor="policy",
        evidence={},
    )


async def test_a_rollout_from_start_to_promotion_and_back(stage: Stage) -> None:
    one, two = (registered(stage.store, f"flights-{n}", n / 4) for n in (1, 2))
    await stage.after(one, promoted("flights-1"))
    rollout = start("flights-2", "flights-1")
    await stage.after(rollout)
    assert stage.desk.lineup is None  # not registered yet
    await stage.after(two)
    assert stage.desk.lineup is not None and not stage.desk.lineup.splits  # loaded, not asked
    await stage.after(step(rollout, 1, 0.5))
    answer = await stage.service.predict("flights", body(40))
    assert {p["model_version"] for p in answer["predictions"]} == {"flights-1", "flights-2"}
    (shown,) = stage.service.models()
    assert shown["rollout"] == {"model_version": "flights-2", "share": 0.5, "shadow": False}
    done = step(rollout, 2, 1.0, "RolloutFinished")
    await stage.after(done)
    answer = await stage.service.predict("flights", body(40))
    assert answer["model_version"] == "flights-2"
    last = stage.rolled["flights"].past[-1]
    promotion = promoted("flights-2", NOW_MS + 3)
    promotion = Event(
        promotion.topic,
        promotion.type,
        {**promotion.data, "event_id": last.promotion_id, "previous_version": "flights-1"},
    )
    await stage.after(promotion)
    assert stage.desk.champion and stage.desk.champion.version == "flights-2"
    assert stage.desk.lineup is None
    stage.store.path(one.data["path"]).unlink()  # the old one is warm: no file is needed
    await stage.after(promoted("flights-1", NOW_MS + 4, "ModelRolledBack"))
    assert stage.desk.champion.version == "flights-1"


async def test_a_challenger_whose_file_is_refused_takes_no_part(stage: Stage) -> None:
    one, two = (registered(stage.store, f"flights-{n}", n / 4) for n in (1, 2))
    flip_a_byte(stage.store.path(two.data["path"]))
    rollout = start("flights-2", "flights-1")
    await stage.after(one, two, promoted("flights-1"), rollout, step(rollout, 1, 0.5))
    answer = await stage.service.predict("flights", body(40))
    assert answer["model_version"] == "flights-1"
    assert "refused_artifacts_total" in stage.service.metrics.text().decode()


async def test_after_a_restart_the_version_before_is_warm_again(stage: Stage) -> None:
    one, two = (registered(stage.store, f"flights-{n}", n / 4) for n in (1, 2))
    await stage.after(one, two, promoted("flights-1"), promoted("flights-2", NOW_MS + 1))
    stage.store.path(one.data["path"]).unlink()
    await stage.after(promoted("flights-1", NOW_MS + 2, "ModelRolledBack"))
    assert stage.desk.champion and stage.desk.champion.version == "flights-1"
