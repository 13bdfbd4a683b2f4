"""`driftlog models`: what people decide goes into the log; what cannot be is said."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from typer.testing import CliRunner

import driftlog.counterfactual
import models.event_time
from driftlog.cli import models as shown
from driftlog.cli import models_change
from driftlog.cli.errors import CliError
from driftlog.cli.opened import OpenedRegistry
from infra.settings import Settings
from models.golden import REFRESH
from models.registry import Registry
from schemas.catalogue import system_topics
from schemas.codec import Codec
from schemas.event import Event
from tests.unit.models.model_parts import START_MS, WEAR, asked, decided, registered
from tests.unit.schemas.memory_registry import MemoryRegistry

FAR = 1 << 60
HOUR = 3_600_000


@dataclass(frozen=True, slots=True)
class Opened(OpenedRegistry):
    """What `open_registry` finds, without a log; what is decided is registered at once."""

    said: list[Event] = field(default_factory=list)

    def append(self, event: Event) -> None:
        self.codec.encode(event)  # it fits its schema
        self.said.append(event)
        Registry().apply(self.state, [event])


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    """wear-0 answers, wear-1 is registered; the newest prediction is of START_MS."""
    events = [
        asked("r0", START_MS, trigger="cold_start"),
        registered("wear-0", START_MS, "r0"),
        decided("wear-0", START_MS, request_id="r0"),
        asked("r1", START_MS),
        registered("wear-1", START_MS, "r1"),
    ]
    states = {"registry": Registry().apply(Registry().initial(), events), "rollouts": {}}
    schemas = Codec(MemoryRegistry(), system_topics())
    found = Opened(Settings.from_env({}), {"wear": WEAR}, schemas, states)
    for module in (shown, models_change):
        monkeypatch.setattr(module, "open_registry", lambda: found)
    monkeypatch.setattr(driftlog.counterfactual, "load_version", lambda *_: None)
    newest = Event("wear.predictions", "PredictionMade", {"event_time": START_MS}, recorded_ms=FAR)
    monkeypatch.setattr(models.event_time, "newest_predictions", lambda *_: [newest])
    return found


def run(*words: str) -> list[Any]:
    """The objects that are printed; raises what the command raises."""
    result = CliRunner().invoke(shown.models_app, [*words, "--json"])
    if result.exception is not None:
        raise result.exception
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_promotion_and_its_rollback_are_decisions(opened: Opened) -> None:
    (made,) = run("promote", "wear-1", "--reason", " it is better ")
    assert (made["type"], made["previous_version"], made["reason"]) == (
        "ModelPromoted",
        "wear-0",
        "it is better",
    )
    assert run("at", "now")[0]["model_version"] == "wear-1"
    (back,) = run("rollback", "--reason", "it is not")
    assert (back["type"], back["model_version"]) == ("ModelRolledBack", "wear-0")
    assert [(row["model_version"], row["live"]) for row in run("list")] == [
        ("wear-0", True),
        ("wear-1", False),
    ]
    assert [event.time for event in opened.said] == [START_MS, START_MS]


def test_a_decision_is_not_before_the_one_it_replaces(opened: Opened) -> None:
    opened.append(decided("wear-1", START_MS + HOUR, previous="wear-0", request_id="r1"))
    (made,) = run("promote", "wear-0", "--reason", "as it was")
    assert made["event_time"] == START_MS + HOUR


def test_only_the_first_decision_of_a_task_may_be_ahead(opened: Opened) -> None:
    first = [registered("wear-0"), registered("wear-1"), decided("wear-0", FAR)]
    opened.states["registry"].decisions.clear()  # a registry whose first version is of now
    Registry().apply(opened.state, first)
    (made,) = run("promote", "wear-1", "--reason", "older events are replayed")
    assert made["event_time"] == START_MS


def test_a_new_model_is_asked_for(opened: Opened) -> None:
    (made,) = run("retrain", "--reason", "new season", "--refresh-golden")
    assert (made["trigger"], made["labels_until"]) == (REFRESH, START_MS)
    (other,) = run("retrain", "--reason", "new season", "--until", "2013-05-02")
    assert (other["trigger"], other["labels_until"]) == ("manual", 1_367_452_800_000)
    assert {event.id for event in opened.said} <= set(opened.state.requests)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("promote", "wear-9", "--reason", "r"), "no model version 'wear-9'; there are: wear-0, "),
        (("promote", "wear-0", "--reason", "r"), "wear-0 answers already"),
        (("promote", "wear-1", "--reason", " "), "--reason is empty"),
        (("rollback", "--reason", "r"), "no version of wear answered before"),
        (("rollback", "--reason", "r", "--task", "tear"), "no task tear; this instance has: wear"),
        (("retrain", "--reason", ""), "--reason is empty"),
    ],
)
def test_what_cannot_be_is_said(opened: Opened, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(CliError, match=message):
        run(*words)
    assert opened.said == []


def test_of_several_tasks_one_is_named(opened: Opened) -> None:
    opened.tasks["tear"] = WEAR  # type: ignore[index]
    with pytest.raises(CliError, match="which task\\? There are tear, wear: say --task NAME"):
        run("rollback", "--reason", "r")


def test_an_unknown_task_is_told_the_wall_clock(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("driftlog.cli.opened.time.time", lambda: 5.5)
    assert opened.event_time(None) == 5_500
