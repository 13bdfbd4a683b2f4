"""`driftlog models`: which version answers and why; promote, roll back, ask for a new one."""

from __future__ import annotations

import getpass
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from driftlog.cli.errors import CliError
from driftlog.cli.models_again import reproduce
from driftlog.cli.models_export import export

if TYPE_CHECKING:
    from infra.settings import Settings
    from models.registry import Decision, RegistryState, Version
    from schemas.codec import Codec
    from schemas.event import Event
    from streams.fold import Fold
    from streams.rollout_state import TaskRollouts
    from streams.task import Task

models_app = typer.Typer(
    help="What was trained, which version answers and why; change it.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(help="e.g. flights-3", metavar="VERSION")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
OneTask = Annotated[
    str | None, typer.Option("--task", help="Needed only where there are several tasks.")
]
Reason = Annotated[str, typer.Option("--reason", help="Why: it goes into the log with your name.")]


@dataclass(frozen=True, slots=True)
class _Open:
    """The registry as the log has it now, and what is needed to add to it."""

    settings: Settings
    tasks: dict[str, Task]
    codec: Codec
    state: RegistryState
    rollouts: dict[str, TaskRollouts]


@models_app.command("list")
def list_(task: OneTask = None, as_json: Json = False) -> None:
    """Every registered version, with its numbers and what was decided about it."""
    from driftlog.cli import models_text, rollout_text
    from models.registry import versions

    opened = _open()
    if task is not None:
        _task(opened, task)
    rows = [models_text.summary(opened.state, version) for version in versions(opened.state, task)]
    on_their_way = rollout_text.by_version(opened.rollouts)
    rows = [{**row, "rollout": on_their_way.get(row["model_version"])} for row in rows]
    if as_json:
        _lines(rows)
    elif rows:
        models_text.print_table(rows)
    else:
        typer.echo("no version is registered yet: the trainer begins with <task>-0")


@models_app.command()
def show(
    version: Name,
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

    opened = _open()
    lineage = models_text.lineage(opened.state, _version(opened, version))
    if graph is not None:
        models_graph.show(lineage, graph)
    elif as_json:
        _lines([lineage])
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
    opened = _open()
    names = [_task(opened, task).name] if task else sorted(opened.tasks)
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
        _lines(known)
    else:
        typer.echo("\n\n".join(map(models_text.explanation_text, known)))


models_app.command()(reproduce)
models_app.command()(export)


@models_app.command()
def evaluate(
    version: Name,
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

    opened = _open()
    known = _version(opened, version)
    task = _task(opened, known.task)
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
        _lines([data])
    else:
        evaluation_text.show(data)


def _newest_snapshot(opened: _Open, task: Task) -> list[dict[str, Any]]:
    """SnapshotTaken of the newest training set of `task`; empty before the first."""
    found = [
        dict(data)
        for request in opened.state.requests.values()
        for type_, data in request.steps.values()
        if type_ == "SnapshotTaken" and data["purpose"] == "training" and data["task"] == task.name
    ]
    return sorted(found, key=lambda data: int(data["to_time"]))[-1:]


@models_app.command()
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

    opened = _open()
    known = _task(opened, task)
    try:
        changed, differs = with_policy(known, policy or [])
    except PolicyError as error:
        raise CliError(str(error)) from error
    other = [name for name in differs if not name.startswith("gate.")]
    if other:
        raise CliError(f"{other[0]} is no gate: `driftlog replay --policy` tries any policy")
    judged = list(rejudge(opened.state, known.name, changed.gate))
    if as_json:
        _lines(map(gates_text.row, judged))
    elif judged:
        gates_text.print_table(judged, differs)
    else:
        typer.echo(f"no promotion of {known.name} was measured yet")


@models_app.command()
def promote(version: Name, reason: Reason, as_json: Json = False) -> None:
    """Make a registered version the champion, gates or not: serving answers with it within a second."""
    opened = _open()
    known = _version(opened, version)
    _install(opened, known, "ModelPromoted", reason, as_json)


@models_app.command()
def rollback(reason: Reason, task: OneTask = None, as_json: Json = False) -> None:
    """Let the version answer again that answered before the present one."""
    from models.registry import before

    opened = _open()
    name = _task(opened, task).name
    previous = before(opened.state, name)
    if previous is None:
        raise CliError(f"no version of {name} answered before the present one")
    _install(opened, _version(opened, previous), "ModelRolledBack", reason, as_json)


@models_app.command()
def retrain(
    reason: Reason,
    task: OneTask = None,
    until: Annotated[
        str | None,
        typer.Option("--until", help="Use labels before this event time. Default: all known."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the trainer's decision.")] = False,
    refresh_golden: Annotated[
        bool,
        typer.Option("--refresh-golden", help="Cut the golden set anew, from this training set."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Ask the trainer for a new model; its gates decide whether it replaces the champion."""
    from driftlog.cli.replay import parse_time
    from models.golden import REFRESH
    from schemas.catalogue import RETRAIN_REQUESTS
    from schemas.event import derive

    opened = _open()
    chosen = _task(opened, task)
    now = _event_time(opened, chosen)
    labels_until = parse_time(until) if until else now
    event = derive(
        RETRAIN_REQUESTS,
        "RetrainRequested",
        *(chosen.name, "manual", time.time_ns()),
        time=now,
        caused_by=None,
        task=chosen.name,
        trigger=REFRESH if refresh_golden else "manual",
        reason=_given(reason),
        actor=_user(),
        labels_until=labels_until,
        evidence={},
    )
    _append(opened, event)
    if not as_json:
        typer.echo(f"asked for a new model of {chosen.name}: request {event.id}")
    if wait:
        _await_outcome(opened, event.id, as_json)
    elif as_json:
        _lines([dict(event.data)])


@models_app.command()
def plots(
    version: Name,
    to: Annotated[
        Path | None, typer.Option("--to", help="Folder. Default: plots/ beside the artifacts.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw a version's loss curve and, of a CNN, what its convolutions see; print where the PNGs are."""
    from driftlog.model_files import draw
    from models.artifacts import ArtifactRefused, ArtifactStore

    opened = _open()
    known = _version(opened, version)
    folder = to or opened.settings.artifacts / "plots"
    store = ArtifactStore(opened.settings.artifacts)
    try:
        written, missing = draw(store, opened.state, _task(opened, known.task), known, folder)
    except ArtifactRefused as error:
        raise CliError(f"the files of {version} cannot be used: {error}") from error
    if as_json:
        _lines([{"pictures": [str(path) for path in written], "missing": missing}])
    else:
        for path in written:
            typer.echo(path)
        for reason in missing:
            typer.echo(f"no picture of {reason}", err=True)
    if not written:
        raise CliError(f"there is nothing to draw of {version}")


@models_app.command()
def compress(
    version: Name,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", help="int8, prune, low_rank or distil. Default: all."),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(
            help="Share of units to prune, of energy or of size to keep.", min=0.01, max=1
        ),
    ] = None,
    register: Annotated[
        bool, typer.Option("--register", help="Make the variant (of one --method) a version.")
    ] = False,
    max_loss_ratio: Annotated[
        float, typer.Option(help="Of its log-loss to the original's.")
    ] = 1.02,
    max_difference: Annotated[float, typer.Option(help="Mean distance of its scores.")] = 0.02,
    as_json: Json = False,
) -> None:
    """Size, latency and quality of smaller variants of a version, and whether the gate lets them pass.

    Judged on rows of its snapshot that trained nobody. A registered variant answers once it is promoted.
    """
    from driftlog import model_files
    from driftlog.cli import models_text
    from models.artifacts import ArtifactRefused, ArtifactStore
    from models.compression.gate import CompressionPolicy
    from models.compression.variants import METHODS, table
    from schemas.catalogue import MODEL_VERSIONS
    from streams import log

    for name in method or ():
        if name not in METHODS:
            raise CliError(f"there is no method {name!r}; there are {', '.join(METHODS)}")
    if register and len(method or ()) != 1:
        raise CliError("which variant? Say one --method with --register")
    opened = _open()
    known = _version(opened, version)
    task, store = _task(opened, known.task), ArtifactStore(opened.settings.artifacts)
    policy = CompressionPolicy(max_loss_ratio, max_difference)
    try:
        original = model_files.original(store, opened.state, task, known)
    except ArtifactRefused as error:
        raise CliError(f"the files of {version} cannot be used: {error}") from error
    found = table(
        *(original, method or METHODS, policy, strength),
        on_method=lambda name: None if as_json else typer.echo(f"making {name} ...", err=True),
    )
    rows = model_files.compression_rows(found)
    if as_json:
        _lines(rows)
    else:
        models_text.print_compression(rows, len(original.unseen))
    if not register:
        return
    made = found[-1]
    if made.reason:
        raise CliError(f"{made.method} of {version} is refused: {made.reason}")
    events = log.read(opened.settings.bootstrap, opened.codec, [MODEL_VERSIONS])
    [parent] = [e for e in events if e.id == known.event_id][:1]
    event = model_files.register_compressed(
        *(store, task, parent, made, strength, _event_time(opened, task))
    )
    name = event.data["model_version"]
    if name in opened.state.versions:
        raise CliError(f"{name} is registered already: `driftlog models show {name}`")
    _append(opened, event)
    if not as_json:
        typer.echo(
            f"{name} is registered: `driftlog models promote {name} --reason ...` lets it answer"
        )


def _await_outcome(opened: _Open, request_id: str, as_json: bool) -> None:
    """Until the trainer has decided; raises CliError if the training failed."""
    from driftlog.words import describe
    from models.registry import Registry
    from schemas.event import Event
    from streams import log

    registry = Registry()
    state = registry.initial()
    for batch in log.follow(opened.settings.bootstrap, opened.codec, registry.topics, True):
        registry.apply(state, [item for item in batch if isinstance(item, Event)])
        request = state.requests.get(request_id)
        if request is None or request.ended is None:
            continue
        type_, data = request.ended
        if type_ == "TrainingFailed":
            raise CliError(f"no model came out of it: {data['reason']}")
        if as_json:
            _lines([{"type": type_, **data}])
        else:
            typer.echo(f"{type_}: {describe(Event('', type_, data))}")
        return


def _install(opened: _Open, version: Version, type_: str, reason: str, as_json: bool) -> None:
    """Append the decision that `version` answers from now on."""
    from driftlog.counterfactual import load_version
    from models.artifacts import ArtifactRefused
    from models.registry import champion
    from schemas.catalogue import DEPLOYMENTS
    from schemas.event import derive

    name = version.version
    now = champion(opened.state, version.task)
    if now is not None and now.version == name:
        raise CliError(f"{name} answers already, by {now.actor}'s decision: {now.reason}")
    try:
        load_version(opened.settings, opened.state, name)
    except ArtifactRefused as error:
        raise CliError(f"the artifact of {name} is not what was registered: {error}") from error
    event = derive(
        DEPLOYMENTS,
        type_,
        *(version.task, name, now.event_id if now else ""),
        time=_event_time(opened, opened.tasks.get(version.task), now),
        caused_by=version.event_id,
        task=version.task,
        model_version=name,
        previous_version=now.version if now else None,
        reason=_given(reason),
        actor=_user(),
        request_id=None,
        gates=[],
    )
    _append(opened, event)
    if as_json:
        _lines([{"type": type_, **event.data}])
    else:
        typer.echo(f"{name} replaces {now.version if now else 'nothing'}")


def _open() -> _Open:
    from driftlog import instance
    from driftlog.cli.replay import progress_bar
    from models.registry import Registry
    from streams import log
    from streams import replay as engine
    from streams.rollout_state import Rollouts

    settings = instance.settings()
    tasks = instance.tasks(settings)
    codec = log.connect_codec(settings, tasks)
    registry, rollouts = Registry(), Rollouts()
    folds: list[Fold] = [registry, rollouts]
    with progress_bar("registry", quiet=False) as on_progress:
        projector = engine.rebuild(settings.bootstrap, codec, folds, on_progress=on_progress)
    state, rolled = projector.states[registry.name], projector.states[rollouts.name]
    return _Open(settings, {task.name: task for task in tasks}, codec, state, rolled)


def _append(opened: _Open, event: Event) -> None:
    from streams.log import LogWriter

    LogWriter(opened.settings.bootstrap, opened.codec).append([event])


def _task(opened: _Open, name: str | None) -> Task:
    names = ", ".join(sorted(opened.tasks)) or "none"
    if name is None and len(opened.tasks) == 1:
        return next(iter(opened.tasks.values()))
    if name is None and opened.tasks:
        raise CliError(f"which task? There are {names}: say --task NAME")
    if name not in opened.tasks:
        raise CliError(f"no task {name or 'at all'}; this instance has: {names}")
    return opened.tasks[name]


def _version(opened: _Open, name: str) -> Version:
    version = opened.state.versions.get(name)
    if version is None:
        names = ", ".join(sorted(opened.state.versions)) or "none yet"
        raise CliError(f"no model version {name!r}; there are: {names}")
    return version


def _event_time(opened: _Open, task: Task | None, after: Decision | None = None) -> int:
    """Event time of what happens now, see `models.event_time`; not before the decision `after`."""
    from models.event_time import event_time_now, newest_predictions

    now_ms = int(time.time() * 1000)
    if task is None:
        return now_ms
    newest = newest_predictions(opened.settings.bootstrap, opened.codec, task)
    now = event_time_now(newest, now_ms)
    first = after is not None and opened.state.decisions[after.task][0] == after
    return now if after is None or first else max(now, after.since)


def _given(reason: str) -> str:
    if not reason.strip():
        raise CliError("--reason is empty: whoever reads the log will want to know why")
    return reason.strip()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        return "unknown user"


def _lines(rows: Iterable[dict[str, Any]]) -> None:
    for row in rows:
        typer.echo(json.dumps(row, default=str))
