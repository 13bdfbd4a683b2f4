"""`driftlog models export V`: the lineage for MLflow and OpenLineage."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from driftlog.cli.errors import CliError
from driftlog.cli.opened import open_registry
from driftlog.cli.options import OneVersion


def export(
    version: OneVersion,
    mlflow: Annotated[
        str | None,
        typer.Option(
            "--mlflow", help="Folder of a file store (made if absent), or a tracking URI."
        ),
    ] = None,
    openlineage: Annotated[
        Path | None,
        typer.Option("--openlineage", help="File for run events, one JSON object a line."),
    ] = None,
) -> None:
    """Write a version and where it comes from in the form that other tools read."""
    from driftlog.cli import models_text

    if mlflow is None and openlineage is None:
        raise CliError("say where to: --mlflow FOLDER, --openlineage FILE, or both")
    opened = open_registry()
    known = opened.version(version)
    lineage = models_text.lineage(opened.state, known)
    if openlineage is not None:
        brokers = opened.settings.bootstrap.split(",", maxsplit=1)[0]
        _openlineage(lineage, f"kafka://{brokers}", openlineage)
    if mlflow is not None:
        file = opened.settings.artifacts / known.path
        _mlflow(lineage, file, known.artifact, mlflow)


def _openlineage(lineage: dict[str, object], log: str, path: Path) -> None:
    from driftlog.lineage_export import NothingToExport, run_events, to_json

    try:
        events = run_events(lineage, log)
    except ImportError as error:
        raise CliError(
            "this needs OpenLineage's client: pip install 'driftlog[openlineage]'"
        ) from error
    except NothingToExport as error:
        raise CliError(f"{error}: OpenLineage has nothing to tell of it") from error
    path.write_text(to_json(events), "utf-8")
    typer.echo(f"{len(events)} run events written to {path}")


def _mlflow(lineage: dict[str, object], file: Path, sha256: str, target: str) -> None:
    from driftlog.mlflow_export import export as to_mlflow
    from models.artifacts import ArtifactRefused, read_verified

    uri = target
    if "://" not in target:
        uri = Path(target).absolute().as_uri()
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # else MLflow 3 refuses folders
    try:
        read_verified(file, sha256)
        found = to_mlflow(lineage, file, uri)
    except ArtifactRefused as error:
        raise CliError(f"the artifact is not what was registered: {error}") from error
    except ImportError as error:
        raise CliError("this needs MLflow 3 or newer: pip install 'driftlog[mlflow]'") from error
    was = "was there before" if found.again else "written"
    typer.echo(f"run {found.run_id} and version {found.version} of {found.model} {was}: {target}")
