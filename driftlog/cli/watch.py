"""`driftlog watch`: see events as they come, as lines or as a live picture of what reacts to what."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from driftlog.cli.errors import CliError

if TYPE_CHECKING:
    from schemas.event import Event
    from streams.log import BadRecord


def watch(
    topic: Annotated[
        list[str] | None,
        typer.Argument(help="Topics to tail. Default: the live view, or all if not on a terminal."),
    ] = None,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="From the start of the log instead of its end.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="Stop after so many events.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=0, help="Stop after so long.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Tail events as readable lines, or watch live what reacts to what. Ctrl-C ends it."""
    from driftlog import instance
    from streams.log import all_topics, connect_codec

    settings = instance.settings()
    tasks = instance.tasks(settings)
    names = [known.name for known in all_topics(settings, tasks)]
    for name in topic or []:
        if name.removesuffix(".dlq") not in names:
            raise CliError(f"no topic {name!r}; there are: {', '.join(names)}")
    deadline = None if seconds is None else time.monotonic() + seconds
    if not topic and not as_json and limit is None and sys.stdout.isatty():
        _live(deadline)
        return
    codec = connect_codec(settings, tasks)
    _tail(settings.bootstrap, codec, topic or names, from_start, limit, deadline, as_json)


def _tail(
    bootstrap: str,
    codec: Any,
    topics: list[str],
    from_start: bool,
    limit: int | None,
    deadline: float | None,
    as_json: bool,
) -> None:
    from streams.log import follow

    left = limit
    for items in follow(bootstrap, codec, topics, from_start):
        for item in items:
            sys.stdout.write((_json(item) if as_json else _line(item)) + "\n")
            left = None if left is None else left - 1
            if left == 0:
                return
        sys.stdout.flush()
        if deadline is not None and time.monotonic() > deadline:
            return


def _live(deadline: float | None) -> None:
    from rich.console import Console
    from rich.live import Live

    from driftlog import instance
    from driftlog.live import panel
    from driftlog.watching import Watcher

    settings = instance.settings()
    console = Console()
    with (
        Watcher(settings, instance.tasks(settings)) as watcher,
        Live(console=console, screen=True, auto_refresh=False) as screen,
    ):
        while deadline is None or time.monotonic() < deadline:
            height = max(4, console.height - 16 - len(watcher.view.counts))
            screen.update(panel(watcher.view, height), refresh=True)
            time.sleep(0.25)


def _json(item: Event | BadRecord) -> str:
    from schemas.event import Event

    if isinstance(item, Event):
        place = {"topic": item.topic, "type": item.type}
        if item.at:
            place |= {"partition": item.at.partition, "offset": item.at.offset}  # type: ignore[dict-item]
        return json.dumps({**place, **item.data}, default=repr)
    return json.dumps({"topic": item.at.topic, "at": str(item.at), "undecodable": str(item.error)})


def _line(item: Event | BadRecord) -> str:
    from driftlog.words import line
    from schemas.event import Event

    return line(item) if isinstance(item, Event) else f"{item.at}  UNDECODABLE  {item.error}"
