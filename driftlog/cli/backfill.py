"""`driftlog backfill`: drift of the whole history on Apache Spark, the same as the live engine's."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from driftlog.cli.errors import CliError

if TYPE_CHECKING:
    from driftlog.backfill import Difference, Outcome
    from infra.settings import Settings
    from streams.spark import Progress
    from streams.task import Task

KAFKA = "kafka"
SHOWN_WINDOWS = 40
SHOWN_LINES = 10


def backfill(
    task: Annotated[
        str | None,
        typer.Argument(help="Name of a task that is up, or a task file. Default: the only one."),
    ] = None,
    source: Annotated[
        str,
        typer.Option(
            "--from", help="'kafka', or Parquet with raw records (see --export): a path or URL."
        ),
    ] = KAFKA,
    to_offset: Annotated[
        int | None,
        typer.Option("--to-offset", min=0, help="Only the records before this offset."),
    ] = None,
    slices: Annotated[
        int,
        typer.Option(
            "--slices", min=1, help="Cut each partition in so many, for more cores than partitions."
        ),
    ] = 1,
    cores: Annotated[
        int, typer.Option("--cores", min=0, help="Cores of this machine to use. Default: all.")
    ] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write scores, sketches, unreadable as Parquet.")
    ] = None,
    write: Annotated[
        bool,
        typer.Option("--write", help="Append the scores that the log lacks, unless any differs."),
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Compare with the log's scores; 1 if any differs.")
    ] = False,
    export: Annotated[
        Path | None,
        typer.Option("--export", help="Only write the raw records to this folder, as Parquet."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a score, then one summary.")
    ] = False,
) -> None:
    """Compute all drift windows and scores anew on Apache Spark, from Kafka or from Parquet.

    Under `spark-submit` it runs on that cluster, else on this machine's cores.
    """
    from driftlog import instance
    from infra.spark import require_spark

    settings = instance.settings()
    if (compare or write) and to_offset is not None:
        raise CliError("--compare and --write need the whole log: leave --to-offset out")
    if export is None:
        require_spark()
    chosen = _task(settings, task)
    if export is not None:
        _export(settings, chosen, export, to_offset, as_json)
        return
    began = time.monotonic()
    outcome = _run(settings, chosen, source, to_offset, slices, cores, as_json)
    if out is not None:
        _write_files(out, outcome)
    differences = _compare(settings, chosen, outcome) if compare or write else []
    _show(outcome, time.monotonic() - began, as_json)
    if compare:
        _show_differences(differences, len(outcome.scores), as_json)
    if write:
        _append(settings, chosen, outcome, differences, as_json)
    elif differences:
        raise CliError("backfill and log differ, see above")


def _task(settings: Settings, wanted: str | None) -> Task:
    from driftlog import instance
    from streams.task_file import load_task

    if wanted is not None and wanted.endswith(".py"):
        return load_task(Path(wanted))
    known = {one.name: one for one in instance.tasks(settings)}
    if wanted is None and len(known) == 1:
        return next(iter(known.values()))
    if wanted not in known:
        raise CliError(
            f"name one of the tasks that are up ({', '.join(known) or 'none is'}) or a task file"
        )
    return known[wanted]


def _run(
    settings: Settings,
    task: Task,
    source: str,
    to_offset: int | None,
    slices: int,
    cores: int,
    quiet: bool,
) -> Outcome:
    from py4j.protocol import Py4JError  # type: ignore[import-untyped]
    from pyspark.errors import PySparkException

    from driftlog.backfill import prepare, run
    from infra.spark import spark_session
    from streams.spark import UnusableFiles

    files = None if source == KAFKA else source
    if files is not None and "://" not in files and not Path(files).exists():
        raise CliError(
            f"there is no {files}: `driftlog backfill {task.name} --export DIR` writes files"
        )
    with _bar("starting Spark", quiet) as on_progress:
        prepared = prepare(settings, task, files, to_offset)
        log = settings.logs / "spark.log"
        with spark_session(settings, cores, log) as session:
            try:
                return run(session, prepared, slices, on_progress)
            except UnusableFiles as error:
                raise CliError(str(error)) from error
            except (PySparkException, Py4JError) as error:
                raise CliError(f"Spark: {_why(error)} (more in {log})") from error


def _why(error: Exception) -> str:
    """The last line of what an executor met, without the way there."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("at ", "File ", "^", "SQLSTATE"))]
    return told[-1] if told else type(error).__name__


def _export(
    settings: Settings, task: Task, folder: Path, to_offset: int | None, as_json: bool
) -> None:
    from driftlog.backfill import export as write_raw
    from driftlog.cli.replay import progress_bar

    with progress_bar("export", quiet=as_json) as on_progress:
        count = write_raw(settings, task, folder, to_offset, on_progress)
    line = {"records": count, "folder": str(folder)}
    typer.echo(json.dumps(line) if as_json else f"{count:,} records written to {folder}")


def _write_files(folder: Path, outcome: Outcome) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from driftlog.event_tables import event_table
    from schemas.catalogue import load_schema

    folder.mkdir(parents=True, exist_ok=True)
    gathered = outcome.gathered
    bad = [{**dataclasses.asdict(one.at), "error": one.error} for one in gathered.unreadable]
    columns = [("topic", pa.string()), ("partition", pa.int32())]
    unreadable = pa.schema([*columns, ("offset", pa.int64()), ("error", pa.string())])
    tables = {
        "scores": event_table(load_schema("DriftScored"), outcome.scores),
        "sketches": event_table(load_schema("SketchTaken"), gathered.sketches),
        "unreadable": pa.Table.from_pylist(bad, schema=unreadable),
    }
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet", compression="zstd")


