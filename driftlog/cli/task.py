"""`driftlog task`: begin a task file, and check one."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from driftlog.cli.errors import CliError

if TYPE_CHECKING:
    from driftlog.task_check import Checked
    from streams.task import Feature, Task

_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
SHOWN_PROBLEMS = 20

task_app = typer.Typer(
    help="Write a task file to begin with; check one before it goes live.", no_args_is_help=True
)


@task_app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="Name of the task: a-z, 0-9 and _, e.g. churn.")],
    path: Annotated[
        Path | None, typer.Option("--path", "-p", help="File to write. Default: NAME.py here.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace an existing file.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what was written as JSON.")
    ] = False,
) -> None:
    """Write a commented task file that runs as it is; the places to change say so."""
    if not _NAME.fullmatch(name) or name == "driftlog":
        raise CliError(
            f"{name!r} cannot name a task: use lower-case letters, digits and _ (at most 41),"
            " starting with a letter; 'driftlog' is taken"
        )
    file = path or Path(f"{name}.py")
    if file.suffix != ".py" or file.is_dir():
        raise CliError(f"--path {file}: name a file that ends in .py, e.g. {file / name}.py")
    if not file.absolute().parent.is_dir():
        raise CliError(f"there is no folder {file.absolute().parent}: make it first")
    text = resources.files("driftlog").joinpath("skeleton.py").read_text("utf-8")
    try:
        with file.open("w" if force else "x", encoding="utf-8") as out:
            out.write(text.replace("my_task", name))
    except FileExistsError:
        raise CliError(
            f"{file} exists: choose another --path, or replace it with --force"
        ) from None
    except OSError as error:
        raise CliError(f"{file} cannot be written: {error.strerror}") from error
    if as_json:
        typer.echo(json.dumps({"task": name, "file": str(file)}))
        return
    typer.echo(f"wrote {file}: change what its comments mark, then")
    typer.echo(f"  driftlog task check {file}")
    typer.echo(f"  driftlog up --detach --task {file} && driftlog feed")


@task_app.command("check")
def check(
    file: Annotated[Path, typer.Argument(help="The task file.")],
    moments: Annotated[
        int,
        typer.Option("--moments", "-n", min=1, help="How many of the source's moments to check."),
    ] = 1_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Load a task file, show what it defines, and run its source through everything but the system.

    Nothing is started and nothing is written. Exits 1 if anything must be corrected.
    """
    from driftlog.task_settings import check_settings
    from streams.task import TaskError
    from streams.task_file import load_task

    try:
        task = load_task(file)
    except TaskError as error:
        raise CliError(str(error)) from error
    problems = check_settings(task)
    checked = None if problems or task.source is None else _run_source(task, file, moments)
    problems += checked.problems if checked else []
    if as_json:
        typer.echo(json.dumps(_as_json(task, checked, problems), default=str))
    else:
        _show(task, checked)
        for problem in problems[:SHOWN_PROBLEMS]:
            typer.echo(f"problem  {problem}")
        if len(problems) > SHOWN_PROBLEMS:
            typer.echo(f"... and {len(problems) - SHOWN_PROBLEMS} more: --json lists all")
    if problems:
        many = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise CliError(f"{file}: {many} to correct")


def _run_source(task: Task, file: Path, limit: int) -> Checked:
    from rich.console import Console

    from driftlog.task_check import check_moments
    from streams.task_file import what_happened

    with Console(stderr=True).status(f"the first {limit:,} moments of {task.name}"):
        try:
            return check_moments(task, limit, int(time.time() * 1000))
        except (Exception, SystemExit) as error:
            raise CliError(f"the source failed: {what_happened(file, error)}") from error


def _as_json(task: Task, checked: Checked | None, problems: list[Any]) -> dict[str, Any]:
    found = dataclasses.asdict(checked) if checked else {}
    return {
        "task": task.name,
        "label": task.label,
        "features": [
            {
                "name": f.name,
                "kind": type(f).__name__,
                "type": task.vector[f.name],
                "from": _origin(f),
            }
            for f in task.features
        ],
        "topics": [topic.name for topic in task.topics()],
        "personal": dataclasses.asdict(task.personal) if task.personal else None,
        "policies": {name: dataclasses.asdict(getattr(task, name)) for name in _policies(task)},
        **{name: value for name, value in found.items() if name != "problems"},
        "ok": not problems,
        "problems": [dataclasses.asdict(problem) for problem in problems],
    }


def _policies(task: Task) -> list[str]:
    names = ("recipe", "drift", "retrain", "gate", "rollout")
    return [name for name in names if dataclasses.is_dataclass(getattr(task, name))]


def _show(task: Task, checked: Checked | None) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    console.print(Text(f"task {task.name}: {task.label}", style="bold"))
    table = Table(header_style="bold", show_edge=False, pad_edge=False)
    for name in ("feature", "type", "from", "meaning"):
        table.add_column(name)
    for feature in task.features:
        kind = {"double": "number", "string": "category", "text": "text"}[task.kinds[feature.name]]
        table.add_row(*map(Text, (feature.name, kind, _origin(feature), feature.doc)))
    console.print(table)
    settings = Table(box=None, show_header=False, pad_edge=False)
    settings.add_row("topics", Text(", ".join(topic.name for topic in task.topics())))
    label = f"waits {task.label_delay_hours} h, threshold {task.decision_threshold}"
    settings.add_row("label", Text(f"{label}, {task.prior_score} before there is a model"))
    if task.personal:
        told = f"{', '.join(task.private)}: encrypted under a key of each {task.personal.subject}"
        settings.add_row("personal", Text(told))
    for name in _policies(task):
        values = dataclasses.asdict(getattr(task, name)).items()
        settings.add_row(name, Text(", ".join(f"{key} {value}" for key, value in values)))
    console.print(settings)
    if checked is not None:
        typer.echo(_told(checked))
        for note in checked.notes:
            typer.echo(f"note     {note}")
    elif task.source is None:
        typer.echo("source   none: questions and labels come over REST, observations over the log")


def _origin(feature: Feature) -> str:
    from streams.task import Observed, Rate

    if isinstance(feature, Rate):
        by = f" by {', '.join(feature.by)}" if feature.by else ""
        return f"labels of {feature.hours} h{by}"
    if isinstance(feature, Observed):
        return f"{feature.value} observed of {feature.by}, up to {feature.max_age_hours} h old"
    return "the request"


def _told(checked: Checked) -> str:
    share = f" ({checked.positives / checked.truths:.1%} are 1)" if checked.truths else ""
    span = f", {_day(checked.first_ms)} to {_day(checked.last_ms)} UTC" if checked.last_ms else ""
    return (
        f"source   {checked.moments:,} moments checked: {checked.asks:,} questions,"
        f" {checked.truths:,} labels{share}, {checked.observations:,} observations{span}"
    )


def _day(time_ms: int) -> str:
    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return str(time_ms)
