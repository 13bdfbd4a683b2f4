"""`driftlog replay`: rebuild state from the log, as of any moment; prove it; ask what if."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from driftlog.cli.errors import CliError

if TYPE_CHECKING:
    from driftlog.counterfactual import Counterfactual
    from driftlog.verify import Check
    from streams.replay import Progress


def replay(
    fold: Annotated[
        list[str] | None,
        typer.Option("--fold", help="Fold to rebuild; may be repeated. Default: all."),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to", help="Only events up to this event time (ISO 8601), e.g. 2013-02-01T12:00."
        ),
    ] = None,
    to_offset: Annotated[
        int | None, typer.Option("--to-offset", help="Only the first N records of each partition.")
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="Compare with the live folds, ClickHouse and Redis; 1 if any differs."
        ),
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="Score the logged predictions again with this version, and compare."
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", help="With --model: only predictions that this version made; repeatable."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", help="With --model: at most so many predictions.")
    ] = None,
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild", help="Delete ClickHouse's and Redis's data; they come back from the log."
        ),
    ] = False,
    dump: Annotated[
        Path | None, typer.Option("--dump", help="Write the rebuilt states to this file as JSON.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Rebuild state from the log and print its fingerprints (SHA-256; equal on any machine)."""
    if sum(map(bool, (verify, model, rebuild))) > 1:
        raise CliError("choose one of --verify, --model and --rebuild")
    if model:
        _counterfactual(model, only or [], limit, as_json)
    elif rebuild:
        _rebuild_stores(as_json)
    elif verify:
        _verify(fold or [], as_json)
    else:
        _replay(fold or [], to, to_offset, dump, as_json)


def _replay(
    names: list[str], to: str | None, to_offset: int | None, dump: Path | None, as_json: bool
) -> None:
    from driftlog import instance
    from driftlog.verify import all_folds
    from streams import log
    from streams import replay as engine
    from streams.canonical import plain

    settings = instance.settings()
    tasks = instance.tasks(settings)
    codec = log.connect_codec(settings, tasks)
    folds = _chosen(all_folds(settings, tasks), names)
    until = None if to is None else parse_time(to)
    ends = None if to_offset is None else _first_records(settings.bootstrap, folds, to_offset)
    with progress_bar("replay", quiet=as_json) as on_progress:
        projector = engine.rebuild(
            settings.bootstrap,
            codec,
            folds,
            ends,
            keep=lambda event: until is None or event.time <= until,
            on_progress=on_progress,
        )
    rows = [{"fold": f.name, "sha256": projector.fingerprint(f.name)} for f in folds]
    if dump:
        states = {f.name: plain(projector.states[f.name]) for f in folds}
        dump.write_text(json.dumps(states, indent=1, default=str), "utf-8")
    if as_json:
        for row in rows:
            typer.echo(json.dumps({**row, "events": projector.events}))
        return
    for row in rows:
        typer.echo(f"{row['sha256']}  {row['fold']}")
    typer.echo(f"{projector.events:,} events folded")


def _verify(names: list[str], as_json: bool) -> None:
    from driftlog import instance, verify
    from driftlog.settled import wait_settled
    from streams import log

    settings = instance.settings()
    tasks = instance.tasks(settings)
    codec = log.connect_codec(settings, tasks)
    folds = _chosen(verify.all_folds(settings, tasks), names)
    with progress_bar("replay", quiet=as_json) as on_progress:
        checks = verify.check_folds(settings, codec, folds, on_progress)
        if not names:
            wait_settled(settings, tasks)  # the stores are compared with the log's end
            checks += verify.check_stores(settings, codec, tasks, on_progress)
    show_checks(checks, as_json)
    if not all(check.passed for check in checks):
        raise CliError("the log and what the services hold differ, see above")


def show_checks(checks: list[Check], as_json: bool) -> None:
    """A line for each check: what the log gives, and what was found if it differs."""
    for check in checks:
        if as_json:
            typer.echo(json.dumps(dataclasses.asdict(check)))
            continue
        mark = "equal  " if check.passed else "DIFFERS"
        typer.echo(f"{mark}  {check.name:<34} {check.expected}  {check.detail}".rstrip())
        if not check.passed:
            typer.echo(f"         {'found':<34} {check.found}")


