"""`driftlog erase` and `driftlog reveal`: a person's key destroyed, and a prediction's personal part read."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from driftlog.cli.errors import CliError
from driftlog.cli.opened import choose, given, lines, user
from driftlog.cli.options import Json, OneTask

if TYPE_CHECKING:
    from driftlog.personal import Revealed
    from infra.settings import Settings
    from models.personal.keystore import KeyStore
    from schemas.codec import Codec
    from schemas.event import Event
    from streams.task import Task

Why = Annotated[
    str, typer.Option("--reason", help="Why: it goes into the log as it is, so name no person.")
]
Actor = Annotated[str | None, typer.Option("--actor", help="Who. Default: your user name.")]


def erase(
    subject: Annotated[
        str, typer.Argument(help="As requests name the person; '-' reads it from stdin.")
    ],
    reason: Why,
    task: OneTask = None,
    actor: Actor = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Destroy a person's key, so that nobody can read what the log says about them. There is no way back.

    The log gets a SubjectErased event with the pseudonym alone. Run it again after a crash: it goes on.
    """
    from models.personal.erasure import finish
    from models.personal.keystore import BEFORE, UNKNOWN

    who, why = actor or user(), given(reason)
    settings, tasks = _instance()
    chosen = choose(tasks, task)
    keys = _keys(settings, chosen)
    named = sys.stdin.readline().rstrip("\r\n") if subject == "-" else subject
    if not named:
        raise CliError("SUBJECT is empty: say whom, as requests name the person")
    if subject == "-" and not yes:
        raise CliError("stdin names the person and cannot answer a question: say --yes")
    if not yes:
        typer.confirm(f"Destroy the key of this person in task {chosen.name} for ever?", abort=True)
    with closing(keys):
        state = keys.destroy(chosen.name, named, _now_ms(), who, why)
        events = finish(keys, lambda event: _tell(settings, list(tasks.values()), event))
    if state == UNKNOWN:
        raise CliError(
            f"task {chosen.name} has no key for this subject: the log says nothing about it,"
            " or it was written otherwise"
        )
    if as_json:
        told = [{"event_id": event.id, "person": event.data["person"]} for event in events]
        lines([{"task": chosen.name, "state": state, "events": told}])
        return
    for event in events:
        typer.echo(f"erased: {event.data['person']} (SubjectErased {event.id})")
    if state == BEFORE:
        typer.echo("this person was erased before: there is no key to destroy")


def reveal(
    event_id: Annotated[str, typer.Argument(help="Of a prediction, or its beginning.")],
    reason: Why,
    actor: Actor = None,
    as_json: Json = False,
) -> None:
    """Decrypt what a prediction says about a person. It leaves a PersonalDataRevealed event."""
    from driftlog import personal
    from driftlog.cli.why import open_index
    from streams.log import LogWriter, connect_codec

    who, why = actor or user(), given(reason)
    settings, tasks = _instance()
    with closing(open_index()) as index:
        event = index.resolve(event_id)
    task = personal.task_of(event, tasks)
    codec = connect_codec(settings, list(tasks.values()))
    with closing(_keys(settings, task)) as keys:
        found = personal.read(keys, task, event, _erased(settings, codec))
    if not found.erased:
        said = personal.revealed(found, _now_ms(), who, why)
        LogWriter(settings.bootstrap, codec).append([said])
    if as_json:
        lines([found.to_json()])
        return
    for line in _told(found):
        typer.echo(line)


def _told(found: Revealed) -> list[str]:
    from driftlog.personal import ERASED

    shown = {name: ERASED if found.erased else text for name, text in found.fields.items()}
    return [f"{name}: {'' if text is None else text}" for name, text in shown.items()]


def _instance() -> tuple[Settings, dict[str, Task]]:
    from driftlog import instance

    settings = instance.settings()
    return settings, {task.name: task for task in instance.tasks(settings)}


def _keys(settings: Settings, task: Task) -> KeyStore:
    """The store of this machine, not opened yet; raises CliError if there can be nothing in it."""
    from models.personal.keystore import KeyStore

    if task.personal is None:
        raise CliError(f"task {task.name} declares nothing personal: its log is as it was written")
    if not settings.key_store.exists():
        raise CliError(
            f"there is no key store {settings.key_store}: serving makes it when it starts;"
            " run this where serving runs, with its DRIFTLOG_HOME"
        )
    return KeyStore(settings.key_store, settings.master_key, create=False)


def _tell(settings: Settings, tasks: list[Task], event: Event) -> None:
    """Append; a failure says that the key is gone all the same."""
    from confluent_kafka import KafkaException

    from schemas.errors import SchemaError
    from streams.log import LogUnavailable, LogWriter, connect_codec

    try:
        LogWriter(settings.bootstrap, connect_codec(settings, tasks)).append([event])
    except (SchemaError, LogUnavailable, KafkaException, OSError) as error:
        raise CliError(
            f"the key is destroyed, but the log does not have the event yet ({error}):"
            " do the same again when it is up"
        ) from error


def _erased(settings: Settings, codec: Codec) -> Any:
    """Whether the log says of a pseudonym that it was erased; read only if somebody asks."""
    from schemas.catalogue import PRIVACY
    from streams.log import read

    def is_erased(person: str) -> bool:
        events = read(settings.bootstrap, codec, [PRIVACY])
        return any(e.type == "SubjectErased" and e.data["person"] == person for e in events)

    return is_erased


def _now_ms() -> int:
    """Erasures happen by the clock of those who do them, whatever time a task's events are in."""
    return time.time_ns() // 1_000_000
