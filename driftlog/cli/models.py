"""`driftlog models`: what was trained, which version answers and why; all its verbs in their order."""

from __future__ import annotations

from typing import Annotated

import typer

from driftlog.cli.errors import CliError
from driftlog.cli.models_again import reproduce
from driftlog.cli.models_change import promote, retrain, rollback
from driftlog.cli.models_export import export
from driftlog.cli.models_files import compress, plots
from driftlog.cli.models_judge import evaluate, gates
from driftlog.cli.opened import lines, open_registry
from driftlog.cli.options import Json, OneTask, OneVersion

models_app = typer.Typer(
    help="What was trained, which version answers and why; change it.", no_args_is_help=True
)


@models_app.command("list")
def list_(task: OneTask = None, as_json: Json = False) -> None:
    """Every registered version, with its numbers and what was decided about it."""
    from driftlog.cli import models_text, rollout_text
    from models.registry import versions

    opened = open_registry()
    if task is not None:
        opened.task(task)
    rows = [models_text.summary(opened.state, version) for version in versions(opened.state, task)]
    on_their_way = rollout_text.by_version(opened.rollouts)
    rows = [{**row, "rollout": on_their_way.get(row["model_version"])} for row in rows]
    if as_json:
        lines(rows)
    elif rows:
        models_text.print_table(rows)
    else:
        typer.echo("no version is registered yet: the trainer begins with <task>-0")


@models_app.command()
def show(
    version: OneVersion,
    graph: Annotated[
        str | None,
        typer.Option(
            "--graph",
            metavar="FILE",
            help="As a graph: .svg, .png, .mmd (Mermaid) or .dot; '-' draws a tree here.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Where a version comes from: request, snapshot, training, metrics, gates, decisions, every event."""
    from driftlog.cli import models_graph, models_text

    opened = open_registry()
    lineage = models_text.lineage(opened.state, opened.version(version))
    if graph is not None:
        models_graph.show(lineage, graph)
    elif as_json:
        lines([lineage])
    else:
        typer.echo(models_text.lineage_text(lineage))


@models_app.command()
def at(
    moment: Annotated[
        str, typer.Argument(help="Event time, e.g. 2013-02-01T12:00, or now.", metavar="TIME")
    ],
    task: OneTask = None,
    as_json: Json = False,
) -> None:
    """Which version answered at a moment of event time, who made it so, and on which numbers."""
    from driftlog.cli import models_text, rollout_text
    from driftlog.cli.replay import parse_time
    from models.registry import explain

    at_ms = None if moment == "now" else parse_time(moment)
    opened = open_registry()
    names = [opened.task(task).name] if task else sorted(opened.tasks)
    found = [(name, explain(opened.state, name, at_ms)) for name in names]
    known = [
        {
            **explanation.to_json(),
            "rollout": rollout_text.at(opened.rollouts.get(name), explanation.decision, at_ms),
        }
        for name, explanation in found
        if explanation
    ]
    if not known:
        raise CliError(f"no version of {', '.join(names) or 'any task'} has been promoted yet")
    if as_json:
        lines(known)
    else:
        typer.echo("\n\n".join(map(models_text.explanation_text, known)))


for verb in (reproduce, export, evaluate, gates, promote, rollback, retrain, plots, compress):
    models_app.command()(verb)