def _counterfactual(version: str, only: list[str], limit: int | None, as_json: bool) -> None:
    from driftlog import instance
    from driftlog.counterfactual import load_version, rescore
    from models.registry import Registry
    from models.scorer import ArtifactRefused
    from streams import log
    from streams import replay as engine

    settings = instance.settings()
    tasks = instance.tasks(settings)
    codec = log.connect_codec(settings, tasks)
    registry = engine.rebuild(settings.bootstrap, codec, [Registry()]).states["registry"]
    known = registry.versions.get(version)
    task = next((task for task in tasks if known and task.name == known.task), None)
    if known is None or task is None:
        names = ", ".join(sorted(registry.versions)) or "none yet"
        raise CliError(f"no model version {version!r}; there are: {names}")
    try:
        scorer = load_version(settings, registry, version)
    except ArtifactRefused as error:
        raise CliError(f"the artifact of {version} is not what was registered: {error}") from error
    with progress_bar("scoring", quiet=as_json) as on_progress:
        result = rescore(settings, codec, task, version, scorer, only, limit, on_progress)
    _show_counterfactual(result, as_json)


def _show_counterfactual(result: Counterfactual, as_json: bool) -> None:
    rows: list[dict[str, Any]] = [
        {
            "answered_by": answered,
            "rescored_with": result.model,
            "predictions": tally.count,
            "bit_identical": tally.identical,
            "largest_difference": tally.largest_difference,
            "labelled": tally.labelled,
            "log_loss_logged": tally.logged_loss / tally.labelled if tally.labelled else None,
            "log_loss_rescored": tally.other_loss / tally.labelled if tally.labelled else None,
        }
        for answered, tally in result.by_version.items()
    ]
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"what {result.model} would have answered", show_edge=False, header_style="bold"
    )
    for name in rows[0] if rows else ():
        if name != "rescored_with":
            table.add_column(
                name.replace("_", " "), justify="left" if name == "answered_by" else "right"
            )
    for row in rows:
        cells = [value for name, value in row.items() if name != "rescored_with"]
        table.add_row(*(f"{v:.4f}" if isinstance(v, float) else str(v) for v in cells))
    Console().print(table)


def _rebuild_stores(as_json: bool) -> None:
    from driftlog import instance
    from driftlog.derived import rebuild_stores

    settings = instance.settings()
    with progress_bar("rebuild", quiet=as_json) as on_progress:
        seconds = rebuild_stores(settings, instance.tasks(settings), on_progress)
    line = {"rebuilt": ["clickhouse", "redis"], "seconds": round(seconds, 1)}
    typer.echo(json.dumps(line) if as_json else f"ClickHouse and Redis rebuilt in {seconds:.1f} s")


def _chosen(folds: list[Any], names: list[str]) -> list[Any]:
    known = {fold.name: fold for fold in folds}
    for name in names:
        if name not in known:
            raise CliError(f"no fold {name!r}; there are: {', '.join(sorted(known))}")
    return [known[name] for name in names] or folds


def _first_records(bootstrap: str, folds: list[Any], count: int) -> dict[tuple[str, int], int]:
    from streams import log

    consumer = log.make_consumer(bootstrap)
    try:
        topics = sorted({topic for fold in folds for topic in fold.topics})
        return dict.fromkeys(log.partitions_of(consumer, topics), count)
    finally:
        consumer.close()


def parse_time(text: str) -> int:
    """Event time in ms from ISO 8601 (UTC unless it says otherwise) or a plain number of ms."""
    if text.isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise CliError(f"{text!r} is no time: write e.g. 2013-02-01T12:00:00Z") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)


@contextmanager
def progress_bar(what: str, quiet: bool) -> Iterator[Progress]:
    """A bar on standard error, with rate and remaining time, if somebody is looking."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda done, total: None
        return
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)
