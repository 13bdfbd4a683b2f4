"""`driftlog corrections`: what a bad version decided; correct it with another version, once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from driftlog.cli.errors import CliError
from driftlog.cli.opened import OpenedRegistry, given, lines, open_registry, user
from driftlog.cli.options import Json, Reason
from driftlog.cli.progress import progress_bar

if TYPE_CHECKING:
    from driftlog.corrections import Decided
    from schemas.event import Event
    from streams.task import Task

corrections_app = typer.Typer(
    help="What a bad version decided, and its correction by another.", no_args_is_help=True
)
SHOWN = 20
BATCH = 2_000
"""Corrections that are written at a time."""

Version = Annotated[str, typer.Argument(help="The version that answered.", metavar="VERSION")]
From = Annotated[str | None, typer.Option("--from", help="Event time, inclusive.")]
To = Annotated[str | None, typer.Option("--to", help="Event time, exclusive.")]


@corrections_app.command("list")
def list_(version: Version, since: From = None, until: To = None, as_json: Json = False) -> None:
    """Every answer of a version in a span of event time, with the truth where it is known."""
    opened = open_registry()
    answers = _answers(opened, version, since, until, as_json)
    if as_json:
        lines(answer.to_json() for answer in answers)
        return
    _print_answers(answers)
    typer.echo(_summary(version, answers))


@corrections_app.command()
def publish(
    version: Version,
    by: Annotated[str, typer.Option("--with", help="The version that answers instead.")],
    reason: Reason,
    since: From = None,
    until: To = None,
    scores: Annotated[
        bool,
        typer.Option("--scores", help="Also where the decision stays and only the score differs."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show, and write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Score a version's answers again with another one, and publish what it decides otherwise.

    A correction of a prediction by a version is said once: what is published is left out of a second run.
    """
    from driftlog.corrections import Ordered, corrections
    from driftlog.counterfactual import load_version
    from models.artifacts import ArtifactRefused
    from streams.log import LogWriter

    opened = open_registry()
    if by == version:
        raise CliError(f"{version} cannot correct itself: --with names another version")
    known = opened.version(by)
    task = opened.task(known.task)
    if opened.version(version).task != task.name:
        raise CliError(f"{version} and {by} answer for different tasks")
    order = Ordered(version, by, given(reason), user(), scores)
    try:
        scorer = load_version(opened.settings, opened.state, by)
    except ArtifactRefused as error:
        raise CliError(f"the artifact of {by} is not what was registered: {error}") from error
    answers = _answers(opened, version, since, until, as_json)
    before = _published(opened)
    time = opened.event_time(task)
    made = list(corrections(answers, task, scorer, order, time, before))
    if not dry_run:
        writer = LogWriter(opened.settings.bootstrap, opened.codec)
        with progress_bar("publishing", quiet=as_json) as on_progress:
            for at in range(0, len(made), BATCH):
                writer.append(made[at : at + BATCH])
                on_progress(min(at + BATCH, len(made)), len(made))
    if as_json:
        lines({"published": not dry_run, **event.data} for event in made)
    else:
        _print_corrections(answers, made)
        typer.echo(_told(order.by, answers, made, before, dry_run))


def _answers(
    opened: OpenedRegistry, version: str, since: str | None, until: str | None, quiet: bool
) -> list[Decided]:
    from driftlog.cli.replay import parse_time
    from driftlog.corrections import decided

    task = opened.task(opened.version(version).task)
    first, last = (parse_time(text) if text else None for text in (since, until))
    return decided(_events(opened, task, quiet), task, version, first, last)


def _events(opened: OpenedRegistry, task: Task, quiet: bool) -> Iterator[Event]:
    """Predictions and labels of the task, each once."""
    from driftlog.counterfactual import topics_of
    from streams import log
    from streams.fold import Projector

    seen = Projector([])
    with progress_bar("reading", quiet=quiet) as on_progress:
        for event in log.read(
            opened.settings.bootstrap, opened.codec, topics_of(task), on_progress=on_progress
        ):
            if seen.fresh(event):
                yield event


def _published(opened: OpenedRegistry) -> set[str]:
    from schemas.catalogue import CORRECTIONS
    from streams import log

    return {event.id for event in log.read(opened.settings.bootstrap, opened.codec, [CORRECTIONS])}


def _summary(version: str, answers: Sequence[Decided]) -> str:
    known = [answer for answer in answers if answer.truth is not None]
    wrong = sum(answer.event.data["label"] != answer.truth for answer in known)
    positive = sum(answer.event.data["label"] for answer in answers)
    return (
        f"{version} answered {len(answers):,} times, {positive:,} times with 1; of {len(known):,} labelled"
        f" answers {wrong:,} were wrong"
    )


def _told(
    by: str, answers: Sequence[Decided], made: Sequence[Event], before: set[str], dry_run: bool
) -> str:
    from driftlog.corrections import correction_id

    again = sum(correction_id(answer.event.id, by) in before for answer in answers)
    truth = {answer.event.id: answer.truth for answer in answers}
    known = [event for event in made if truth[event.data["of"]] is not None]
    better = sum(event.data["label"] == truth[event.data["of"]] for event in known)
    verb = "would be published (dry run)" if dry_run else "published"
    return (
        f"of {len(answers):,} answers {len(made):,} corrections by {by} {verb}, {again:,} were published"
        f" before; of {len(known):,} with a label {better:,} are right now"
    )


def _print_answers(answers: Sequence[Decided]) -> None:
    rows = [
        (a.event.time, a.event.id, f"{a.event.data['score']:.4f}", a.event.data["label"], a.truth)
        for a in answers[:SHOWN]
    ]
    _table(("asked (UTC)", "prediction", "score", "decided", "truth"), rows, len(answers))


def _print_corrections(answers: Sequence[Decided], made: Sequence[Event]) -> None:
    asked = {answer.event.id: answer.event.time for answer in answers}
    rows = []
    for event in made[:SHOWN]:
        data: Any = event.data
        was = f"{data['logged_score']:.4f} -> {data['logged_label']}"
        rows.append((asked[data["of"]], data["of"], was, f"{data['score']:.4f} -> {data['label']}"))
    _table(("asked (UTC)", "prediction", "was", "is"), rows, len(made))


def _table(names: Sequence[str], rows: Sequence[tuple[Any, ...]], count: int) -> None:
    from rich.console import Console
    from rich.table import Table

    from driftlog.words import moment

    if not rows:
        return
    table = Table(header_style="bold", show_edge=False, pad_edge=False)
    for name in names:
        table.add_column(name, no_wrap=True)
    for time, *cells in rows:
        table.add_row(moment(time), *("" if cell is None else str(cell) for cell in cells))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 120
    console.print(table)
    if count > len(rows):
        console.print(f"... and {count - len(rows):,} more (--json has all)", style="dim")
