"""`driftlog feed`: play a task's source into the running system."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Annotated

import typer

from driftlog.cli.errors import CliError


def feed(
    task: Annotated[
        str | None, typer.Argument(help="Name of the task. Default: the only one.")
    ] = None,
    speed: Annotated[
        float | None,
        typer.Option("--speed", min=0.001, help="Event seconds per second. Default: full speed."),
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="Event time to begin at. Default: go on.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="Event time to stop at.")] = None,
    max_lag: Annotated[
        float,
        typer.Option(
            "--max-lag", min=0, help="Hours that online features may be behind when asked."
        ),
    ] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON summary.")] = False,
) -> None:
    """Play a task's source into the system: questions and labels over REST, observations into the log."""
    from driftlog import instance
    from driftlog.cli.replay import parse_time
    from driftlog.feeder import Feeder, FeedFailed, Tally
    from driftlog.words import moment
    from streams.task import HOUR_MS

    settings = instance.settings()
    tasks = {known.name: known for known in instance.tasks(settings)}
    if task is None and len(tasks) == 1:
        (task,) = tasks
    if task not in tasks:
        raise CliError(f"name one of the tasks: {', '.join(tasks) or 'none is up'}")
    if tasks[task].source is None:
        raise CliError(f"task {task} has no source to feed from")
    from rich.console import Console
    from rich.status import Status

    console = Console(stderr=True)
    began = time.monotonic()
    with Status("feeding", console=console) as shown:

        def on_step(tally: Tally) -> None:
            rate = tally.asked / max(0.001, time.monotonic() - began)
            shown.update(
                f"{moment(tally.event_time)}  {tally.asked:,} predictions ({rate:,.0f}/s),"
                f" {tally.labelled:,} labels, {tally.observed:,} observations"
            )

        feeder = Feeder(settings, tasks[task], speed, int(max_lag * HOUR_MS), on_step)
        try:
            tally = feeder.run(
                None if start is None else parse_time(start),
                None if end is None else parse_time(end),
            )
        except FeedFailed as error:
            raise CliError(str(error)) from error
    seconds = time.monotonic() - began
    if as_json:
        plain = dataclasses.asdict(tally)
        del plain["answered_ids"], plain["label_ids"]
        typer.echo(json.dumps({**plain, "seconds": round(seconds, 1)}))
        return
    typer.echo(
        f"{tally.asked:,} predictions, {tally.labelled:,} labels, {tally.observed:,} observations in"
        f" {seconds:.1f} s ({tally.asked / seconds:,.0f} predictions/s); {tally.failed_requests} of"
        f" {tally.requests:,} requests had to be repeated; up to {moment(tally.event_time)}"
    )
