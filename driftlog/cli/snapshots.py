"""`driftlog snapshots`: the datasets that models learned from; prove, export, take and prune them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from driftlog.cli.errors import CliError
from driftlog.cli.opened import Opened, lines, open_log
from driftlog.cli.options import Json, OneTask

if TYPE_CHECKING:
    from models.artifacts import ArtifactStore
    from models.history import History
    from models.snapshots import Snapshots
    from streams.task import Task

snapshots_app = typer.Typer(
    help="The datasets that models learned from: prove, export and prune them.",
    no_args_is_help=True,
)

Snapshot = Annotated[
    str, typer.Argument(help="The first letters of its SHA-256.", metavar="SNAPSHOT")
]
Taken = Mapping[str, Any]


@snapshots_app.command("list")
def list_(task: OneTask = None, as_json: Json = False) -> None:
    """Every snapshot that the log tells of, oldest first, and whether its file is there."""
    from driftlog.words import moment
    from models.retention import snapshots

    opened = _open()
    if task is not None:
        opened.task(task)
    files = _store(opened).snapshots()
    rows = [
        {**taken, "stored": taken["snapshot"] in files}
        for taken in snapshots(opened.states["registry"], task)
    ]
    if as_json:
        lines(rows)
        return
    for row in rows:
        span = f"{moment(row['from_time'])} to {moment(row['to_time'])}"
        left_out = f", {len(row['excluded'])} spans left out" if row["excluded"] else ""
        gone = "" if row["stored"] else ", file pruned"
        typer.echo(
            f"{row['snapshot'][:12]}  {row['task']} {row['purpose']:<8} {span}"
            f"  {row['rows']:,} rows{left_out}{gone}"
        )
    if not rows:
        typer.echo("no snapshot was taken yet")


@snapshots_app.command()
def show(snapshot: Snapshot, as_json: Json = False) -> None:
    """Where a snapshot comes from: its query, its part of the log, what was left out, what keeps it."""
    from driftlog.words import moment
    from models.retention import retention

    opened = _open()
    taken = _find(opened, snapshot)
    reasons = retention(opened.states["registry"], 0)[taken["snapshot"]].reasons
    if as_json:
        lines([{**taken, "kept_because": reasons}])
        return
    told = [
        f"{taken['snapshot']}  ({taken['purpose']}, task {taken['task']})",
        f"  {taken['rows']:,} rows, {taken['positives']:,} positive, {taken['bytes']:,} bytes",
        f"  {moment(taken['from_time'])} to {moment(taken['to_time'])}, request {taken['request_id']}",
    ]
    told += [
        f"  left out {moment(one['from_time'])} to {moment(one['to_time'])}: {one['reason']}"
        for one in taken["excluded"]
    ]
    told += [f"  {at['topic']}[{at['partition']}] before {at['offset']}" for at in taken["offsets"]]
    told += [f"  kept: {reason}" for reason in reasons] or [
        "  nothing needs it: prune may delete it"
    ]
    typer.echo("\n".join([*told, f"  {taken['sql']}"]))


@snapshots_app.command()
def verify(
    snapshot: Annotated[
        str | None,
        typer.Argument(
            help="The first letters of its SHA-256. Default: all.", metavar="[SNAPSHOT]"
        ),
    ] = None,
    task: OneTask = None,
    restore: Annotated[
        bool, typer.Option("--restore", help="Put files that are gone back into the store.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make snapshots anew from the log's history and compare them to the byte; status 1 if one differs."""
    from models.retention import snapshots
    from models.snapshots import Snapshots

    opened = _open()
    chosen = (
        [_find(opened, snapshot)]
        if snapshot
        else [
            one for one in snapshots(opened.states["registry"], task) if one["task"] in opened.tasks
        ]
    )
    history, store = _history(opened), _store(opened)
    maker, wrong = Snapshots(history, store), 0
    try:
        for taken in chosen:
            data = _rebuilt(opened, maker, taken)
            sha256 = hashlib.sha256(data).hexdigest()
            equal, stored = sha256 == taken["snapshot"], taken["snapshot"] in store.snapshots()
            wrong += not equal
            if equal and restore and not stored:
                maker.restore(data)
                stored = True
            row = {
                "snapshot": taken["snapshot"],
                "rebuilt": sha256,
                "equal": equal,
                "stored": stored,
            }
            if as_json:
                lines([row])
            else:
                verdict = "equal to the byte" if equal else f"DIFFERS: the log gives {sha256[:12]}"
                typer.echo(
                    f"{taken['snapshot'][:12]}  {taken['task']} {taken['purpose']}: {verdict}"
                )
    finally:
        history.close()
    if wrong:
        raise CliError(f"{wrong} of {len(chosen)} snapshots differ from what the log gives")


