"""Hot swap: which model answers after which decisions, with real model files."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from models.artifacts import ArtifactRefused, ArtifactStore
from models.encoder import Encoder, FeatureCode
from models.onnx_graph import THRESHOLD, constant, with_note
from models.registry import Registry
from models.serving.deployments import Swapper, candidates, load
from models.serving.service import Desk, Service
from schemas.catalogue import DEPLOYMENTS, MODEL_VERSIONS
from schemas.event import Event, derive
from tests.unit.models.serving_parts import FLIGHTS, NOW_MS, MemoryLog, flight, service

FEATURES = (FeatureCode("distance"), FeatureCode("carrier", {"AA": 1.0}))


def registered(store: ArtifactStore, version: str, score: float) -> Event:
    stored = store.put_model(constant(score, Encoder("flights", FEATURES)))
    return derive(
        MODEL_VERSIONS,
        "ModelRegistered",
        version,
        time=NOW_MS,
        caused_by=None,
        task="flights",
        model_version=version,
        request_id=f"request of {version}",
        artifact=stored.sha256,
        path=stored.path,
        bytes=stored.bytes,
        recipe="constant",
        parameters="{}",
        seed=0,
        features=["distance", "carrier"],
    )


def promoted(version: str, at: int = NOW_MS, kind: str = "ModelPromoted") -> Event:
    fields = {"task": "flights", "model_version": version, "reason": "because", "actor": "trainer"}
    return derive(DEPLOYMENTS, kind, version, at, time=at, caused_by=None, **fields)


@dataclass
class Stage:
    """A service without champion, an artifact store, and the registry so far."""

    store: ArtifactStore
    log: MemoryLog = field(default_factory=MemoryLog)

    def __post_init__(self) -> None:
        self.service: Service = service(self.log)
        self.desk: Desk = self.service.desks["flights"]
        self.desk.champion = None
        self.swapper = Swapper(self.service, self.store)
        self.registry = Registry()
        self.state = self.registry.initial()

    async def after(self, *events: Event) -> str | None:
        """The version that answers after these events."""
        self.registry.apply(self.state, events)
        await self.swapper.reconcile(self.desk, candidates(self.state, "flights"))
        await self.swapper.settle()
        return self.desk.champion.version if self.desk.champion else None

    def alerts(self) -> list[str]:
        return [event.type for event in self.log.events]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(ArtifactStore(tmp_path))


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


async def test_the_newest_promotion_answers_and_a_rollback_leads_back(stage: Stage) -> None:
    one, two = (
        registered(stage.store, "flights-1", 0.25),
        registered(stage.store, "flights-2", 0.75),
    )
    assert await stage.after() is None
    assert await stage.after(one, promoted("flights-1")) == "flights-1"
    answer = await stage.service.predict("flights", {"instances": [flight()]})
    assert answer["predictions"][0]["score"] == pytest.approx(0.25)
    assert await stage.after(two, promoted("flights-2", NOW_MS + 1)) == "flights-2"
    back = promoted("flights-1", NOW_MS + 2, "ModelRolledBack")
    assert await stage.after(back) == "flights-1"
    metrics = stage.service.metrics.text().decode()
    assert 'model_info{model_version="flights-1",task="flights"} 1.0' in metrics
    assert 'model_info{model_version="flights-2"' not in metrics
    (model,) = stage.service.models()
    assert (model["since"], model["reason"]) == (NOW_MS + 2, "because")


async def test_a_rejected_challenger_changes_nothing(stage: Stage) -> None:
    one, two = (
        registered(stage.store, "flights-1", 0.25),
        registered(stage.store, "flights-2", 0.75),
    )
    await stage.after(one, two, promoted("flights-1"))
    rejected = promoted("flights-2", NOW_MS + 1, "PromotionRejected")
    assert await stage.after(rejected) == "flights-1"


async def test_a_promotion_read_before_its_registration_waits_for_it(stage: Stage) -> None:
    one, two = (
        registered(stage.store, "flights-1", 0.25),
        registered(stage.store, "flights-2", 0.75),
    )
    await stage.after(one, promoted("flights-1"))
    assert await stage.after(promoted("flights-2", NOW_MS + 1)) == "flights-1"
    assert await stage.after(two) == "flights-2"


async def test_who_has_no_champion_passes_over_a_version_that_nobody_can_read(stage: Stage) -> None:
    """Started after the registration of flights-2 has become unreadable in the log."""
    one = registered(stage.store, "flights-1", 0.25)
    stage.registry.apply(
        stage.state, [one, promoted("flights-1"), promoted("flights-2", NOW_MS + 1)]
    )
    assert list(candidates(stage.state, "flights")) == []
    found = candidates(stage.state, "flights", waits=stage.desk.champion is not None)
    await stage.swapper.reconcile(stage.desk, found)
    assert stage.desk.champion is not None
    assert stage.desk.champion.version == "flights-1"


async def test_a_refused_artifact_keeps_the_old_one_and_raises_one_alert(stage: Stage) -> None:
    one, bad = (
        registered(stage.store, "flights-1", 0.25),
        registered(stage.store, "flights-2", 0.75),
    )
    three = registered(stage.store, "flights-3", 0.5)
    flip_a_byte(stage.store.path(bad.data["path"]))
    await stage.after(one, promoted("flights-1"))
    decision = promoted("flights-2", NOW_MS + 1)
    assert await stage.after(bad, decision) == "flights-1"
    assert await stage.after() == "flights-1"
    (alert,) = stage.log.events
    assert (alert.type, alert.data["subject"]) == ("AlertRaised", "serving")
    assert alert.data["caused_by"] == decision.id
    assert "flights-2 refused" in alert.data["message"]
    assert await stage.after(three, promoted("flights-3", NOW_MS + 2)) == "flights-3"
    assert stage.alerts() == ["AlertRaised", "AlertResolved"]


async def test_a_restart_serves_the_newest_champion_that_loads(stage: Stage) -> None:
    one, bad = (
        registered(stage.store, "flights-1", 0.25),
        registered(stage.store, "flights-2", 0.75),
    )
    stage.store.path(bad.data["path"]).unlink()
    served = await stage.after(one, bad, promoted("flights-1"), promoted("flights-2", NOW_MS + 1))
    assert served == "flights-1"


@pytest.mark.parametrize(
    "encoder",
    [
        Encoder("trains", FEATURES),
        Encoder("flights", (FeatureCode("speed"),)),
        Encoder("flights", (FeatureCode("carrier"),)),
        Encoder("flights", (FeatureCode("distance", {"far": 1.0}),)),
    ],
)
async def test_a_model_of_other_features_is_refused(stage: Stage, encoder: Encoder) -> None:
    stored = stage.store.put_model(constant(0.5, encoder))
    event = registered(stage.store, "flights-1", 0.25)
    event = Event(
        event.topic,
        event.type,
        {**event.data, "artifact": stored.sha256, "path": stored.path},
    )
    stage.registry.apply(stage.state, (event, promoted("flights-1")))
    (candidate,) = candidates(stage.state, "flights")
    with pytest.raises(ArtifactRefused):
        load(stage.store, FLIGHTS, candidate)


async def test_a_version_that_brings_a_threshold_decides_by_it(tmp_path: Path) -> None:
    """The task decides from 0.5 on, this version from 0.25 on."""
    stage = Stage(ArtifactStore(tmp_path))
    plain = constant(0.3, Encoder("flights", FEATURES))
    stored = stage.store.put_model(with_note(plain, THRESHOLD, "0.25"))
    event = registered(stage.store, "flights-1", 0.3)
    with_threshold = {**event.data, "artifact": stored.sha256, "path": stored.path}
    await stage.after(replace(event, data=with_threshold), promoted("flights-1"))
    answer = await stage.service.predict("flights", {"instances": [flight()]})
    assert answer["predictions"][0]["label"] == 1
    await stage.after(
        promoted("flights-1", NOW_MS + 1)
    )  # once more: the same version, the same threshold
    answer = await stage.service.predict("flights", {"instances": [flight()]})
    assert answer["predictions"][0]["label"] == 1
    await stage.after(registered(stage.store, "flights-2", 0.3), promoted("flights-2", NOW_MS + 2))
    answer = await stage.service.predict("flights", {"instances": [flight()]})
    assert answer["predictions"][0]["label"] == 0
