"""`driftlog quality`: what the checks say of windows and training sets; what is in quarantine, and why."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from driftlog.cli.errors import CliError
from driftlog.cli.opened import Opened, given, lines, open_log, user
from driftlog.cli.options import Json, OneTask, Reason

if TYPE_CHECKING:
    from streams.fold import Fold
    from streams.task import Task

quality_app = typer.Typer(
    help="What the checks say of the data, and what is kept out of training.", no_args_is_help=True
)

From = Annotated[
    str, typer.Argument(help="Event time in the window, e.g. 2013-02-01.", metavar="FROM")
]
To = Annotated[
    str | None,
    typer.Argument(help="End of the span. Default: the window that FROM lies in.", metavar="[TO]"),
]


@quality_app.command("list")
def list_(
    task: OneTask = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only what did not pass.")] = False,
    as_json: Json = False,
) -> None:
    """Every window and training set that was checked, newest last; then the dead letters."""
    from driftlog import quality_view

    opened = _open()
    chosen = opened.task(task)
    reports = opened.states[f"{chosen.name}.quality_reports"]
    found = quality_view.rows(reports, opened.states[f"{chosen.name}.quality"])
    found = [row for row in found if not (failed and row["passed"])]
    letters = _dead_letters(opened, chosen)
    if as_json:
        lines([*found, *({"dead_letters": name, "count": count} for name, count in letters)])
        return
    if found:
        _print_table(found)
    else:
        typer.echo("nothing failed" if failed else "nothing was checked yet: windows close on time")
    for name, count in letters:
        typer.echo(f"{count:,} records could not be read: see the topic {name}")


@quality_app.command()
def show(moment: From, task: OneTask = None, as_json: Json = False) -> None:
    """Each check of the windows and training sets about a moment, with its numbers."""
    from driftlog.cli.replay import parse_time

    at = parse_time(moment)
    opened = _open()
    chosen = opened.task(task)
    reports = opened.states[f"{chosen.name}.quality_reports"].values()
    found = [one for one in reports if one["window_start"] <= at < one["window_end"]]
    if not found:
        raise CliError(f"no window of {chosen.name} about {moment} was checked")
    if as_json:
        lines(found)
    else:
        typer.echo("\n\n".join(map(_told, found)))


@quality_app.command("quarantined")
def quarantined_(task: OneTask = None, as_json: Json = False) -> None:
    """The time spans whose predictions do not reach training, who put them there and why."""
    from driftlog.quality_view import span_row
    from driftlog.words import moment
    from streams.quarantine import quarantined

    opened = _open()
    chosen = opened.task(task)
    spans = quarantined(opened.states[f"{chosen.name}.quality"])
    if as_json:
        lines(map(span_row, spans))
        return
    for span in spans:
        period = f"{moment(span.from_time)} to {moment(span.to_time)}"
        typer.echo(f"{period}  by {span.actor}: {span.reason}")
    if not spans:
        typer.echo(f"nothing of {chosen.name} is in quarantine")


@quality_app.command()
def quarantine(
    start: From, reason: Reason, end: To = None, task: OneTask = None, as_json: Json = False
) -> None:
    """Keep the predictions of a window, or of a span, out of training."""
    _say("QuarantineSet", start, end, reason, task, as_json)


@quality_app.command()
def release(
    start: From, reason: Reason, end: To = None, task: OneTask = None, as_json: Json = False
) -> None:
    """Let the predictions of a window, or of a span, train again, whatever the checks say."""
    _say("QuarantineReleased", start, end, reason, task, as_json)


def _say(
    type_: str, start: str, end: str | None, reason: str, task: str | None, as_json: bool
) -> None:
    from driftlog.cli.replay import parse_time
    from driftlog.words import describe
    from schemas.catalogue import QUALITY_COMMANDS
    from schemas.event import derive

    opened = _open()
    chosen = opened.task(task)
    from_time = parse_time(start)
    if end is None:
        from_time -= from_time % chosen.window_ms
        to_time = from_time + chosen.window_ms
    else:
        to_time = parse_time(end)
    if to_time <= from_time:
        raise CliError(f"the span ends before it begins: {end} is not after {start}")
    event = derive(
        QUALITY_COMMANDS,
        type_,
        *(chosen.name, from_time, to_time, time.time_ns()),
        time=opened.event_time(chosen),
        caused_by=None,
        task=chosen.name,
        from_time=from_time,
        to_time=to_time,
        actor=user(),
        reason=given(reason),
    )
    opened.append(event)
    if as_json:
        lines([{"type": type_, **event.data}])
    else:
        typer.echo(f"{type_}: {describe(event)}")


def _open() -> Opened:
    return open_log("quality", folds)


def folds(tasks: Sequence[Task]) -> list[Fold]:
    """What the verbs read."""
    from driftlog.quality_view import Reports
    from streams.quarantine import Quarantine

    return [fold for task in tasks for fold in (Quarantine(task), Reports(task.name))]


def _dead_letters(opened: Opened, task: Task) -> list[tuple[str, int]]:
    """(topic, records) of the task's dead-letter topics that hold any."""
    from schemas.catalogue import DLQ_SUFFIX
    from streams import log

    consumer = log.make_consumer(opened.settings.bootstrap)
    try:
        names = [topic.name + DLQ_SUFFIX for topic in task.topics()]
        ends = log.end_offsets(consumer, log.partitions_of(consumer, names))
    finally:
        consumer.close()
    return [(name, end) for (name, _), end in sorted(ends.items()) if end]


def _print_table(found: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    from driftlog.words import moment

    table = Table(header_style="bold", show_edge=False, pad_edge=False)
    for name in ("from", "checked", "version", "rows", "verdict"):
        table.add_column(name, justify="right" if name == "rows" else "left")
    for row in found:
        verdict = "passed" if row["passed"] else "; ".join(row["failures"])
        mark = "in quarantine: " if row["in_quarantine"] else ""
        table.add_row(
            moment(row["window_start"]),
            "training set" if row["subject"] == "snapshot" else "window",
            row["model_version"],
            f"{row['count']:,}",
            mark + verdict,
            style="red" if mark else None if row["passed"] else "yellow",
        )
    Console().print(table)


def _told(report: dict[str, Any]) -> str:
    """A report for people."""
    from driftlog.words import moment

    what = "training set" if report["subject"] == "snapshot" else "window"
    period = f"{moment(report['window_start'])} to {moment(report['window_end'])}"
    head = f"{what} {period}, {report['model_version']}, {report['count']:,} rows"
    told = [head, f"  event {report['event_id']}, revision {report['revision']}"]
    for check in report["checks"]:
        mark = "ok    " if check["passed"] else "FAILED"
        column = f" {check['column']}" if check["column"] else ""
        numbers = f"{check['value']:g} against {check['threshold']:g}"
        told.append(f"  {mark} {check['name']}{column}: {numbers} ({check['severity']})")
    told += [f"  {line}" for line in report["failures"]]
    return "\n".join(told)
