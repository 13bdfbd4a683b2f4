"""`driftlog blast`: what a bad event, source, model or snapshot touched, and backwards."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from driftlog.cli.errors import CliError

if TYPE_CHECKING:
    from driftlog.blast import Blast, Radius
    from models.history import History
    from schemas.event import Event
    from streams.task import Task

NAMED = 8
"""Names of each kind that are shown; --json has up to --most."""
_OFFSETS = re.compile(r"(\d+)-(\d+)")
_KINDS = {
    "PredictionMade": "prediction",
    "LabelObserved": "label",
    "FeatureObserved": "observation",
    "SnapshotTaken": "snapshot",
    "ModelPromoted": "decision",
    "PromotionRejected": "decision",
    "ModelRolledBack": "decision",
}
_NAMED_MANY = ("snapshot", "version", "decision")


def blast(
    event_id: Annotated[
        str | None, typer.Argument(help="A bad event: its id, or the beginning of it.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="A bad version, e.g. flights-3.")
    ] = None,
    snapshot: Annotated[
        str | None, typer.Option("--snapshot", help="A bad snapshot: its SHA-256 or the beginning.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            "--where",
            help="A bad source: SQL over the columns of --topic, e.g. \"features_origin = 'JFK'\".",
        ),
    ] = None,
    topic: Annotated[
        str | None, typer.Option("--topic", help="<task>.predictions, .labels or .features.")
    ] = None,
    offsets: Annotated[
        str | None, typer.Option("--offsets", help="FIRST-LAST of --topic, both included.")
    ] = None,
    partition: Annotated[int | None, typer.Option("--partition", help="Of --offsets only.")] = None,
    back: Annotated[
        bool, typer.Option("--back", help="The other way: what all of it was touched by.")
    ] = False,
    task: Annotated[
        str | None, typer.Option("--task", help="Needed only where there are several tasks.")
    ] = None,
    most: Annotated[
        int, typer.Option("--most", min=0, help="Names of a kind in --json.")
    ] = 1_000_000,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object, with the names.")
    ] = False,
) -> None:
    """Every window, snapshot, version, answer and decision that something bad touched.

    What follows from the log alone is told as exact; what went through rolling rates and observations is an
    upper bound, because the log does not say what had reached the online store at that moment.
    """
    from driftlog.blast import Blast
    from driftlog.blast_history import facts_from
    from driftlog.cli.why import open_index
    from streams import log

    settings, tasks = _instance()
    with closing(open_index()) as index:
        bad = index.resolve(event_id) if event_id else None
        chosen = _task(tasks, task or _task_of(bad, topic, model, tasks))
        codec = log.connect_codec(settings, list(tasks.values()))
        facts = facts_from(index.history, partial(log.read, settings.bootstrap, codec), chosen)
        found = Blast(facts)
        begin = _begin(found, index.history, bad, model, snapshot, where, topic, offsets, partition)
        radius = found.radius(begin, back)
    if as_json:
        sources = {kind: len(names) for kind, names in begin.items()}
        typer.echo(json.dumps({"back": back, "from": sources, **radius.to_json(most)}))
    else:
        _show(found, radius, begin, back)


def _instance() -> tuple[Any, dict[str, Task]]:
    from driftlog import instance

    settings = instance.settings()
    return settings, {task.name: task for task in instance.tasks(settings)}


def _task_of(
    bad: Event | None, topic: str | None, model: str | None, tasks: Mapping[str, Task]
) -> str | None:
    if bad is not None:
        return str(bad.data.get("task") or bad.topic.rpartition(".")[0])
    if topic is not None:
        return topic.rpartition(".")[0]
    return model.rpartition("-")[0] if model else next(iter(tasks)) if len(tasks) == 1 else None


def _task(tasks: Mapping[str, Task], name: str | None) -> Task:
    if name is None or name not in tasks:
        names = ", ".join(sorted(tasks)) or "none is up"
        raise CliError(f"no task {name or 'is named'}: say --task NAME; there are: {names}")
    return tasks[name]


def _begin(
    found: Blast,
    history: History,
    bad: Event | None,
    model: str | None,
    snapshot: str | None,
    where: str | None,
    topic: str | None,
    offsets: str | None,
    partition: int | None,
) -> dict[str, list[Any]]:
    """Where it begins: kind -> names."""
    if sum(given is not None for given in (bad, model, snapshot, topic)) != 1:
        raise CliError(
            "name one thing: EVENT_ID, --model, --snapshot, or --topic with --where or --offsets"
        )
    if bad is not None:
        return _of_event(found, bad)
    if model is not None:
        if model not in found.names["version"]:
            names = ", ".join(found.names["version"]) or "none"
            raise CliError(f"no version {model!r}; there are: {names}")
        return {"version": [model]}
    if snapshot is not None:
        hits = [
            (taken["event_id"], taken["purpose"])
            for taken in found.facts.snapshots
            if taken["snapshot"].startswith(snapshot)
        ]
        if not hits:
            raise CliError(
                f"no snapshot of {found.facts.task.name} has a hash that begins with {snapshot!r}"
            )
        training = [id_ for id_, purpose in hits if purpose == "training"]
        return {"snapshot": [id_ for id_, _ in hits], "training rows": training}
    return _of_source(found, history, str(topic), where, offsets, partition)


def _of_event(found: Blast, bad: Event) -> dict[str, list[Any]]:
    data = bad.data
    if bad.type == "ModelRegistered":
        return {"version": [data["model_version"]]}
    if bad.type == "SnapshotTaken":
        also = {"training rows": [bad.id]} if data["purpose"] == "training" else {}
        return {"snapshot": [bad.id], **also}
    kind = _KINDS.get(bad.type)
    if kind is None and "window_start" in data:
        outcomes = bad.type == "PerformanceMeasured" or data.get("kind") == "outcomes"
        kind = "performance window" if outcomes else "inputs window"
        return {kind: [(data["model_version"], data["window_start"])]}
    if kind is None:
        raise CliError(
            f"{bad.type} is no place where data goes in or through: name a prediction, label, observation,"
            " snapshot, version or window; `driftlog why` follows everything else"
        )
    if bad.id not in set(found.names[kind]):
        raise CliError(f"event {bad.id} is not in the history yet: try again in a moment")
    return {kind: [bad.id]}


def _of_source(
    found: Blast,
    history: History,
    topic: str,
    where: str | None,
    offsets: str | None,
    partition: int | None,
) -> dict[str, list[Any]]:
    from consumers.sql_guard import RefusedQuery, check
    from infra.clickhouse import table_of

    kinds = {"predictions": "prediction", "labels": "label", "features": "observation"}
    kind = kinds.get(topic.rpartition(".")[2])
    if kind is None:
        raise CliError(
            f"--topic {topic}: name <task>.predictions, <task>.labels or <task>.features"
        )
    conditions = [f"({where})"] if where else []
    if offsets:
        match = _OFFSETS.fullmatch(offsets)
        if not match:
            raise CliError(f"--offsets {offsets}: write FIRST-LAST, e.g. 100-199")
        conditions.append(f"_offset BETWEEN {match[1]} AND {match[2]}")
        if partition is not None:
            conditions.append(f"_partition = {partition}")
    if not conditions:
        raise CliError(f"--topic {topic}: say which of its events, with --where or --offsets")
    sql = f"SELECT event_id FROM {table_of(topic)} FINAL WHERE {' AND '.join(conditions)}"  # noqa: S608
    try:
        ids = history.query(check(sql).sql).column("event_id").to_pylist()
    except RefusedQuery as error:
        raise CliError(f"--where: {error}") from error
    if not ids:
        raise CliError(f"no event of {topic} is meant by {' and '.join(conditions)}")
    return {kind: list(set(ids) & set(found.names[kind]))}


def _show(found: Blast, radius: Radius, begin: Mapping[str, list[Any]], back: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from driftlog.touching import AT_MOST, EXACTLY

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 120
    sources = ", ".join(
        f"{len(names):,} {kind}{'s' if len(names) != 1 else ''}"
        for kind, names in begin.items()
        if kind != "training rows"
    )
    table = Table(header_style="bold", show_edge=False, pad_edge=False)
    table.add_column("touched by" if back else "touches")
    for name in ("exactly", "at most, beyond that", "of all"):
        table.add_column(name, justify="right")
    table.add_column("which", overflow="fold")
    for kind in radius.touched:
        exact, bound = radius.names(kind, EXACTLY), radius.names(kind, AT_MOST)
        if not exact and not bound:
            continue
        which = _which(found, kind, [*exact, *bound])
        table.add_row(
            kind, f"{len(exact):,}", f"{len(bound):,}", f"{len(found.names[kind]):,}", which
        )
    console.print(f"{'back from' if back else 'from'} {sources} of {found.facts.task.name}")
    console.print(table)


def _which(found: Blast, kind: str, names: list[Any]) -> str:
    from driftlog.words import moment

    if kind.endswith("window"):
        starts = [start for _, start in names]
        versions = sorted({version for version, _ in names}, key=_natural)
        first, last = moment(min(starts))[:10], moment(max(starts))[:10]
        return f"{first} to {last}, of {', '.join(versions[:NAMED])}"
    if kind not in _NAMED_MANY:
        return str(names[0]) if len(names) == 1 else ""
    facts = found.facts
    words = {d["event_id"]: f"{d['model_version']}" for d in facts.decisions}
    words |= {t["event_id"]: f"{t['snapshot'][:8]} ({t['purpose']})" for t in facts.snapshots}
    shown = [words.get(name, str(name)) for name in names[:NAMED]]
    more = [f"{len(names) - NAMED} more"] if len(names) > NAMED else []
    return ", ".join(shown + more)


def _natural(version: str) -> tuple[str, int]:
    name, _, number = version.rpartition("-")
    return name, int(number) if number.isdecimal() else -1
