"""`driftlog models plots` and `compress`: pictures and smaller variants, made from a version's files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from driftlog.cli.errors import CliError
from driftlog.cli.opened import lines, open_registry
from driftlog.cli.options import Json, OneVersion


def plots(
    version: OneVersion,
    to: Annotated[
        Path | None, typer.Option("--to", help="Folder. Default: plots/ beside the artifacts.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw a version's loss curve and, of a CNN, what its convolutions see; print where the PNGs are."""
    from driftlog.model_files import draw
    from models.artifacts import ArtifactRefused, ArtifactStore

    opened = open_registry()
    known = opened.version(version)
    folder = to or opened.settings.artifacts / "plots"
    store = ArtifactStore(opened.settings.artifacts)
    try:
        written, missing = draw(store, opened.state, opened.task(known.task), known, folder)
    except ArtifactRefused as error:
        raise CliError(f"the files of {version} cannot be used: {error}") from error
    if as_json:
        lines([{"pictures": [str(path) for path in written], "missing": missing}])
    else:
        for path in written:
            typer.echo(path)
        for reason in missing:
            typer.echo(f"no picture of {reason}", err=True)
    if not written:
        raise CliError(f"there is nothing to draw of {version}")


def compress(
    version: OneVersion,
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
    opened = open_registry()
    known = opened.version(version)
    task, store = opened.task(known.task), ArtifactStore(opened.settings.artifacts)
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
        lines(rows)
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
        *(store, task, parent, made, strength, opened.event_time(task))
    )
    name = event.data["model_version"]
    if name in opened.state.versions:
        raise CliError(f"{name} is registered already: `driftlog models show {name}`")
    opened.append(event)
    if not as_json:
        typer.echo(
            f"{name} is registered: `driftlog models promote {name} --reason ...` lets it answer"
        )
