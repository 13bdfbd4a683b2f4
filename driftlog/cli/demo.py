"""`driftlog demo`: the main job, with a live view, and a summary that says what was shown."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from driftlog.cli.errors import CliError
from driftlog.cli.system import DEFAULT_TASK, DEMO_MARK

if TYPE_CHECKING:
    from rich.console import Console

    from driftlog.demo import Outcome, Say
    from driftlog.feeder import Tally
    from infra.settings import Settings
    from streams.task import Task


def demo(
    until: Annotated[str, typer.Option("--until", help="Event time to play up to.")] = "2013-02-14",
    kill_at: Annotated[
        str, typer.Option("--kill-at", help="Event time at which a broker is killed.")
    ] = "2013-01-29",
    speed: Annotated[
        float | None, typer.Option("--speed", help="Event seconds per second. Default: full speed.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the system up afterwards.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """The main job: months of real flights through the whole loop, a broker killed on the way, and proof."""
    from rich.console import Console

    from driftlog import instance
    from driftlog.cli.replay import parse_time
    from driftlog.demo import play, prove
    from driftlog.feeder import FeedFailed
    from infra.lifecycle import stop

    console = Console(stderr=as_json, highlight=False)
    if not console.is_terminal:
        console = Console(stderr=as_json, highlight=False, width=118)
    settings = instance.settings()
    files = [_task_file()]
    _start_afresh(settings)
    began = time.monotonic()
    seconds: dict[str, float] = {}
    try:
        console.rule("[bold]1[/] the system comes up", align="left")
        _bring_up(files)
        (task,) = instance.tasks(settings)
        seconds["start"] = time.monotonic() - began
        console.rule(
            f"[bold]2[/] flights until {until}, as fast as they can be served", align="left"
        )
        played = time.monotonic()
        say = _sayer(console, began)
        with _shown(console, settings, task) as on_step:
            tally, kill = play(
                settings, task, parse_time(until), parse_time(kill_at), speed, say, on_step
            )
            back = kill.join()
        seconds["stream"] = time.monotonic() - played
        console.rule("[bold]3[/] proof", align="left")
        proved = time.monotonic()
        outcome = prove(settings, task, tally, say)
        seconds["proof"] = time.monotonic() - proved
        outcome.checks.insert(0, back)
        outcome.broker_down_s = kill.down_s
        outcome.seconds = {**seconds, **outcome.seconds, "all": time.monotonic() - began}
    except FeedFailed as error:
        raise CliError(f"the demo's stream was cut off: {error}") from error
    finally:
        if not keep:
            stop(settings)
    if as_json:
        typer.echo(json.dumps(_plain(outcome), default=str))
    else:
        from driftlog.cli.summary import show

        show(console, settings, outcome, keep)
    if not outcome.passed:
        failed = ", ".join(check.name for check in outcome.checks if not check.passed)
        raise CliError(f"the demo did not show what it claims: {failed}")


def _task_file() -> Path:
    path = Path(DEFAULT_TASK)
    if path.exists():
        return path
    import importlib.util

    spec = importlib.util.find_spec("examples.flights")
    if spec is None or spec.origin is None:
        raise CliError(f"the demo needs {DEFAULT_TASK}: run it in driftlog's own folder")
    return Path(spec.origin)


def _start_afresh(settings: Settings) -> None:
    """An earlier demo's data go; anybody else's are left alone."""
    from infra.lifecycle import is_up

    other = f"choose another folder, e.g. driftlog --home {settings.home}-demo demo"
    if is_up(settings):
        raise CliError(f"driftlog is up in {settings.home}: `driftlog down` first, or {other}")
    mark = settings.home / DEMO_MARK
    if (settings.home / "kafka").exists() and not mark.exists():
        raise CliError(f"{settings.home} holds a log that is not the demo's: {other}")
    if mark.exists():
        shutil.rmtree(settings.home)
    settings.home.mkdir(parents=True, exist_ok=True)
    mark.write_text(json.dumps({"what": "made by `driftlog demo`, which starts afresh each time"}))


def _bring_up(files: list[Path]) -> None:
    from driftlog.cli.system import start_with_progress

    start_with_progress(files)


def _sayer(console: Console, began: float) -> Say:
    return lambda text: console.print(
        f"[dim]{time.monotonic() - began:6.1f} s[/]  {text}", soft_wrap=True
    )


@contextmanager
def _shown(console: Console, settings: Settings, task: Task) -> Iterator[Callable[[Tally], None]]:
    """The live view while the stream runs; a line every few seconds where nobody looks."""
    from rich.live import Live

    from driftlog.live import panel
    from driftlog.watching import Watcher
    from driftlog.words import moment

    looking = console.is_terminal
    told = time.monotonic()
    with (
        Watcher(settings, [task]) as watcher,
        Live(console=console, auto_refresh=False, transient=True)
        if looking
        else nullcontext() as live,
    ):
        view = watcher.view

        def on_step(tally: Tally) -> None:
            nonlocal told
            if not tally.event_time or time.monotonic() - told < (0.25 if live else 10.0):
                return
            told = time.monotonic()
            view.event_time = tally.event_time
            if live:
                live.update(
                    panel(view, max(4, console.height - 16 - len(view.counts))), refresh=True
                )
                return
            champion = ", ".join(view.champions.values()) or "none"
            console.print(
                f"          {moment(tally.event_time)}  {tally.asked:,} predictions,"
                f" {tally.labelled:,} labels, champion {champion}",
                soft_wrap=True,
            )

        yield on_step


def _plain(outcome: Outcome) -> dict[str, object]:
    plain = dataclasses.asdict(outcome)
    del plain["tally"]["answered_ids"], plain["tally"]["label_ids"]
    return {"passed": outcome.passed, **plain}
