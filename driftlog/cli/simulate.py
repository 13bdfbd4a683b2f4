"""`driftlog simulate`: policies lived through side by side on a history, before one is chosen."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from driftlog.cli.errors import CliError
from driftlog.cli.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from driftlog.simulate.loop import Run
    from driftlog.simulate.measures import Measures
    from streams.task import Task

DEFAULT = ("task", "never", "weekly")


def simulate(
    task_file: Annotated[
        Path | None,
        typer.Option(
            "--task", help="The task's file. Its own source is the history, if none is named."
        ),
    ] = None,
    stream: Annotated[
        str | None,
        typer.Option(
            "--stream", help="A synthetic stream (--list names them), or a CSV file for the task."
        ),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            help="Again for each: task, never, daily, weekly, adwin, oracle, or settings as in"
            " retrain.votes=1,drift.alpha=0.05. Default: task, never, weekly.",
        ),
    ] = None,
    change: Annotated[
        list[float] | None,
        typer.Option("--change", help="Day (from the history's first) on which the world changes."),
    ] = None,
    days: Annotated[
        int | None, typer.Option("--days", min=1, help="Only so many days of the history.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="Picture of loss and retrains (needs extra plots)."),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Policies run side by side.")] = 2,
    names: Annotated[bool, typer.Option("--list", help="Name the synthetic streams.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Live through a history under several policies, and compare what each would have been worth.

    Predictions, delayed labels, windows, scoring, retrain policy, training, gates and promotion are the live
    system's own code, in memory and virtual time; nothing needs to be up.
    """
    from driftlog.policy import PolicyError
    from driftlog.simulate import arms as sides
    from driftlog.simulate.history import read_history
    from driftlog.simulate.measures import measure
    from driftlog.simulate.streams import NAMES
    from streams.task import DAY_MS

    if names:
        typer.echo(json.dumps(NAMES) if as_json else "\n".join(NAMES))
        return
    task, changes, spread = _subject(task_file, stream)
    with progress_bar("history", quiet=as_json) as on_progress:
        history = read_history(task, days, _daily(on_progress))
    if not len(history.data):
        raise CliError("the history has no request")
    start = int(history.data.times[0])
    changes = [*changes, *(start + round(day * DAY_MS) for day in change or ())]
    changes = sorted(moment for moment in changes if moment <= int(history.data.times[-1]))
    try:
        chosen = [sides.arm(task, word, changes) for word in dict.fromkeys(policy or DEFAULT)]
    except PolicyError as error:
        raise CliError(str(error)) from error
    with progress_bar("policies", quiet=as_json) as on_progress:
        runs = sides.run_arms(
            history, chosen, jobs, lambda name, done, total: on_progress(done, total)
        )
    for run in runs:
        if not any(retrain.promoted for retrain in run.retrains):
            reasons = [retrain.verdict for retrain in run.retrains]
            why = (
                reasons[-1]
                if reasons
                else f"fewer labels than retrain.first_labels={task.retrain.first_labels}"
            )
            raise CliError(
                f"policy {run.name}: no model was ever promoted, nothing to compare: {why}"
            )
    found = measure(task, history, runs, changes, spread, but=(sides.ORACLE,))
    if plot:
        _draw(plot, task, runs, history, changes)
    _show(task, found, runs, changes, as_json)


def _subject(task_file: Path | None, name: str | None) -> tuple[Task, list[int], int]:
    """The task with its source, the changes that are known (ms), and how long each takes."""
    from dataclasses import replace

    from driftlog.simulate.streams import NAMES
    from driftlog.simulate.streams import stream as synthetic
    from driftlog.simulate.table import csv_source
    from streams.task_file import load_task

    if name in NAMES:
        if task_file is not None:
            raise CliError(f"the stream {name} is a task of its own: leave --task out")
        made = synthetic(name)
        return made.task, list(made.changes), made.spread_ms
    if task_file is None:
        known = f"there is no stream {name!r}" if name else "say what to simulate"
        raise CliError(f"{known}: --task FILE, or --stream with one of {', '.join(NAMES)}")
    task = load_task(task_file)
    if name is not None:
        if not Path(name).is_file():
            raise CliError(f"{name!r} is neither a CSV file nor one of {', '.join(NAMES)}")
        task = replace(task, source=csv_source(task, Path(name)))
    if task.source is None:
        raise CliError(f"task {task.name} has no source: name a CSV file with --stream")
    return task, [], 0


def _daily(on_progress: Any) -> Any:
    """Days of event time, as they are read; how many will come is not known."""
    from streams.task import DAY_MS

    first = last = -1

    def told(now: int) -> None:
        nonlocal first, last
        day = now // DAY_MS
        if day != last:
            first, last = (day if first < 0 else first), day
            on_progress(day - first, None)

    return told


def _draw(
    path: Path, task: Task, runs: Sequence[Run], history: Any, changes: Sequence[int]
) -> None:
    from driftlog.simulate.picture import draw

    try:
        draw(path, f"{task.name}: {len(runs)} policies on the same history", history, runs, changes)
    except ImportError as error:
        raise CliError("a picture needs matplotlib: pip install 'driftlog[plots]'") from error
    except ValueError as error:  # a suffix that matplotlib does not write
        raise CliError(f"{path}: {error}") from error


def _show(
    task: Task,
    found: Sequence[Measures],
    runs: Sequence[Run],
    changes: Sequence[int],
    as_json: bool,
) -> None:
    if as_json:
        for each, run in zip(found, runs, strict=True):
            retrains = [asdict(retrain) for retrain in run.retrains]
            typer.echo(json.dumps({**asdict(each), "retrained": retrains}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{task.name}: {found[0].rows:,} labelled answers", show_edge=False)
    table.add_column("policy")
    for name in (
        *("log-loss", "regret", "delay (days)", "changes seen", "false alarms", "retrains"),
        *("promoted", "labels"),
    ):
        table.add_column(name, justify="right")
    for each in found:
        table.add_row(*row(each))
    Console().print(table)
    if changes:
        when = ", ".join(
            datetime.fromtimestamp(c / 1000, UTC).strftime("%Y-%m-%d") for c in changes
        )
        typer.echo(f"the world changes on {when}")
    else:
        typer.echo("no change is known (--change DAY): delays and false alarms are not told")


def row(each: Measures) -> list[str]:
    """Cells of one policy."""
    return [
        each.policy,
        f"{each.log_loss:.4f}",
        f"{each.regret:.4f}",
        "-" if each.delay_days is None else f"{each.delay_days:.1f}",
        f"{each.found}/{each.changes}" if each.changes else "-",
        "-" if each.false_alarms is None else str(each.false_alarms),
        str(each.retrains),
        str(each.promotions),
        f"{each.labels:,}",
    ]
