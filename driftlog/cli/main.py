"""`driftlog`: every verb is a thin shell around a function that a program could call as well."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from driftlog import __version__
from driftlog.cli import (
    backfill,
    blast,
    chaos,
    demo,
    feed,
    personal,
    produce,
    query,
    similar,
    simulate,
    system,
    watch,
    why,
)
from driftlog.cli.corrections import corrections_app
from driftlog.cli.errors import CliError
from driftlog.cli.features import features_app
from driftlog.cli.keys import keys_app
from driftlog.cli.models import models_app
from driftlog.cli.quality import quality_app
from driftlog.cli.replay import replay
from driftlog.cli.rollout import rollout_app
from driftlog.cli.schemas import schemas_app
from driftlog.cli.snapshots import snapshots_app
from driftlog.cli.task import task_app

app = typer.Typer(
    name="driftlog",
    help="The log is the system: produce, watch, replay, query, and break it on purpose.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"driftlog {__version__}")
        raise typer.Exit


@app.callback()
def common(
    home: Annotated[
        Path | None,
        typer.Option("--home", help="Data folder (DRIFTLOG_HOME). Default: .driftlog here."),
    ] = None,
    port_offset: Annotated[
        int | None,
        typer.Option("--port-offset", help="Added to every port, for a second instance."),
    ] = None,
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    if home is not None:
        os.environ["DRIFTLOG_HOME"] = str(home)
    if port_offset is not None:
        os.environ["DRIFTLOG_PORT_OFFSET"] = str(port_offset)


_SYSTEM, _LOG, _LOOP = "The system", "The log", "Models and tasks"
app.command("demo", rich_help_panel=_SYSTEM)(demo.demo)
app.command("up", rich_help_panel=_SYSTEM)(system.up)
app.command("down", rich_help_panel=_SYSTEM)(system.down)
app.command("status", rich_help_panel=_SYSTEM)(system.status)
app.command("restart", rich_help_panel=_SYSTEM)(system.restart)
app.add_typer(chaos.chaos_app, name="chaos", rich_help_panel=_SYSTEM)
app.add_typer(keys_app, name="keys", rich_help_panel=_SYSTEM)
app.command("produce", rich_help_panel=_LOG)(produce.produce)
app.command("feed", rich_help_panel=_LOG)(feed.feed)
app.command("watch", rich_help_panel=_LOG)(watch.watch)
app.command("replay", rich_help_panel=_LOG)(replay)
app.command("backfill", rich_help_panel=_LOG)(backfill.backfill)
app.command("query", rich_help_panel=_LOG)(query.query)
app.command("similar", rich_help_panel=_LOG)(similar.similar)
app.command("blast", rich_help_panel=_LOG)(blast.blast)
app.command("why", rich_help_panel=_LOG)(why.why)
app.command("reveal", rich_help_panel=_LOG)(personal.reveal)
app.command("erase", rich_help_panel=_LOG)(personal.erase)
app.add_typer(schemas_app, name="schemas", rich_help_panel=_LOG)
app.command("simulate", rich_help_panel=_LOOP)(simulate.simulate)
app.add_typer(models_app, name="models", rich_help_panel=_LOOP)
app.add_typer(features_app, name="features", rich_help_panel=_LOOP)
app.add_typer(quality_app, name="quality", rich_help_panel=_LOOP)
app.add_typer(snapshots_app, name="snapshots", rich_help_panel=_LOOP)
app.add_typer(rollout_app, name="rollout", rich_help_panel=_LOOP)
app.add_typer(corrections_app, name="corrections", rich_help_panel=_LOOP)
app.add_typer(task_app, name="task", rich_help_panel=_LOOP)


def main() -> None:
    """Run the command line; every failure that a user can meet is one line and status 1."""
    # As Ctrl-C: what was started is stopped.
    # Not by raising SIGINT: a process started in a script's background ignores that one.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `driftlog watch | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if os.environ.get("DRIFTLOG_DEBUG") or not _expected(error):
            raise
        sys.stderr.write(f"driftlog: {_one_line(error)}\n")
        sys.exit(1)


def _expected(error: Exception) -> bool:
    """What a user can meet; anything else is a defect of ours, and its traceback helps."""
    from confluent_kafka import KafkaException
    from redis.exceptions import RedisError

    from driftlog.event_index import NoSuchEvent
    from infra.errors import InfraError
    from infra.settings import SettingsError
    from models.history import HistoryUnavailable
    from models.personal.errors import PersonalDataError
    from schemas.errors import SchemaError
    from streams.log import LogUnavailable
    from streams.task import TaskError

    asked = (CliError, SettingsError, TaskError, NoSuchEvent)
    away = (InfraError, SchemaError, LogUnavailable, HistoryUnavailable, PersonalDataError)
    return isinstance(error, (*asked, *away, KafkaException, RedisError, OSError))


def _one_line(error: Exception) -> str:
    from redis.exceptions import RedisError

    from streams.log import LogUnavailable

    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, LogUnavailable | RedisError):
        text += "; is it up? `driftlog status` says, `driftlog up` starts it"
    return text
