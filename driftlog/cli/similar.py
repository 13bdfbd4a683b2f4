"""`driftlog similar`: the logged predictions nearest to one of them, and what became of those."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from driftlog.cli.errors import CliError
from driftlog.cli.progress import progress_bar

if TYPE_CHECKING:
    from consumers.retrieval.predictions import Similar, SimilarPredictions
    from infra.settings import Settings
    from streams.replay import Until
    from streams.task import Task


WIDTH = 110
"""Characters at least: an id that is cut is of no use, a line that wraps is."""


def similar(
    task: Annotated[str, typer.Argument(help="Name of a task that is up.")],
    prediction_id: Annotated[str, typer.Argument(help="The id that its answer had.")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many to show.")] = 10,
    by: Annotated[
        str | None,
        typer.Option(
            "--by", help="An embedding of the task's drift policy. Default: all features."
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option("--to", help="Only what had happened by this event time (ISO 8601)."),
    ] = None,
    known_at: Annotated[
        str | None,
        typer.Option("--known-at", help="Only what had been recorded by this time of the clock."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device", help="auto, cpu, cuda, emulator. Default: DRIFTLOG_DEVICE, or auto."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Find the logged predictions whose features lie nearest to one prediction's, with their outcomes.

    Numbers are compared in standard deviations, categories as equal or not, texts not at all; nearness is the
    cosine of the deviations from the mean. Exact, and the same on every device.
    """
    from driftlog import instance
    from driftlog.cli.replay import parse_time
    from streams.device import use_device
    from streams.replay import Until

    settings = instance.settings()
    if device is not None:
        settings = _on(settings, device)
    known = {one.name: one for one in instance.tasks(settings)}
    if task not in known:
        raise CliError(f"name one of the tasks that are up: {', '.join(known) or 'none is'}")
    chosen = known[task]
    if by is not None and by not in chosen.drift.embeddings:
        there = ", ".join(chosen.drift.embeddings) or "none"
        raise CliError(f"task {task} has no embedding {by!r}; it has {there}")
    if by is None and set(chosen.kinds.values()) == {"text"}:
        raise CliError(f"task {task} has free text alone: no number or category to be near by")
    until = Until(
        None if to is None else parse_time(to), None if known_at is None else parse_time(known_at)
    )
    use_device(settings, say=False)
    found = _read(settings, chosen, until, by, as_json)
    _show(found, prediction_id, k, as_json)


def _on(settings: Settings, device: str) -> Settings:
    from infra.settings import DEVICES

    if device not in DEVICES:
        raise CliError(f"--device {device}: one of {', '.join(DEVICES)}")
    return dataclasses.replace(settings, device=device)


def _read(
    settings: Settings, task: Task, until: Until, by: str | None, as_json: bool
) -> SimilarPredictions:
    from consumers.retrieval.predictions import PredictionFold, SimilarPredictions
    from streams import log, replay

    fold = PredictionFold(task)
    codec = log.connect_codec(settings, [task])
    with progress_bar("reading", quiet=as_json) as on_progress:
        projector = replay.rebuild(
            *(settings.bootstrap, codec, [fold]),
            keep=until if until else None,
            on_progress=on_progress,
        )
    return SimilarPredictions(task, projector.states[fold.name], by)


def _show(found: SimilarPredictions, prediction_id: str, k: int, as_json: bool) -> None:
    import kernels
    from consumers.retrieval.predictions import UnknownPrediction

    before = kernels.used().get("topk", {})
    try:
        hits = found.to(prediction_id, k)
    except UnknownPrediction as error:
        raise CliError(str(error.args[0])) from error
    after = kernels.used().get("topk", {})
    ran_on = ", ".join(on for on, calls in after.items() if calls > before.get(on, 0))
    if as_json:
        for hit in hits:
            typer.echo(json.dumps({**_plain(hit), "device": ran_on}))
        return
    from rich.console import Console
    from rich.table import Table

    asked = found.of(prediction_id)
    table = Table(header_style="bold", show_edge=False, pad_edge=False)
    for name in ("prediction", "time", "cosine", "score", "label", "model"):
        right = name in ("cosine", "score", "label")
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    table.add_row(*_cells(asked), style="bold", end_section=True)
    for hit in hits:
        table.add_row(*_cells(hit))
    console = Console(highlight=False)
    console.width = max(console.width, WIDTH)
    console.print(table)
    labels = [hit.label for hit in hits if hit.label is not None]
    share = f"{sum(labels)} of {len(labels)} known labels are 1" if labels else "no label is known"
    console.print(
        f"[dim]{len(found):,} predictions of {found.dimensions} dimensions, compared on {ran_on};"
        f" {share}[/dim]"
    )


def _plain(hit: Similar) -> dict[str, Any]:
    return {
        "prediction_id": hit.hit.key,
        "event_time": hit.hit.time,
        "cosine": round(hit.hit.cosine, 9),
        "score": hit.answer.score,
        "label": hit.label,
        "model_version": hit.answer.model_version,
    }


def _cells(hit: Similar) -> list[str]:
    from driftlog.words import moment

    label = "" if hit.label is None else str(hit.label)
    cosine, score = f"{hit.hit.cosine:.4f}", f"{hit.answer.score:.4f}"
    return [hit.hit.key, moment(hit.hit.time), cosine, score, label, hit.answer.model_version]
