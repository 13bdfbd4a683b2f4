"""`driftlog up`, `down`, `status`."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from driftlog.cli.errors import CliError

DEFAULT_TASK = "examples/flights.py"
DEMO_MARK = "demo.json"
"""In a home folder whose data a demo made, and may throw away."""


def up(
    task: Annotated[
        list[Path] | None,
        typer.Option("--task", help=f"Task file; may be repeated. Default: {DEFAULT_TASK}."),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return once everything is ready.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the services as JSON.")] = False,
) -> None:
    """Start the whole system on this machine: brokers, registry, history, stream workers, serving.

    Harmless when it is already up. Without --detach it stays in the foreground until Ctrl-C, then stops.
    """
    from driftlog import instance
    from infra.lifecycle import is_up, stop

    settings = instance.settings()
    files = task or _default_tasks()
    if is_up(settings):
        running = instance.task_files(settings)
        if task and [file.absolute() for file in task] != running:
            names = ", ".join(map(str, running)) or "no task"
            raise CliError(
                f"already up with {names}: `driftlog down` first, then up with other tasks"
            )
        if not as_json:
            typer.echo(f"already up in {settings.home}")
    else:
        # What a demo left is the user's from now on: the next demo must not start afresh on it.
        (settings.home / DEMO_MARK).unlink(missing_ok=True)
        start_with_progress(files)
    status(as_json=as_json)
    if not detach:
        try:
            while is_up(settings):
                time.sleep(0.5)
        finally:
            stop(settings)


def start_with_progress(files: list[Path]) -> None:
    """Bring the system up, a line for each service; raises CliError-like errors of infra."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    from driftlog import instance

    settings = instance.settings()
    console = Console(stderr=True)
    started = time.monotonic()
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("Kafka", total=None, visible=False)

        def on_download(done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total, visible=done < total)

        def on_state(name: str, state: str) -> None:
            if state == "ready":
                console.print(f"  [green]ready[/] {name:<10} {time.monotonic() - started:5.1f} s")

        instance.bring_up(settings, files, on_state, on_download)


def down(
    as_json: Annotated[bool, typer.Option("--json", help="Print the number stopped.")] = False,
) -> None:
    """Stop everything that `up` started here. Data stay under .driftlog. Harmless when nothing runs."""
    from driftlog import instance
    from infra.lifecycle import stop

    settings = instance.settings()
    count = stop(settings)
    if as_json:
        typer.echo(json.dumps({"stopped": count}))
    else:
        typer.echo(f"{count} processes stopped" if count else "nothing was running")


def restart(
    names: Annotated[
        list[str] | None, typer.Argument(help="Services; `serving` is all its replicas.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what runs now as JSON.")] = False,
) -> None:
    """Start services anew, one after the other: the next one stops when the one before is ready.

    Without names the serving replicas: with two or more (DRIFTLOG_SERVING_REPLICAS) some replica
    answers at every moment, and a caller that goes to another one meets no failed request.
    """
    from driftlog import instance
    from driftlog.services import replica_of
    from infra.lifecycle import restart as one
    from infra.lifecycle import status as services

    settings = instance.settings()
    known = [item.name for item in services(settings)]
    chosen = [
        each
        for name in names or ["serving"]
        for each in (sorted(filter(replica_of, known)) if name == "serving" else [name])
    ]
    if not set(chosen) <= set(known) or not chosen:
        missing = sorted(set(names or ["serving"]) - set(known))
        listed = ", ".join(known) or "nothing: start it with `driftlog up`"
        raise CliError(f"no service {', '.join(missing)} runs here; there is {listed}")
    if names in (None, ["serving"]) and len(chosen) == 1:
        typer.echo(
            "one serving replica: nobody answers until it is back"
            " (DRIFTLOG_SERVING_REPLICAS=2 keeps one up)",
            err=True,
        )
    done = []
    for name in chosen:
        began = time.monotonic()
        record = one(settings, name)
        done.append({"name": name, "pid": record.pid, "restarts": record.restarts})
        if not as_json:
            typer.echo(f"{name:<10} pid {record.pid}, ready after {time.monotonic() - began:.1f} s")
    if as_json:
        typer.echo(json.dumps(done))


def status(
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a service.")] = False,
) -> None:
    """Show the services: state, port, memory, restarts. Exits 1 unless all are ready."""
    from driftlog import instance
    from infra.lifecycle import status as services

    settings = instance.settings()
    found = services(settings)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(item) for item in found]))
    elif not found:
        typer.echo("driftlog is not up here: start it with `driftlog up`")
    else:
        _table(found)
    if not found or any(item.state != "ready" for item in found):
        raise typer.Exit(1)


def _table(found: list) -> None:  # type: ignore[type-arg]
    from rich.console import Console
    from rich.table import Table

    table = Table(header_style="bold", show_edge=False, pad_edge=False)
    for name in ("service", "state", "port", "pid", "up for", "restarts", "memory"):
        table.add_column(name, justify="left" if name in ("service", "state") else "right")
    colours = {"ready": "green", "starting": "yellow", "waiting": "yellow"}
    for item in found:
        state = f"[{colours.get(item.state, 'red')}]{item.state}[/]"
        table.add_row(
            item.name,
            f"{state} {item.detail}".strip(),
            str(item.port or ""),
            str(item.pid or ""),
            f"{item.uptime_s:.0f} s" if item.pid else "",
            str(item.restarts),
            f"{item.rss_mb:.0f} MiB" if item.pid else "",
        )
    Console(file=sys.stdout).print(table)


def _default_tasks() -> list[Path]:
    path = Path(DEFAULT_TASK)
    if path.exists():
        return [path]
    raise CliError(
        f"no task: name one with --task FILE, or write one with `driftlog task new NAME`"
        f" ({DEFAULT_TASK} is not in this folder)"
    )
