"""`driftlog features`: what a task's features are, and were at any moment, and whether serving knew them."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from driftlog.cli.errors import CliError
from driftlog.cli.opened import lines
from driftlog.cli.options import Json, OneTask

if TYPE_CHECKING:
    from infra.settings import Settings
    from models.feature_store import Skew
    from models.history import History
    from streams.task import Feature, Task

features_app = typer.Typer(
    help="The feature store: definitions, values of any moment, skew, Feast.", no_args_is_help=True
)

Since = Annotated[
    str | None, typer.Option("--from", help="Event time, inclusive. Default: the first prediction.")
]
Until = Annotated[
    str | None, typer.Option("--to", help="Event time, exclusive. Default: after the last one.")
]


@features_app.command("list")
def list_(task: OneTask = None, as_json: Json = False) -> None:
    """Each feature and its definition, which training, serving and replay share."""
    chosen = _task(task)
    rows = [{"feature": f.name, "definition": definition(f), "doc": f.doc} for f in chosen.features]
    if as_json:
        lines(rows)
    else:
        _table(rows, ("feature", "definition", "doc"))


@features_app.command()
def get(
    given: Annotated[
        list[str] | None,
        typer.Argument(help="Given features, e.g. carrier=UA origin=JFK.", metavar="NAME=VALUE..."),
    ] = None,
    task: OneTask = None,
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            help="Event time, out of the history. Default: as of the newest event, from the online store.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """The vector that a request has now, or would have had at a moment of the past."""
    from driftlog.cli.replay import parse_time

    chosen = _task(task)
    instance = _given(chosen, given or [])
    if at is not None:
        from models.feature_store import vector_at

        with _history() as history:
            vector = vector_at(history, chosen, instance, parse_time(at))
    else:
        vector = _online(chosen, instance)
    if as_json:
        lines([vector])
    else:
        _table([{"feature": name, "value": _shown(vector[name])} for name in vector])


@features_app.command()
def check(
    task: OneTask = None, since: Since = None, until: Until = None, as_json: Json = False
) -> None:
    """Compute every feature of every logged prediction anew and compare: is there training-serving skew?

    A difference means that serving did not know yet what the log holds for that moment: a label or an
    observation that was recorded late, or an online store that was away. Status 1 if there is any.
    """
    from driftlog.cli.progress import progress_bar
    from models.feature_store import computed, skew

    chosen = _task(task)
    features = computed(chosen)
    found: list[Skew] = []
    with _history() as history, progress_bar("comparing", quiet=as_json) as on_progress:
        span = _span(history, chosen, since, until)
        for done, feature in enumerate(features):
            on_progress(done, len(features))
            found.append(skew(history, chosen, feature, span))
        on_progress(len(features), len(features))
    if as_json:
        lines([dataclasses.asdict(each) for each in found])
    elif found:
        _table([_skew_row(each) for each in found])
    else:
        typer.echo(f"all features of {chosen.name} are given with the request: nothing can differ")
    skewed = [each.feature for each in found if not each.passed]
    if skewed:
        raise CliError(f"served otherwise than computed: {', '.join(skewed)}")


@features_app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Where the Feast repository goes.", metavar="DIR")],
    task: OneTask = None,
    since: Since = None,
    until: Until = None,
    as_json: Json = False,
) -> None:
    """Write a Feast repository: definitions and Parquet files, for `feast apply` and `feast materialize`."""
    from models.feast_repo import View, write_repo
    from models.feature_changes import TooMuch

    chosen = _task(task)
    rows: list[dict[str, Any]] = []

    def on_view(view: View, count: int) -> None:
        names = ", ".join(feature.name for feature in view.features)
        rows.append({"view": view.name, "rows": count, "features": names})

    with _history() as history:
        span = _span(history, chosen, since, until)
        try:
            write_repo(history, chosen, folder, span, on_view)
        except TooMuch as error:
            raise CliError(str(error)) from error
    if as_json:
        lines(rows)
        return
    _table(rows)
    typer.echo(f"a Feast repository: cd {folder} && feast apply")


def definition(feature: Feature) -> str:
    """One line."""
    from streams.task import Observed, Rate

    if isinstance(feature, Rate):
        by = f" by {' and '.join(feature.by)}" if feature.by else ""
        return f"share of positive labels in the last {feature.hours} h{by}"
    if isinstance(feature, Observed):
        return f"newest {feature.value} of the {feature.by}, at most {feature.max_age_hours} h old"
    return f"given with the request ({'number' if type(feature).__name__ == 'Numeric' else 'text'})"


def _history() -> closing[History]:
    """The history while it is needed."""
    from models.history import History

    return closing(History(_settings().clickhouse))


def _settings() -> Settings:
    from driftlog import instance

    return instance.settings()


def _task(name: str | None) -> Task:
    from driftlog import instance

    known = {task.name: task for task in instance.tasks(_settings())}
    if name is None and len(known) == 1:
        return next(iter(known.values()))
    if name not in known:
        there = ", ".join(known) or "none is"
        raise CliError(f"name one of the tasks that are up with --task: {there}")
    return known[name]


def _given(task: Task, words: list[str]) -> dict[str, Any]:
    """The given features out of NAME=VALUE words; those that nobody named are missing."""
    values: dict[str, Any] = dict.fromkeys(task.given)
    for word in words:
        name, found, text = word.partition("=")
        if not found or name not in values:
            raise CliError(f"{word!r}: write NAME=VALUE with one of {', '.join(task.given)}")
        try:
            values[name] = text if task.vector[name] == "string" else float(text)
        except ValueError:
            raise CliError(f"{name} is a number, not {text!r}") from None
    return values


def _online(task: Task, instance: dict[str, Any]) -> dict[str, Any]:
    from streams.features import assemble
    from streams.online import OnlineStore

    store = OnlineStore(_settings().redis, [task])
    newest = store.folded_to(task.name)
    if newest is None:
        raise CliError(
            "the online store is not filled yet: `driftlog status` says whether the worker is up"
        )
    return assemble(task, instance, newest, store.content(task.name).get)


def _span(history: History, task: Task, since: str | None, until: str | None) -> tuple[int, int]:
    """[from, to) in ms; without limits all predictions there are."""
    from driftlog.cli.replay import parse_time
    from infra.clickhouse import table_of
    from schemas.catalogue import predictions_topic

    ends = "toUnixTimestamp64Milli(min(event_time)) AS first, toUnixTimestamp64Milli(max(event_time)) AS last"
    sql = f"SELECT count() AS n, {ends} FROM {table_of(predictions_topic(task.name))}"  # noqa: S608
    (row,) = history.query(sql).to_pylist()
    if not row["n"]:
        raise CliError(f"the history holds no prediction of {task.name} yet")
    first = row["first"] if since is None else parse_time(since)
    return first, row["last"] + 1 if until is None else parse_time(until)


def _skew_row(found: Skew) -> dict[str, Any]:
    equal = "all" if found.passed else f"{found.equal:,}"
    return {
        "feature": found.feature,
        "predictions": f"{found.rows:,}",
        "equal": equal,
        "largest difference": "" if found.passed else f"{found.largest:.3g}",
        "e.g.": found.example or "",
    }


def _shown(value: object) -> str:
    if value is None:
        return "missing"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _table(rows: list[dict[str, Any]], columns: tuple[str, ...] = ()) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(header_style="bold", show_edge=False, pad_edge=False)
    for name in columns or tuple(rows[0]):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(str(row[name]) for name in columns or row))
    Console(highlight=False).print(table)
