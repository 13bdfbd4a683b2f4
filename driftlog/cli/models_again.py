"""`driftlog models reproduce V`: train again from the lineage, and compare."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from driftlog.cli.errors import CliError
from driftlog.cli.opened import open_registry
from driftlog.cli.options import OneVersion

if TYPE_CHECKING:
    from driftlog.reproduce import Reproduced


def reproduce(
    version: OneVersion,
    tolerance: Annotated[
        float,
        typer.Option(
            "--tolerance", min=0, help="Largest difference of a score that still counts as equal."
        ),
    ] = 1e-6,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Train a version again from what the log says of it; fails if another model comes out.

    Says whether the file is equal to the byte, else the largest difference of a score on the snapshot's
    rows, and in what the environment of now differs from that of then.
    """
    from driftlog.reproduce import NotReproducible
    from driftlog.reproduce import reproduce as again
    from models.artifacts import ArtifactStore
    from models.history import History
    from models.recipes import CannotTrain

    opened = open_registry()
    known = opened.version(version)
    task = opened.task(known.task)
    store = ArtifactStore(opened.settings.artifacts)
    with closing(History(opened.settings.clickhouse)) as history:
        try:
            found = again(task, opened.state, known, store, history, tolerance)
        except (NotReproducible, CannotTrain) as error:
            raise CliError(f"{version} cannot be trained again: {error}") from error
    typer.echo(json.dumps(found.to_json()) if as_json else _text(found))
    if not found.within:
        raise CliError(
            f"{version} came out otherwise: scores differ by up to {found.largest_difference:.3g},"
            f" {found.tolerance:g} is allowed"
        )


def _text(found: Reproduced) -> str:
    if found.identical:
        lines = [f"{found.version} trained again: equal to the byte ({found.again[:12]})"]
    else:
        files = f"another file ({found.again[:12]}, registered {found.artifact[:12]})"
        allowed = f"{found.largest_difference:.3g} ({found.tolerance:g} is allowed)"
        rows = f"on the snapshot's {found.rows:,} rows scores differ by up to {allowed}"
        lines = [f"{found.version} trained again: {files}; {rows}"]
    if found.recut:
        lines.append(
            "  snapshot     its file was gone: cut again from the history, equal to the byte"
        )
    for name, (then, now) in found.metrics.items():
        lines.append(f"  metric       {name} {then:.6g} then, {now:.6g} now")
    if found.verdict and found.decided and found.verdict != found.decided:
        lines.append(f"  verdict      then: {found.decided}; now: {found.verdict}")
    for name, (was, is_) in found.differences.items():
        lines.append(f"  environment  {name} {_short(was)} then, {_short(is_)} now")
    if not found.differences:
        lines.append("  environment  the same: code and libraries")
    return "\n".join(lines)


def _short(value: str | None) -> str:
    return "absent" if value is None else value[:12]
