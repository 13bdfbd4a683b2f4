"""What verbs share that read folds of the running instance and may add an event: open, choose, say."""

from __future__ import annotations

import getpass
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from driftlog.cli.errors import CliError

if TYPE_CHECKING:
    from infra.settings import Settings
    from models.registry import RegistryState, Version
    from schemas.codec import Codec
    from schemas.event import Event
    from streams.fold import Fold
    from streams.rollout_state import TaskRollouts
    from streams.task import Task


@dataclass(frozen=True, slots=True)
class Opened:
    """The states of some folds as the log has them now, and what is needed to add to it."""

    settings: Settings
    tasks: Mapping[str, Task]
    codec: Codec
    states: Mapping[str, Any]

    def task(self, name: str | None) -> Task:
        """The named task, or the only one; raises CliError."""
        return choose(self.tasks, name)

    def event_time(self, task: Task | None, not_before: int | None = None) -> int:
        """Event time (ms) of what happens now, see `models.event_time`, but not before `not_before`.

        Without a task it is the wall clock.
        """
        from models.event_time import event_time_now, newest_predictions

        now_ms = int(time.time() * 1000)
        if task is None:
            return now_ms
        newest = newest_predictions(self.settings.bootstrap, self.codec, task)
        now = event_time_now(newest, now_ms)
        return now if not_before is None else max(now, not_before)

    def append(self, event: Event) -> None:
        """Add one event to the log."""
        from streams.log import LogWriter

        LogWriter(self.settings.bootstrap, self.codec).append([event])


@dataclass(frozen=True, slots=True)
class OpenedRegistry(Opened):
    """The registry and the rollouts as the log has them now."""

    @property
    def state(self) -> RegistryState:
        """Versions, requests, decisions."""
        found: RegistryState = self.states["registry"]
        return found

    @property
    def rollouts(self) -> Mapping[str, TaskRollouts]:
        """Task name -> what is rolled out, and was."""
        found: Mapping[str, TaskRollouts] = self.states["rollouts"]
        return found

    def version(self, name: str) -> Version:
        """The registered version; raises CliError."""
        version = self.state.versions.get(name)
        if version is None:
            names = ", ".join(sorted(self.state.versions)) or "none yet"
            raise CliError(f"no model version {name!r}; there are: {names}")
        return version


def open_log(title: str, folds: Callable[[Sequence[Task]], Sequence[Fold]]) -> Opened:
    """Rebuild `folds(tasks)` from the log, with a progress bar called `title`."""
    from driftlog import instance
    from driftlog.cli.replay import progress_bar
    from streams import log
    from streams import replay as engine

    settings = instance.settings()
    tasks = instance.tasks(settings)
    codec = log.connect_codec(settings, tasks)
    made = folds(tasks)
    with progress_bar(title, quiet=False) as on_progress:
        projector = engine.rebuild(settings.bootstrap, codec, made, on_progress=on_progress)
    return Opened(settings, {task.name: task for task in tasks}, codec, projector.states)


def open_registry() -> OpenedRegistry:
    """Rebuild the registry and the rollouts from the log."""
    from models.registry import Registry
    from streams.rollout_state import Rollouts

    opened = open_log("registry", lambda _: [Registry(), Rollouts()])
    return OpenedRegistry(opened.settings, opened.tasks, opened.codec, opened.states)


def choose(tasks: Mapping[str, Task], name: str | None) -> Task:
    """The named task, or the only one; raises CliError."""
    names = ", ".join(sorted(tasks)) or "none"
    if name is None and len(tasks) == 1:
        return next(iter(tasks.values()))
    if name is None and tasks:
        raise CliError(f"which task? There are {names}: say --task NAME")
    if name is None or name not in tasks:
        raise CliError(f"no task {name or 'at all'}; this instance has: {names}")
    return tasks[name]


def given(reason: str) -> str:
    """A reason that says something; raises CliError."""
    if not reason.strip():
        raise CliError("--reason is empty: whoever reads the log will want to know why")
    return reason.strip()


def user() -> str:
    """Who is at the keyboard."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        return "unknown user"


def lines(rows: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line."""
    for row in rows:
        typer.echo(json.dumps(row, default=str))
