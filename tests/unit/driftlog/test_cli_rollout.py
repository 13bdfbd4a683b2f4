"""`driftlog rollout`: what a person may say when, and what goes into the log."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from typer.testing import CliRunner

from driftlog.cli import rollout
from driftlog.cli.errors import CliError
from driftlog.cli.opened import OpenedRegistry
from driftlog.cli.rollout import rollout_app
from infra.settings import Settings
from schemas.catalogue import system_topics
from schemas.codec import Codec
from schemas.event import Event
from streams.task import RolloutPolicy, Task
from tests.unit.schemas.memory_registry import MemoryRegistry
from tests.unit.streams.rollout_build import START, Life, promoted, started, task_of

CANARY = RolloutPolicy("canary", steps=(0.25, 1.0), min_labels=60)


@dataclass(frozen=True, slots=True)
class Opened(OpenedRegistry):
    """What `open_registry` finds, without a log; what is said is lived at once."""

    life: Life
    said: list[Event] = field(default_factory=list)

    def event_time(self, task: Task | None, not_before: int | None = None) -> int:
        return START + 60_000

    def append(self, event: Event) -> None:
        self.codec.encode(event)  # it fits its schema
        self.said.append(event)
        self.life.put(event)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    """A canary of toy-2 at 25 %."""
    made = Life(CANARY, {"toy-0": 0.0, "toy-1": 1.0, "toy-2": 1.0})
    made.put(promoted("toy-0", START - 9), promoted("toy-1", START, "toy-0"))
    made.put(started(CANARY, START + 5))
    tasks, states = {"toy": made.task}, {"rollouts": {"toy": made.rollouts}}
    schemas = Codec(MemoryRegistry(), system_topics())
    found = Opened(Settings.from_env({}), tasks, schemas, states, made)
    monkeypatch.setattr(rollout, "open_registry", lambda: found)
    return found


def run(*words: str) -> str:
    """The output; raises what the command raises."""
    result = CliRunner().invoke(rollout_app, list(words))
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_a_held_rollout_is_resumed_and_aborted(opened: Opened) -> None:
    assert "hold the rollout of toy: lunch" in run("hold", "--reason", "lunch")
    with pytest.raises(CliError, match="held already"):
        run("hold", "--reason", "lunch")
    run("resume", "--reason", "back")
    with pytest.raises(CliError, match="is not held"):
        run("resume", "--reason", "back")
    run("abort", "--reason", "no more", "--json")
    assert [event.data["command"] for event in opened.said] == ["hold", "resume", "abort"]
    assert opened.rollouts["toy"].past[-1].reason == "abort: no more"
    with pytest.raises(CliError, match="nothing of toy is being rolled out"):
        run("abort", "--reason", "again")
    assert "aborted    toy-2: abort: no more" in run("status")


def test_frozen_only_what_makes_sense_is_taken(opened: Opened) -> None:
    run("freeze", "--reason", "holidays")
    with pytest.raises(CliError, match="frozen already"):
        run("freeze", "--reason", "holidays")
    with pytest.raises(CliError, match="unfreeze"):
        run("abort", "--reason", "now")
    assert "FROZEN" in run("status")
    run("unfreeze", "--reason", "back")
    with pytest.raises(CliError, match="not frozen"):
        run("unfreeze", "--reason", "back")


def test_what_cannot_be_decided_is_said(opened: Opened) -> None:
    with pytest.raises(CliError, match="asks for no approval"):
        run("approve", "--reason", "fine")
    with pytest.raises(CliError, match="--reason is empty"):
        run("hold", "--reason", " ")
    opened.tasks["toy"] = task_of(RolloutPolicy())
    with pytest.raises(CliError, match="promotes at once"):
        run("freeze", "--reason", "holidays")
    assert opened.said == []


def test_a_rejection_ends_what_waits_for_approval(opened: Opened) -> None:
    run("reject", "--reason", "not that one")
    assert opened.rollouts["toy"].past[-1].outcome == "aborted"
