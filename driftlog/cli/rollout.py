"""`driftlog rollout`: what is on its way to becoming champion; hold it, end it, or have the last word."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer

from driftlog.cli.errors import CliError
from driftlog.cli.opened import OpenedRegistry, given, lines, open_registry, user
from driftlog.cli.options import Json, OneTask, Reason

if TYPE_CHECKING:
    from streams.rollout_state import Rollout, TaskRollouts
    from streams.task import Task

rollout_app = typer.Typer(
    help="Challengers on their way to champion: who answers how much, and why; stop or approve it.",
    no_args_is_help=True,
)


@rollout_app.command()
def status(task: OneTask = None, as_json: Json = False) -> None:
    """The champion, what is rolled out beside it, and how the last rollouts ended."""
    from driftlog.cli import rollout_text

    opened = open_registry()
    names = [opened.task(task).name] if task else sorted(opened.tasks)
    found = [rollout_text.status(opened.tasks[name], _state(opened, name)) for name in names]
    if as_json:
        lines(found)
    else:
        typer.echo("\n\n".join(map(rollout_text.status_text, found)))


@rollout_app.command()
def hold(reason: Reason, task: OneTask = None, as_json: Json = False) -> None:
    """Keep a rollout at its present step; proven harm still ends it."""
    _order("hold", reason, task, as_json)


@rollout_app.command()
def resume(reason: Reason, task: OneTask = None, as_json: Json = False) -> None:
    """Let a held rollout go on."""
    _order("resume", reason, task, as_json)


@rollout_app.command()
def approve(reason: Reason, task: OneTask = None, as_json: Json = False) -> None:
    """Agree to the promotion of a rollout with manual_approval, now or in advance."""
    _order("approve", reason, task, as_json)


@rollout_app.command()
def reject(reason: Reason, task: OneTask = None, as_json: Json = False) -> None:
    """Refuse the promotion: the rollout is aborted, the champion stays."""
    _order("reject", reason, task, as_json)


@rollout_app.command()
def abort(reason: Reason, task: OneTask = None, as_json: Json = False) -> None:
    """End a rollout; the champion answers everything again. Final."""
    _order("abort", reason, task, as_json)


@rollout_app.command()
def freeze(reason: Reason, task: OneTask = None, as_json: Json = False) -> None:
    """Nothing is promoted, advanced, aborted or rolled back by policy until `unfreeze`."""
    opened = open_registry()
    chosen = _governed(opened, task)
    if _state(opened, chosen.name).frozen is not None:
        raise CliError(f"{chosen.name} is frozen already")
    _say(opened, chosen, "freeze", None, reason, as_json)


@rollout_app.command()
def unfreeze(reason: Reason, task: OneTask = None, as_json: Json = False) -> None:
    """Let policy decide again: what was due meanwhile is decided at once."""
    opened = open_registry()
    chosen = _governed(opened, task)
    if _state(opened, chosen.name).frozen is None:
        raise CliError(f"{chosen.name} is not frozen")
    _say(opened, chosen, "unfreeze", None, reason, as_json)


def _order(what: str, reason: str, task: str | None, as_json: bool) -> None:
    """A command about the rollout that is on its way."""
    opened = open_registry()
    chosen = _governed(opened, task)
    state = _state(opened, chosen.name)
    if state.active is None:
        raise CliError(f"nothing of {chosen.name} is being rolled out; `driftlog rollout status`")
    if state.frozen is not None and what != "hold":
        raise CliError(
            f"{chosen.name} is frozen by {state.frozen.actor}: `driftlog rollout unfreeze` first"
        )
    if what == "approve" and not state.active.rules.manual_approval:
        raise CliError(
            f"this rollout of {state.active.version} asks for no approval (manual_approval=False)"
        )
    if (what == "hold") == (state.order(state.active, "hold") is not None) and what in _HOLDING:
        raise CliError(f"the rollout of {state.active.version} {_HOLDING[what]}")
    _say(opened, chosen, what, state.active, reason, as_json)


_HOLDING = {"hold": "is held already", "resume": "is not held"}


def _governed(opened: OpenedRegistry, name: str | None) -> Task:
    """The task; raises CliError if its promotions are not decided by a rollout policy."""
    task = opened.task(name)
    if not task.rollout.weighs_evidence:
        raise CliError(
            f"{task.name} promotes at once: give it rollout=RolloutPolicy(...), see docs/rollout.md"
        )
    return task


def _state(opened: OpenedRegistry, name: str) -> TaskRollouts:
    from streams.rollout_state import TaskRollouts

    return opened.rollouts.get(name) or TaskRollouts()


def _say(
    opened: OpenedRegistry,
    task: Task,
    what: str,
    rollout: Rollout | None,
    reason: str,
    as_json: bool,
) -> None:
    from driftlog.words import describe
    from schemas.catalogue import ROLLOUT_COMMANDS
    from schemas.event import derive

    event = derive(
        ROLLOUT_COMMANDS,
        "RolloutCommandGiven",
        *(task.name, what, time.time_ns()),
        time=opened.event_time(task),
        caused_by=rollout.id if rollout else None,
        task=task.name,
        command=what,
        rollout_id=rollout.id if rollout else None,
        actor=user(),
        reason=given(reason),
    )
    opened.append(event)
    if as_json:
        lines([dict(event.data)])
    else:
        typer.echo(describe(event))
