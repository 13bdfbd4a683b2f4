"""What an instance was started with: its task files, written down so that every verb knows them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from infra.files import write_whole
from infra.settings import Settings
from streams.task import Task
from streams.task_file import load_tasks


def settings() -> Settings:
    """The settings of this process; raises SettingsError."""
    return Settings.from_env(os.environ)


def remember_tasks(settings: Settings, files: Sequence[Path]) -> None:
    write_whole(_path(settings), json.dumps([str(Path(file).absolute()) for file in files]))


def task_files(settings: Settings) -> list[Path]:
    """The task files that this instance was last brought up with."""
    try:
        return [Path(file) for file in json.loads(_path(settings).read_text("utf-8"))]
    except FileNotFoundError:
        return []


def tasks(settings: Settings) -> list[Task]:
    """The tasks of this instance; raises TaskError if a file is gone or broken."""
    return load_tasks(task_files(settings))


def bring_up(
    settings: Settings,
    files: Sequence[Path],
    on_state: Callable[[str, str], None] = lambda name, state: None,
    on_download: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Start the whole system in the background and wait until all of it is ready.

    Raises InfraError (a port taken, no Java, a service that does not stay up) or TaskError.
    """
    import sys

    from driftlog.services import service_table
    from infra.lifecycle import spawn_detached, wait_ready

    load_tasks(files)
    remember_tasks(settings, files)
    service_table(
        settings, files, on_download
    )  # fetch what is missing here, where progress is seen
    os.environ.update(settings.to_env())
    tasks = [word for file in files for word in ("--task", str(Path(file).absolute()))]
    daemon = spawn_detached(
        settings, [sys.executable, "-m", "driftlog.services", "supervise", *tasks]
    )
    wait_ready(settings, progress=on_state, daemon=daemon)


def _path(settings: Settings) -> Path:
    return settings.home / "tasks.json"