def _compare(settings: Settings, task: Task, outcome: Outcome) -> list[Difference]:
    from driftlog.backfill import compare, logged_scores

    return compare(outcome.scores, logged_scores(settings, task))


def _append(
    settings: Settings,
    task: Task,
    outcome: Outcome,
    differences: Sequence[Difference],
    as_json: bool,
) -> None:
    from driftlog.backfill import append_missing

    contrary = [one for one in differences if one.log is not None]
    if contrary:
        raise CliError(
            f"nothing was written: {len(contrary)} scores of the log are not those of the backfill"
            " (--compare shows them), and what was said is not rewritten"
        )
    count = append_missing(settings, task, outcome.scores, differences)
    typer.echo(json.dumps({"written": count}) if as_json else f"{count:,} scores written")


def _show(outcome: Outcome, seconds: float, as_json: bool) -> None:
    if as_json:
        for event in outcome.scores:
            typer.echo(json.dumps(dict(event.data)))
        typer.echo(json.dumps({"summary": _summary(outcome, seconds)}))
        return
    _show_windows(outcome)
    counts, gathered = outcome.gathered.counts, outcome.gathered
    typer.echo(
        f"{counts.records:,} records of {len(gathered.partitions)} partitions in {seconds:.1f} s"
        f" ({counts.records / max(seconds, 0.001):,.0f}/s): {len(gathered.sketches):,} sketches,"
        f" {len(outcome.scores):,} scores; {counts.too_late:,} events came too late for their window"
    )
    if gathered.unknown_versions:
        typer.echo(f"not registered, so not scored: {', '.join(gathered.unknown_versions)}")
    if counts.bad:
        typer.echo(f"{counts.bad:,} records cannot be read:")
    for one in gathered.unreadable[:SHOWN_LINES]:
        typer.echo(f"  {one.at}  {one.error}")
    if counts.bad > SHOWN_LINES:
        typer.echo("  ... --out DIR writes more of them to unreadable.parquet")


def _summary(outcome: Outcome, seconds: float) -> dict[str, Any]:
    gathered = outcome.gathered
    return {
        **dataclasses.asdict(gathered.counts),
        "partitions": len(gathered.partitions),
        "sketches": len(gathered.sketches),
        "scores": len(outcome.scores),
        "seconds": round(seconds, 1),
        "unregistered": gathered.unknown_versions,
        "unreadable": [{"at": str(one.at), "error": one.error} for one in gathered.unreadable],
    }


def _show_windows(outcome: Outcome) -> None:
    from rich.console import Console
    from rich.table import Table

    from driftlog.words import moment

    windows: dict[tuple[int, str], list[Any]] = {}
    for event in outcome.scores:
        key = event.data["window_start"], event.data["model_version"]
        windows.setdefault(key, []).append(event.data)
    table = Table(show_edge=False, header_style="bold")
    for name in ("window", "model", "rows", "columns", "drifted", "largest PSI"):
        table.add_column(name, justify="left" if name in ("window", "model") else "right")
    for (start, version), scores in list(windows.items())[-SHOWN_WINDOWS:]:
        worst = max(scores, key=lambda data: (data["psi"], data["feature"]))
        table.add_row(
            moment(start),
            version,
            f"{worst['count']:,}",
            str(len(scores)),
            str(sum(data["drifted"] for data in scores)),
            f"{worst['psi']:.3f} {worst['feature']}",
        )
    if windows:
        Console().print(table)
    if len(windows) > SHOWN_WINDOWS:
        typer.echo(f"the last {SHOWN_WINDOWS} of {len(windows):,}; --out DIR writes all of them")


def _show_differences(differences: Sequence[Difference], scores: int, as_json: bool) -> None:
    from driftlog.words import moment

    if as_json:
        for one in differences:
            typer.echo(json.dumps({"difference": dataclasses.asdict(one)}))
        typer.echo(json.dumps({"equal": not differences, "compared": scores}))
        return
    if not differences:
        typer.echo(f"equal: all {scores:,} scores are those of the log")
    for one in differences[:SHOWN_LINES]:
        what = f"{moment(one.window_start)}  {one.model_version}  {one.feature}"
        if one.log is None:
            typer.echo(f"DIFFERS  {what}: not in the log (has the control plane caught up?)")
        elif one.backfill is None:
            typer.echo(f"DIFFERS  {what}: only in the log")
        else:
            said = (f"{n} {one.backfill.get(n)} (log: {one.log.get(n)})" for n in one.fields)
            typer.echo(f"DIFFERS  {what}: {', '.join(said)}")
    if len(differences) > SHOWN_LINES:
        typer.echo(f"{len(differences):,} differences in all; --json shows each")


@contextmanager
def _bar(what: str, quiet: bool) -> Iterator[Progress]:
    """What is being done, on standard error, if somebody is looking."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda what, done, total: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(what, total=None)
        yield lambda what, done, total: progress.update(
            bar, description=f"{what}, slices", completed=done, total=total
        )
