"""`driftlog replay --model`, `--policy` and `--diff`: what would have been, and how two answers differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from itertools import islice
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import typer

from driftlog.cli.errors import CliError
from driftlog.cli.progress import progress_bar

if TYPE_CHECKING:
    from driftlog.counterfactual import Counterfactual
    from driftlog.policy_replay import Compared, PolicyReplay
    from driftlog.replay_diff import Difference
    from driftlog.replay_log import Replay
    from infra.settings import Settings
    from schemas.codec import Codec
    from streams.log import Offsets
    from streams.replay import Until
    from streams.task import Task

SHOWN_DIFFERENCES = 20
SHOWN_TEXT = 60
"""Characters of a value that differs."""
PIPED_WIDTH = 200
"""Characters of a table that no terminal shows: reasons are long."""
OTHER_COLUMNS = 82
"""Characters beside the reason."""


def model_replay(
    version: str,
    only: Sequence[str],
    limit: int | None,
    until: Until,
    to_offset: int | None,
    write: bool,
    as_json: bool,
) -> None:
    """Score logged predictions with another version, show both sides, and write them if asked."""
    from driftlog import counterfactual, instance
    from driftlog.replay_log import Replay, ReplayWriter, rescored
    from models.registry import Registry
    from models.scorer import ArtifactRefused
    from streams import log, replay
    from streams.device import use_device

    settings = instance.settings()
    tasks = instance.tasks(settings)
    codec = log.connect_codec(settings, tasks)
    use_device(settings, say=False)
    registry = replay.rebuild(settings.bootstrap, codec, [Registry()]).states["registry"]
    known = registry.versions.get(version)
    task = next((task for task in tasks if known and task.name == known.task), None)
    if known is None or task is None:
        names = ", ".join(sorted(registry.versions)) or "none yet"
        raise CliError(f"no model version {version!r}; there are: {names}")
    try:
        scorer = counterfactual.load_version(settings, registry, version)
    except ArtifactRefused as error:
        raise CliError(f"the artifact of {version} is not what was registered: {error}") from error
    offsets = offsets_until(settings.bootstrap, counterfactual.topics_of(task), to_offset)
    asked = {"model": version, "artifact": known.artifact}
    asked |= {"only": ",".join(sorted(only))} if only else {}
    asked |= {} if limit is None else {"limit": str(limit)}
    described = Replay("model", task.name, asked, offsets, until)
    writer = ReplayWriter(settings, codec, described) if write else None

    def on_scored(scored: list[tuple[Any, float]]) -> None:
        if writer:
            writer.add(rescored(described, event, version, score) for event, score in scored)

    with progress_bar("scoring", quiet=as_json) as on_progress:
        result = counterfactual.rescore(
            *(settings, codec, task, version, scorer, only, limit, on_progress),
            to=offsets,
            keep=until,
            on_scored=on_scored,
        )
        if writer:
            writer.finish(result.events, result.summary())
    _show_counterfactual(result, as_json)
    if writer:
        _say_written(described, writer.written, as_json)


def policy_replay(
    words: Sequence[str],
    task_name: str | None,
    until: Until,
    to_offset: int | None,
    write: bool,
    as_json: bool,
) -> None:
    """Let another policy decide over the log, show its decisions beside the logged, write them if asked."""
    from driftlog import instance, policy
    from driftlog.policy_replay import reactors_of, replay_policy, topics_of
    from driftlog.replay_log import Replay, ReplayWriter, decided
    from streams import log

    settings = instance.settings()
    tasks = instance.tasks(settings)
    task = _task_named(tasks, task_name)
    try:
        changed, differs = policy.with_policy(task, words)
    except policy.PolicyError as error:
        raise CliError(str(error)) from error
    codec = log.connect_codec(settings, tasks)
    again = policy.needs_sketches(differs)
    reactors, instead = reactors_of(changed, settings.partitions, again)
    topics = topics_of(reactors, instead)
    offsets = offsets_until(settings.bootstrap, topics, to_offset)
    with progress_bar("replay", quiet=as_json) as on_progress:
        references = (
            _references(settings, codec, changed) if policy.needs_references(differs) else None
        )
        result = replay_policy(
            log.read(settings.bootstrap, codec, topics, to=offsets, on_progress=on_progress),
            *(changed, reactors, instead, references),
            keep=until,
        )
    described = Replay("policy", task.name, differs, offsets, until)
    if write:
        writer = ReplayWriter(settings, codec, described)
        writer.add(decided(described, compared) for compared in result.decisions)
        writer.finish(result.events, result.summary())
    _show_policy(result, differs, as_json)
    if write:
        _say_written(described, writer.written, as_json)


def diff(names: tuple[str, str], as_json: bool) -> None:
    """Show on what two written replays do not agree; the command fails if there is anything."""
    from driftlog import instance
    from driftlog.replay_diff import NoSuchReplay, differences, find_replays
    from streams import log

    settings = instance.settings()
    codec = log.connect_codec(settings, instance.tasks(settings))
    try:
        with progress_bar("reading", quiet=as_json) as on_progress:
            read = partial(log.read, settings.bootstrap, codec, on_progress=on_progress)
            one, other = find_replays(read, names)
    except NoSuchReplay as error:
        raise CliError(str(error)) from error
    found = differences(one, other)
    count = 0
    for each in found if as_json else islice(found, SHOWN_DIFFERENCES):
        count += 1
        typer.echo(json.dumps(each.to_json()) if as_json else _difference_line(each))
    more = sum(1 for _ in found)
    sizes = f"{len(one.findings):,} and {len(other.findings):,} findings"
    if count + more:
        told = f", the first {count} above" if more else ", see above"
        raise CliError(f"{count + more:,} differences in {sizes}{told}")
    if not as_json:
        typer.echo(f"no difference: {sizes} agree")


def offsets_until(bootstrap: str, topics: Sequence[str], count: int | None) -> Offsets:
    """The ends of these topics as of now, or the first `count` records of each partition."""
    from streams import replay

    ends = replay.ends(bootstrap, topics)
    return ends if count is None else {key: min(end, count) for key, end in ends.items()}


def _task_named(tasks: Sequence[Task], name: str | None) -> Task:
    known = {task.name: task for task in tasks}
    if name is None and len(tasks) == 1:
        return tasks[0]
    if name is None or name not in known:
        raise CliError(f"name one of the tasks with --task: {', '.join(known) or 'none is up'}")
    return known[name]


def _references(settings: Settings, codec: Codec, task: Task) -> dict[str, list[dict[str, Any]]]:
    from driftlog.references import references_again
    from models.artifacts import ArtifactRefused, ArtifactStore
    from streams import log

    read = partial(log.read, settings.bootstrap, codec)
    try:
        return references_again(read, ArtifactStore(settings.artifacts), task)
    except ArtifactRefused as error:
        raise CliError(f"a reference cannot be cut anew: {error}") from error


def _say_written(replay: Replay, written: int, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"replay_id": replay.id, "written": written}))
        return
    where = f"WHERE replay_id = '{replay.id}'"
    typer.echo(f"{written:,} findings written as replay {replay.id[:8]}; to look at them:")
    typer.echo(f'driftlog query "SELECT * FROM counterfactuals FINAL {where}"')  # noqa: S608 - to be read


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


def _show_policy(result: PolicyReplay, differs: dict[str, str], as_json: bool) -> None:
    if as_json:
        for compared in result.decisions:
            typer.echo(json.dumps(_decision_json(compared)))
        typer.echo(json.dumps({"policy": differs, "events": result.events, **result.summary()}))
        return
    from rich.console import Console
    from rich.table import Table

    from driftlog.words import moment

    asked = ", ".join(f"{name}={value}" for name, value in differs.items()) or "the task's policy"
    console = Console()
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    table = Table(title=f"decisions under {asked}", show_edge=False, header_style="bold")
    for name in ("when (UTC)", "decision", "about", "in the log", "replayed", "why"):
        table.add_column(name, no_wrap=True)
    for compared in result.decisions:
        either = compared.either
        table.add_row(
            moment(either.time),
            either.type,
            either.subject,
            "yes" if compared.then else "-",
            "yes" if compared.now else "-",
            shorten(either.reason, max(20, console.width - OTHER_COLUMNS), placeholder=" ..."),
            style=None if compared.then and compared.now else "bold",
        )
    console.print(table)
    numbers = {name: int(value) for name, value in result.summary().items()}
    typer.echo(
        f"{numbers['both']} decisions both then and now, {numbers['only_then']} only then,"
        f" {numbers['only_now']} only now; drifted columns: {numbers['drifted_then']:,} of"
        f" {numbers['drift_scores_then']:,} scores then, {numbers['drifted_now']:,} of"
        f" {numbers['drift_scores_now']:,} now"
    )
    if numbers["only_then"] or numbers["only_now"]:
        typer.echo(
            "the models are those of the log: what another one would have led to is not told"
        )


def _decision_json(compared: Compared) -> dict[str, Any]:
    either = compared.either
    return {
        "event_time": either.time,
        "decision": either.type,
        "subject": either.subject,
        "verdict": compared.verdict,
        "reason": compared.now.reason if compared.now else None,
        "logged_reason": compared.then.reason if compared.then else None,
        "decision_id": either.id,
        "at": str(either.at) if either.at else None,
    }


def _difference_line(found: Difference) -> str:
    from driftlog.words import moment

    fields = "; ".join(
        f"{name} {shorten(str(a), SHOWN_TEXT)} | {shorten(str(b), SHOWN_TEXT)}"
        for name, (a, b) in found.fields.items()
        if not name.startswith("logged_") or name == "logged_score"
    )
    if not fields:
        fields = f"only in the {'first' if found.one else 'second'}"
    what, about = found.what
    return f"{moment(found.event.time)}  {found.place}  {what} {about}: {fields}"
