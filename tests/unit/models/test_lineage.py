from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from models.artifacts import Stored
from models.event_time import event_time_now
from models.gates import Verdict
from models.intervals import Interval
from models.lineage import Artifact, Cut, Run, cold_start, cold_start_id
from models.measures import Measure
from models.registry import Registry, champion
from schemas.catalogue import ROLLOUTS
from schemas.event import Event, Position
from streams.task import RolloutPolicy
from tests.unit.models.model_parts import WEAR, asked
from tests.unit.models.serving_parts import codec

NOW = 1_700_000_000_000
CUT = Cut("a" * 64, "snapshots/a.parquet", 10, 5, 2, 0, 9, "SELECT 1", {("wear.labels", 0): 7})
ARTIFACT = Artifact(
    Stored("b" * 64, "models/b.onnx", 11), "constant", {"score": 0.5}, 7, {"python": "3"}
)
GATE = Measure("g", 0.4, 0.5, 9, Interval(-0.1, 0.01, 8), 0.97)


def events(passed: bool = True, now: int = NOW) -> list[Event]:
    """All that an answered request leads to."""
    run = Run(WEAR, asked("r1", 100).data, "wear-1")
    taken = run.snapshot_taken(CUT, "training")
    golden = run.snapshot_taken(CUT, "golden")
    started = run.training_started(taken.data)
    finished = run.training_finished(now, started.data, 1234, {"log_loss": 0.4})
    registered = run.registered(
        now, ARTIFACT, caused_by=finished.id, parent="wear-0", snapshot="a" * 64, golden="a" * 64
    )
    verdict = Verdict(passed, (GATE.judged(0.5, True),), "the gates say so", (GATE.record(),))
    decided = run.decided(now, registered.data, "wear-0", verdict)
    failed = run.training_failed(now, "no rows")
    return [taken, golden, started, finished, registered, decided, failed]


def test_a_second_try_makes_the_same_ids_and_no_two_events_share_one() -> None:
    first, second = events(), events(now=NOW + 60_000)
    assert [e.id for e in first] == [e.id for e in second]
    assert len({e.id for e in first}) == len(first)


def test_there_is_one_decision_whatever_it_is() -> None:
    promoted, rejected = events()[5], events(passed=False)[5]
    assert (promoted.type, rejected.type) == ("ModelPromoted", "PromotionRejected")
    assert promoted.id == rejected.id


@pytest.mark.parametrize("passed", [True, False])
def test_every_event_fits_its_schema_and_names_the_request(passed: bool) -> None:
    schemas = codec(WEAR)
    for place, event in enumerate([cold_start(WEAR, NOW), *events(passed)]):
        back = schemas.decode(Position(event.topic, 0, place), schemas.encode(event))
        wanted: dict[str, Any] = {name: event.data[name] for name in event.data}
        assert (back.type, back.data) == (event.type, wanted)
        if place:
            assert back.data["request_id"] == "r1"


def test_each_event_is_caused_by_the_one_before() -> None:
    taken, golden, started, finished, registered, decided, failed = events()
    causes = [e.data["caused_by"] for e in (taken, golden, started, finished, registered, decided)]
    assert causes == ["r1", "r1", taken.id, started.id, finished.id, registered.id]
    assert failed.data["caused_by"] == "r1"


def test_the_registry_sees_the_request_end() -> None:
    state = Registry().apply(Registry().initial(), [asked("r1"), *events()[:6]])
    ended = state.requests["r1"].ended
    assert ended and ended[0] == "ModelPromoted"
    assert state.golden["wear"]["snapshot"] == "a" * 64


def test_a_task_starts_cold_once() -> None:
    assert cold_start(WEAR, 1).id == cold_start(WEAR, 2).id == cold_start_id("wear")
    assert cold_start_id("wear") != cold_start_id("tear")


def recorded(time: int, recorded_ms: int) -> Event:
    data = {"event_id": str(time), "event_time": time}
    return Event("wear.predictions", "PredictionMade", data, recorded_ms=recorded_ms)


def test_live_traffic_follows_the_wall_clock_and_a_replay_its_own_time() -> None:
    assert event_time_now([], NOW) == NOW
    live = [recorded(NOW - 5_000, NOW - 5_000), recorded(NOW - 9_000, NOW - 9_000)]
    assert event_time_now(live, NOW) == NOW
    replayed = [recorded(1_000_000, NOW - 2_000), recorded(999_000, NOW - 3_000)]
    assert event_time_now(replayed, NOW) == 1_002_000
    assert event_time_now([recorded(5_000, NOW + 10)], NOW) == 5_000, "a clock that is behind"


def test_a_task_that_rolls_out_gets_a_rollout_instead_of_a_promotion() -> None:
    task = replace(WEAR, rollout=RolloutPolicy("canary"))
    run = Run(task, asked("r1", 100).data, "wear-1")
    registered = run.registered(NOW, ARTIFACT, caused_by="f")
    gate = {**GATE.record(), "threshold": 0.5, "passed": True}
    passed, failed = Verdict(True, (gate,), "fine"), Verdict(False, (gate,), "worse")
    event = run.decided(NOW, registered.data, "wear-0", passed)
    again = run.decided(NOW + 1, registered.data, "wear-0", passed)
    assert (event.topic, event.type, event.id) == (ROLLOUTS, "RolloutStarted", again.id)
    schemas = codec(WEAR)
    assert schemas.decode(Position(event.topic, 0, 0), schemas.encode(event)).data == event.data
    assert run.decided(NOW, registered.data, "wear-0", failed).type == "PromotionRejected"
    assert run.decided(NOW, registered.data, None, passed).type == "ModelPromoted"  # cold start
    state = Registry().apply(Registry().initial(), [asked("r1"), event])
    ended = state.requests["r1"].ended
    assert ended and ended[0] == "RolloutStarted"
    assert champion(state, "wear") is None
