"""`driftlog replay`: rebuild state from the log, as of any moment; prove it; ask what if."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from driftlog.cli import what_if
from driftlog.cli.errors import CliError
from driftlog.cli.progress import progress_bar

if TYPE_CHECKING:
    from driftlog.verify import Check
    from streams.replay import Progress, Until
    from streams.side_by_side import Plan
    from streams.task import Task
    from streams.window_partition import WindowPartition

__all__ = ["parse_time", "progress_bar", "replay", "show_checks"]
CHECKPOINT_EVENTS = 20_000
"""A replay that folded at least so many events leaves a checkpoint for the next one."""


def replay(
    fold: Annotated[
        list[str] | None,
        typer.Option("--fold", help="Fold to rebuild; may be repeated. Default: all."),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            help="Only what had happened by this event time (ISO 8601, e.g. 2013-02-01T12:00),"
            " whenever it was recorded: that moment as of now.",
        ),
    ] = None,
    known_at: Annotated[
        str | None,
        typer.Option(
            "--known-at",
            help="Only what had been recorded by this time of the clock: the state as known then."
            " With --to: what was known then about that moment.",
        ),
    ] = None,
    to_offset: Annotated[
        int | None,
        typer.Option("--to-offset", min=0, help="Only the first N records of each partition."),
    ] = None,
    from_zero: Annotated[
        bool,
        typer.Option("--from-zero", help="Fold the whole log, whatever checkpoints there are."),
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, help="Processes that fold side by side. Default: one a CPU."),
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
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            help="Decide again with a setting of the task's policy, e.g. retrain.votes=1 or"
            " drift.min_psi=0.3, and compare; repeatable.",
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="With --policy: the task. Default: the only one.")
    ] = None,
    write: Annotated[
        bool,
        typer.Option(
            "--write",
            help="With --model or --policy: write what it finds to driftlog.counterfactuals, and so"
            " to ClickHouse.",
        ),
    ] = False,
    diff: Annotated[
        tuple[str, str] | None,
        typer.Option("--diff", help="Compare two written replays by id; 1 if anything differs."),
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
    from streams.replay import Until

    chosen = {
        "--verify": verify, "--model": model, "--policy": policy, "--diff": diff,
        "--rebuild": rebuild,
    }  # fmt: skip
    given = [name for name, value in chosen.items() if value]
    if len(given) > 1:
        raise CliError(f"choose one of {', '.join(chosen)}: {' and '.join(given)} were given")
    if write and not (model or policy):
        raise CliError("--write keeps what --model or --policy finds: give one of them")
    until = Until(
        None if to is None else parse_time(to), None if known_at is None else parse_time(known_at)
    )
    if model:
        what_if.model_replay(model, only or [], limit, until, to_offset, write, as_json)
    elif policy:
        what_if.policy_replay(policy, task, until, to_offset, write, as_json)
    elif diff:
        what_if.diff(diff, as_json)
    elif rebuild:
        _rebuild_stores(as_json)
    elif verify:
        _verify(fold or [], as_json)
    else:
        _replay(fold or [], until, to_offset, from_zero, jobs, dump, as_json)


def _replay(
    names: list[str],
    until: Until,
    to_offset: int | None,
    from_zero: bool,
    jobs: int | None,
    dump: Path | None,
    as_json: bool,
) -> None:
    from driftlog import instance
    from driftlog.settled import live_folds
    from streams import log
    from streams.canonical import fingerprint, plain
    from streams.device import use_device
    from streams.side_by_side import Plan, rebuild_all

    settings = instance.settings()
    use_device(settings, say=False)
    tasks = instance.tasks(settings)
    driven = list(live_folds(settings, tasks).values())
    windows = {f"{task.name}.windows": task for task in tasks}
    everything = [fold for group in driven for fold in group]
    folds = _chosen([*everything, *map(_Named, windows)], names)
    watched = [windows[fold.name] for fold in folds if fold.name in windows]
    folds = [fold for fold in folds if fold.name not in windows]
    groups = [[fold for fold in group if fold in folds] for group in driven]
    topics = sorted({topic for fold in folds for topic in fold.topics})
    plan = Plan(
        settings.bootstrap,
        lambda: log.connect_codec(settings, tasks),
        what_if.offsets_until(settings.bootstrap, topics, to_offset),
        keep=until if until else None,
        checkpoints=None if from_zero else settings.home / "checkpoints",
        save_after=CHECKPOINT_EVENTS,
        say=lambda line: typer.echo(line, err=True),
    )
    with progress_bar("replay", quiet=as_json) as on_progress:
        found = rebuild_all(plan, groups, jobs, on_progress)
        runs = [run for task in watched for run in _windows(plan, task, to_offset, on_progress)]
    rows = [{"fold": f.name, "sha256": found.fingerprint(f.name)} for f in folds]
    rows += [{"fold": name, "sha256": fingerprint(run.state)} for name, run in runs]
    events = found.events + sum(run.events for _, run in runs)
    if dump:
        states = {f.name: plain(found.states[f.name]) for f in folds}
        states |= {name: plain(run.state) for name, run in runs}
        dump.write_text(json.dumps(states, indent=1, default=str), "utf-8")
    if as_json:
        for row in rows:
            typer.echo(json.dumps({**row, "events": events}))
        return
    for row in rows:
        typer.echo(f"{row['sha256']}  {row['fold']}")
    restored = f", {found.restored:,} of them in a checkpoint" if found.restored else ""
    typer.echo(f"{events:,} events folded{restored}")


@dataclasses.dataclass(frozen=True)
class _Named:
    """The input windows of a task, as one of the folds to choose from."""

    name: str


def _windows(
    plan: Plan, task: Task, to_offset: int | None, on_progress: Progress
) -> list[tuple[str, WindowPartition]]:
    """The input windows of each partition of a task, by column."""
    from schemas.catalogue import predictions_topic
    from streams.references import References
    from streams.replay import Until
    from streams.window_hashes import fold_name
    from streams.window_replay import replay_windows

    codec = plan.connect()
    references = References(plan.bootstrap, codec)
    references.refresh()
    to = what_if.offsets_until(plan.bootstrap, [predictions_topic(task.name)], to_offset)
    until = plan.keep if isinstance(plan.keep, Until) else Until()
    runs = replay_windows(
        plan.bootstrap, codec, task, to, references.by_version, on_progress, until=until
    )
    return [(fold_name(task.name, partition), run) for partition, run in sorted(runs.items())]


def _verify(names: list[str], as_json: bool) -> None:
    from driftlog import instance, verify
    from streams import log
    from streams.device import use_device

    settings = instance.settings()
    use_device(settings, say=False)
    tasks = instance.tasks(settings)
    codec = log.connect_codec(settings, tasks)
    folds = _chosen(verify.all_folds(settings, tasks), names)
    with progress_bar("replay", quiet=as_json) as on_progress:
        checks = verify.check_folds(settings, codec, folds, on_progress)
        if not names:
            checks += verify.check_windows(settings, codec, tasks, on_progress)
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
