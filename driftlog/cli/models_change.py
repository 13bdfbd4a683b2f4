"""`driftlog models promote`, `rollback` and `retrain`: another version answers, or is asked for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from driftlog.cli.errors import CliError
from driftlog.cli.opened import OpenedRegistry, given, lines, open_registry, user
from driftlog.cli.options import Json, OneTask, OneVersion, Reason

if TYPE_CHECKING:
    from models.registry import Decision, Version


def promote(version: OneVersion, reason: Reason, as_json: Json = False) -> None:
    """Make a registered version the champion, gates or not: serving answers with it within a second."""
    opened = open_registry()
    known = opened.version(version)
    _install(opened, known, "ModelPromoted", reason, as_json)


def rollback(reason: Reason, task: OneTask = None, as_json: Json = False) -> None:
    """Let the version answer again that answered before the present one."""
    from models.registry import before

    opened = open_registry()
    name = opened.task(task).name
    previous = before(opened.state, name)
    if previous is None:
        raise CliError(f"no version of {name} answered before the present one")
    _install(opened, opened.version(previous), "ModelRolledBack", reason, as_json)


def retrain(
    reason: Reason,
    task: OneTask = None,
    until: Annotated[
        str | None,
        typer.Option("--until", help="Use labels before this event time. Default: all known."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the trainer's decision.")] = False,
    refresh_golden: Annotated[
        bool,
        typer.Option("--refresh-golden", help="Cut the golden set anew, from this training set."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Ask the trainer for a new model; its gates decide whether it replaces the champion."""
    from driftlog.cli.replay import parse_time
    from models.golden import REFRESH
    from schemas.catalogue import RETRAIN_REQUESTS
    from schemas.event import derive

    opened = open_registry()
    chosen = opened.task(task)
    now = opened.event_time(chosen)
    labels_until = parse_time(until) if until else now
    event = derive(
        RETRAIN_REQUESTS,
        "RetrainRequested",
        *(chosen.name, "manual", time.time_ns()),
        time=now,
        caused_by=None,
        task=chosen.name,
        trigger=REFRESH if refresh_golden else "manual",
        reason=given(reason),
        actor=user(),
        labels_until=labels_until,
        evidence={},
    )
    opened.append(event)
    if not as_json:
        typer.echo(f"asked for a new model of {chosen.name}: request {event.id}")
    if wait:
        _await_outcome(opened, event.id, as_json)
    elif as_json:
        lines([dict(event.data)])


def _await_outcome(opened: OpenedRegistry, request_id: str, as_json: bool) -> None:
    """Until the trainer has decided; raises CliError if the training failed."""
    from driftlog.words import describe
    from models.registry import Registry
    from schemas.event import Event
    from streams import log

    registry = Registry()
    state = registry.initial()
    for batch in log.follow(opened.settings.bootstrap, opened.codec, registry.topics, True):
        registry.apply(state, [item for item in batch if isinstance(item, Event)])
        request = state.requests.get(request_id)
        if request is None or request.ended is None:
            continue
        type_, data = request.ended
        if type_ == "TrainingFailed":
            raise CliError(f"no model came out of it: {data['reason']}")
        if as_json:
            lines([{"type": type_, **data}])
        else:
            typer.echo(f"{type_}: {describe(Event('', type_, data))}")
        return


def _install(
    opened: OpenedRegistry, version: Version, type_: str, reason: str, as_json: bool
) -> None:
    """Append the decision that `version` answers from now on."""
    from driftlog.counterfactual import load_version
    from models.artifacts import ArtifactRefused
    from models.registry import champion
    from schemas.catalogue import DEPLOYMENTS
    from schemas.event import derive

    name = version.version
    now = champion(opened.state, version.task)
    if now is not None and now.version == name:
        raise CliError(f"{name} answers already, by {now.actor}'s decision: {now.reason}")
    try:
        load_version(opened.settings, opened.state, name)
    except ArtifactRefused as error:
        raise CliError(f"the artifact of {name} is not what was registered: {error}") from error
    event = derive(
        DEPLOYMENTS,
        type_,
        *(version.task, name, now.event_id if now else ""),
        time=opened.event_time(opened.tasks.get(version.task), _not_before(opened, now)),
        caused_by=version.event_id,
        task=version.task,
        model_version=name,
        previous_version=now.version if now else None,
        reason=given(reason),
        actor=user(),
        request_id=None,
        gates=[],
    )
    opened.append(event)
    if as_json:
        lines([{"type": type_, **event.data}])
    else:
        typer.echo(f"{name} replaces {now.version if now else 'nothing'}")


def _not_before(opened: OpenedRegistry, now: Decision | None) -> int | None:
    """Since when (ms) the champion answers: the next one cannot have answered earlier.

    A task's first decision binds nobody: no event of the task had told the time yet.
    """
    if now is None or opened.state.decisions[now.task][0] == now:
        return None
    return now.since
