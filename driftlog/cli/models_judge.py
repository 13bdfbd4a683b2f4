"""`driftlog models evaluate` and `gates`: how good a version is, and what other gates would have said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from driftlog.cli.errors import CliError
from driftlog.cli.opened import OpenedRegistry, lines, open_registry
from driftlog.cli.options import Json, OneVersion

if TYPE_CHECKING:
    from streams.task import Task


def evaluate(
    version: OneVersion,
    by: Annotated[
        list[str] | None,
        typer.Option("--by", help="A category to look into; may be repeated.", metavar="FEATURE"),
    ] = None,
    as_json: Json = False,
) -> None:
    """A version on the golden rows, which train nobody: intervals, calibration, slices, fairness."""
    from driftlog.cli import evaluation_text
    from driftlog.counterfactual import load_version
    from models.artifacts import ArtifactRefused, ArtifactStore
    from models.evaluation import evaluate as evaluated
    from models.evaluation import held_out
    from models.snapshot_file import from_parquet
    from streams.task import Category

    opened = open_registry()
    known = opened.version(version)
    task = opened.task(known.task)
    categories = [f.name for f in task.features if isinstance(f, Category)]
    for name in by or ():
        if name not in categories:
            raise CliError(
                f"--by {name}: no category of {task.name}; it has {', '.join(categories)}"
            )
    store = ArtifactStore(opened.settings.artifacts)
    taken = opened.state.golden_sets.get(task.name, [])[-1:] + _newest_snapshot(opened, task)
    try:
        scorer = load_version(opened.settings, opened.state, known.version)
        sets = [from_parquet(task, store.read(t["path"], t["snapshot"])) for t in taken]
    except ArtifactRefused as error:
        raise CliError(f"{version} cannot be evaluated: {error}") from error
    rows = held_out(task, sets)
    if rows is None:
        raise CliError(f"{task.name} has no golden rows yet: the first training sets them aside")
    data = {"model_version": version, "task": task.name, **evaluated(task, scorer, rows, by or ())}
    if as_json:
        lines([data])
    else:
        evaluation_text.show(data)


def gates(
    task: Annotated[str, typer.Argument(help="e.g. flights", metavar="TASK")],
    policy: Annotated[
        list[str] | None,
        typer.Option("--policy", help="e.g. gate.rule=gain; may be repeated.", metavar="GATE.X=Y"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Judge all past promotions again under another gate policy, from the evidence in the log."""
    from driftlog.cli import gates_text
    from driftlog.policy import PolicyError, with_policy
    from models.rejudge import rejudge

    opened = open_registry()
    known = opened.task(task)
    try:
        changed, differs = with_policy(known, policy or [])
    except PolicyError as error:
        raise CliError(str(error)) from error
    other = [name for name in differs if not name.startswith("gate.")]
    if other:
        raise CliError(f"{other[0]} is no gate: `driftlog replay --policy` tries any policy")
    judged = list(rejudge(opened.state, known.name, changed.gate))
    if as_json:
        lines(map(gates_text.row, judged))
    elif judged:
        gates_text.print_table(judged, differs)
    else:
        typer.echo(f"no promotion of {known.name} was measured yet")


def _newest_snapshot(opened: OpenedRegistry, task: Task) -> list[dict[str, Any]]:
    """SnapshotTaken of the newest training set of `task`; empty before the first."""
    found = [
        dict(data)
        for request in opened.state.requests.values()
        for type_, data in request.steps.values()
        if type_ == "SnapshotTaken" and data["purpose"] == "training" and data["task"] == task.name
    ]
    return sorted(found, key=lambda data: int(data["to_time"]))[-1:]