@snapshots_app.command()
def export(
    snapshot: Snapshot,
    to: Annotated[Path, typer.Option("--to", help="A new file, e.g. flights.parquet.")],
    as_json: Json = False,
) -> None:
    """Write a snapshot as a Parquet file, and beside it the .dvc file by which DVC tracks it."""
    from infra.files import write_whole
    from models.artifacts import ArtifactRefused
    from models.dvc import metafile

    opened = _open()
    taken = _find(opened, snapshot)
    if to.exists():
        raise CliError(f"{to} is there already: name a new file")
    try:
        data = _store(opened).read(taken["path"], taken["snapshot"])
    except ArtifactRefused as error:
        hint = f"`driftlog snapshots verify {snapshot} --restore` makes it anew"
        raise CliError(f"{error}; {hint}") from error
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_bytes(data)
    beside = to.with_name(f"{to.name}.dvc")
    write_whole(beside, metafile(to.name, data, taken))
    if as_json:
        lines([{"snapshot": taken["snapshot"], "file": str(to), "dvc": str(beside)}])
    else:
        typer.echo(f"{to}: {taken['rows']:,} rows, {len(data):,} bytes; {beside} beside it")


@snapshots_app.command()
def take(
    task: Annotated[str | None, typer.Argument(metavar="[TASK]")] = None,
    until: Annotated[
        str | None, typer.Option("--until", help="Labels before this event time. Default: now.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Cut a snapshot now, as a training would: the newest days of the task, without what is in quarantine."""
    from driftlog.cli.replay import parse_time
    from models.lineage import Run
    from models.snapshots import Snapshots
    from schemas.event import Event, derived_id
    from streams.quarantine import Quarantine

    opened = _open()
    chosen = opened.task(task)
    now = opened.event_time(chosen)
    asked = {
        "event_id": derived_id("SnapshotTaken", chosen.name, "manual", time.time_ns()),
        "event_time": now,
        "labels_until": parse_time(until) if until else now,
    }
    run, kept_out = Run(chosen, asked, ""), opened.states[Quarantine(chosen).name]
    with closing(_history(opened)) as history:
        maker = Snapshots(history, _store(opened))
        cut = maker.take(run, _ends(opened, chosen), time.sleep, kept_out)
    said = run.snapshot_taken(cut, "manual")
    event = Event(said.topic, said.type, {**said.data, "caused_by": None})
    opened.append(event)
    if as_json:
        lines([event.data])
    else:
        typer.echo(f"{cut.sha256[:12]}  {cut.rows:,} rows of {chosen.name}, {cut.bytes:,} bytes")


@snapshots_app.command()
def prune(
    keep_last: Annotated[
        int,
        typer.Option(
            "--keep-last", help="Training sets of each task that stay in any case.", min=0
        ),
    ] = 3,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete; without it only say what would go.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Delete the files that nothing needs any more; the log can give them back (`verify --restore`)."""
    from models.retention import removable, retention

    opened = _open()
    files = _store(opened).snapshots()
    found = retention(opened.states["registry"], keep_last)
    going = removable(found, files)
    freed = sum(files[sha256].stat().st_size for sha256 in going)
    rows = [
        {
            "snapshot": sha256,
            "task": found[sha256].taken["task"],
            "kept_because": found[sha256].reasons,
        }
        for sha256 in sorted(set(files) & set(found))
    ]
    if delete:
        for sha256 in going:
            files[sha256].unlink()
    if as_json:
        lines([{**row, "deleted": delete and row["snapshot"] in going} for row in rows])
        return
    for row in rows:
        why = "; ".join(row["kept_because"])
        word = f"kept     {why}" if why else "deleted" if delete else "would go"
        typer.echo(f"{row['snapshot'][:12]}  {row['task']}  {word}")
    hint = "" if delete or not going else "; --delete does it"
    typer.echo(f"{len(going)} of {len(rows)} files, {freed:,} bytes{hint}")


def _open() -> Opened:
    from models.registry import Registry
    from streams.quarantine import Quarantine

    return open_log("snapshots", lambda tasks: [Registry(), *map(Quarantine, tasks)])


def _find(opened: Opened, prefix: str) -> Taken:
    from models.retention import snapshots

    found = {
        taken["snapshot"]: taken
        for taken in reversed(snapshots(opened.states["registry"]))
        if taken["snapshot"].startswith(prefix)
    }
    if not found or not prefix:
        raise CliError(f"no snapshot begins with {prefix!r}: `driftlog snapshots list` shows them")
    if len(found) > 1:
        raise CliError(f"{len(found)} snapshots begin with {prefix!r}: write more of it")
    return next(iter(found.values()))


def _ends(opened: Opened, task: Task) -> dict[tuple[str, int], int]:
    """The next offset of each partition that a snapshot of the task reads."""
    from models.snapshot_file import topics
    from streams import log

    consumer = log.make_consumer(opened.settings.bootstrap)
    try:
        return log.end_offsets(consumer, log.partitions_of(consumer, topics(task)))
    finally:
        consumer.close()


def _rebuilt(opened: Opened, maker: Snapshots, taken: Taken) -> bytes:
    task = opened.tasks.get(taken["task"])
    if task is None:
        raise CliError(f"this instance has no task {taken['task']}: its columns are not known")
    return maker.rebuild(task, taken)


def _store(opened: Opened) -> ArtifactStore:
    from models.artifacts import ArtifactStore

    return ArtifactStore(opened.settings.artifacts)


def _history(opened: Opened) -> History:
    from models.history import History

    return History(opened.settings.clickhouse)
