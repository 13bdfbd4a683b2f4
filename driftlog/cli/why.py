"""`driftlog why EVENT_ID`: what led to an event, back to what came from outside."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

    from driftlog.event_index import EventIndex
    from driftlog.why import Cause

WIDTH = 160
"""Characters of a line that no terminal shows: reasons are long."""


def why(
    event_id: Annotated[
        str, typer.Argument(help="The id of any event, or its beginning if only one has it.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="The tree as one JSON object.")] = False,
) -> None:
    """Why an event is as it is: its causes back to the first, with the numbers that decisions saw.

    A decision leads over its training and snapshot to the request and the windows that voted for it; a
    prediction to its model, the decision that installed it and what its features rest on.
    """
    from driftlog import instance
    from driftlog.causes import Known
    from driftlog.why import why as explain

    tasks = {task.name: task for task in instance.tasks(instance.settings())}
    with closing(open_index()) as index:
        answer = explain(index.resolve(event_id), Known(index, tasks))
    if as_json:
        typer.echo(json.dumps(answer.to_json(), default=str))
    else:
        _show(answer)


def open_index() -> EventIndex:
    """The events of this instance; nothing is read yet."""
    from driftlog import instance
    from driftlog.event_index import EventIndex
    from models.history import History
    from streams import log

    settings = instance.settings()
    tasks = instance.tasks(settings)
    topics = log.all_topics(settings, tasks)
    codec = log.connect_codec(settings, tasks)
    return EventIndex(settings.bootstrap, codec, topics, History(settings.clickhouse))


def _show(answer: Cause) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    console.print(_tree(answer))
    outside = {c.event.id: c.event for c in answer.walk() if not c.event.data.get("caused_by")}
    kinds: dict[str, int] = {}
    for event in outside.values():
        kinds[event.type] = kinds.get(event.type, 0) + 1
    first = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    console.print(f"first causes, which nothing in the log led to: {first}", style="dim")


def _tree(cause: Cause) -> Tree:
    from rich.tree import Tree

    from driftlog.why import headline

    tree = Tree(_text(headline(cause), "bold"), guide_style="dim")
    _fill(tree, cause)
    return tree


def _fill(tree: Tree, cause: Cause, told: frozenset[str] = frozenset()) -> None:
    """`told`: what the events above have said, as a version does of its training: once is enough."""
    from driftlog.why import details, listed

    if cause.explained:
        lines = details(cause.event)
        for line in lines:
            if line not in told:
                tree.add(_text(line, "cyan"))
        told |= frozenset(lines)
    for role, words in cause.notes:
        tree.add(_text(f"{role}: {words}", "cyan"))
    for below, line in listed(cause.causes):
        branch = tree.add(_text(line, "" if below else "dim"))
        if below:
            _fill(branch, below, told)


def _text(line: str, style: str) -> Text:
    from rich.text import Text

    return Text(line, style=style)
