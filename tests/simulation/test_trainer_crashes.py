"""kill -9 of the trainer at every step of a request: one version, one decision, no orphan is served."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models import recipes
from models.lineage import cold_start_id
from models.training import Trained
from tests.simulation.trainer_world import TASK, World

ENDS = {"ModelPromoted", "PromotionRejected", "TrainingFailed"}
STEPS = {
    "SnapshotTaken": 2,
    **dict.fromkeys(
        ("QualityChecked", "TrainingStarted", "TrainingFinished", "ModelRegistered"), 1
    ),
}
TIMES = ("event_time", "duration_ms")
"""What another try may say otherwise: when it was, and how long it took."""


@pytest.fixture
def worlds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Iterator[World]]:
    """Worlds with a cold-start model, one after the other."""

    def made() -> Generator[World]:
        for number in itertools.count():
            with monkeypatch.context() as patch:
                world = World(tmp_path / str(number), patch)
                assert world.work() is None
                yield world

    endless = made()
    yield endless
    endless.close()


def essence(events: Mapping[str, list[Mapping[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    return {
        type_: [{name: value for name, value in e.items() if name not in TIMES} for e in found]
        for type_, found in events.items()
    }


def answered_once(world: World, request_id: str) -> None:
    """The request led to each event once, to one version, one decision; and serving has its file."""
    events = world.events(request_id)
    assert {type_: len(found) for type_, found in events.items()} == {**STEPS, "ModelPromoted": 1}
    state = world.log.state()
    assert [v.version for v in state.versions.values()] == ["wear-0", "wear-1"]
    assert world.served() == ("wear-1", events["ModelRegistered"][0]["artifact"])


def test_killed_at_every_step_of_a_request(worlds: Iterator[World]) -> None:
    undisturbed = next(worlds)
    request_id = undisturbed.ask("request")
    undisturbed.fuse.passed.clear()
    undisturbed.work()
    answered_once(undisturbed, request_id)
    expected, moments = essence(undisturbed.events(request_id)), list(undisturbed.fuse.passed)

    killed_at = []
    for number in itertools.count():
        world = next(worlds)
        before = world.served()
        assert world.ask("request") == request_id
        moment = world.work(kill_at=number)
        if moment is None:
            break
        killed_at.append(moment)
        over = bool(ENDS & world.events(request_id).keys())
        assert world.served() == before or over, f"served something else after {moment}"
        assert world.work() is None
        answered_once(world, request_id)
        assert essence(world.events(request_id)) == expected, moment
    assert killed_at == moments, "every moment of the undisturbed run was tried"
    for type_ in (*STEPS, "ModelPromoted"):
        assert f"before {type_} is said" in killed_at
    assert "a file in models that no event names" in killed_at


def test_killed_at_every_step_of_a_cold_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request_id = cold_start_id(TASK.name)
    for number in itertools.count():
        with monkeypatch.context() as patch:
            world = World(tmp_path / str(number), patch)
            moment = world.work(kill_at=number)
            assert world.served() is None or "ModelPromoted" in world.events(request_id)
            assert world.work() is None
            types = {type_: len(found) for type_, found in world.events(request_id).items()}
            assert types == {"ModelRegistered": 1, "ModelPromoted": 1}, moment
            assert world.served() is not None
        if moment is None:
            break
    assert number >= 8


@given(kills=st.lists(st.integers(0, 24), min_size=2, max_size=5))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_killed_again_and_again(worlds: Iterator[World], kills: list[int]) -> None:
    world = next(worlds)
    request_id = world.ask("request")
    for moment in kills:
        world.work(kill_at=moment)
        assert world.served() is not None
    assert world.work() is None
    answered_once(world, request_id)


def test_two_requests_and_a_kill_at_every_step_of_the_second(worlds: Iterator[World]) -> None:
    for number in range(0, 100, 3):
        world = next(worlds)
        first = world.ask("first")
        world.work()
        second = world.ask("second")
        moment = world.work(kill_at=number)
        world.work()
        outcomes = [ENDS & world.events(request).keys() for request in (first, second)]
        assert [len(outcome) for outcome in outcomes] == [1, 1]
        assert list(world.log.state().versions) == ["wear-0", "wear-1", "wear-2"]
        if moment is None:
            break


def other_file(trained: Trained) -> Trained:
    """As a library does that is not deterministic: another file from the same rows."""
    return dataclasses.replace(trained, onnx=recipes.constant(TASK, None, 0))


def test_a_file_that_no_event_names_is_never_served(worlds: Iterator[World]) -> None:
    """The second try of a library that is not deterministic leaves the first one's file behind."""
    orphans = 0
    for number in itertools.count():
        world = next(worlds)
        request_id = world.ask("request")
        moment = world.work(kill_at=number)
        if moment is None:
            break
        world.retrained = other_file
        world.work()
        events = world.events(request_id)
        assert len(ENDS & events.keys()) == 1, moment
        named = {version.artifact for version in world.log.state().versions.values()}
        served = world.served()
        assert served is not None and served[1] in named
        assert len(world.log.state().versions) == 2
        orphans += bool(world.files() - named)
        if "TrainingFailed" in events:  # registered before the kill, and trained otherwise after it
            (failed,) = events["TrainingFailed"]
            assert "training again gave" in failed["reason"]
            assert served[0] == "wear-0"
        elif "ModelPromoted" in events:
            assert served[1] == events["ModelRegistered"][0]["artifact"]
    assert orphans, "no kill left an orphan: the test tests nothing"
