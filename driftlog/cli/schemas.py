"""`driftlog schemas`: what the registry holds, whether a change may be made, the page about all events."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from driftlog.cli.errors import CliError

if TYPE_CHECKING:
    from driftlog.schema_check import Verdict
    from schemas.catalogue import Topic
    from schemas.registry.client import RegistryClient

EVENTS_PAGE = Path("docs/events.md")

schemas_app = typer.Typer(
    help="List the registry's schemas; check a change before it is made; write docs/events.md.",
    no_args_is_help=True,
)

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


@schemas_app.command("list")
def list_(as_json: AsJson = False) -> None:
    """Show the subjects of the registry: versions, schema ids, compatibility level, event types."""
    with _registry() as registry:
        found = [_subject(registry, name) for name in registry.subjects()]
    if as_json:
        for row in found:
            typer.echo(json.dumps(row))
        return
    if not found:
        typer.echo("the registry holds no schema yet: `driftlog up` registers them")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(header_style="bold", show_edge=False, pad_edge=False)
    for title in ("subject", "versions", "ids", "compatibility", "events"):
        table.add_column(title, no_wrap=title == "subject")
    for row in found:
        numbers = [str(one["version"]) for one in row["versions"]]
        ids = [str(one["id"]) for one in row["versions"]]
        shown = (", ".join(part) for part in (numbers, ids))
        table.add_row(row["subject"], *shown, row["compatibility"], ", ".join(row["events"]))
    Console().print(table)


@schemas_app.command("check")
def check(
    file: Annotated[
        Path | None, typer.Argument(help="An Avro schema (.avsc). Default: all that driftlog uses.")
    ] = None,
    topic: Annotated[
        str | None,
        typer.Option(
            "--topic", "-t", help="The topic to check; FILE's default: where its type is."
        ),
    ] = None,
    task: Annotated[
        Path | None, typer.Option("--task", help="Check the topics of this task file.")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option("--against", help="Compare FILE with this older .avsc; needs no registry."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say whether schemas may follow those that events were written with; exits 1 if one may not."""
    from driftlog import schema_check

    if file is not None and task is not None and topic is None and against is None:
        raise CliError("FILE and --task do not go together without --topic")
    if against is not None:
        if file is None:
            raise CliError("--against needs the newer schema as FILE")
        verdicts = [schema_check.offline(str(file), read_schema(file), read_schema(against))]
    else:
        topics = _topics(task)
        if file is not None:
            topics = [_changed(topics, topic, file)]
        elif topic is not None:
            topics = [_named(topics, topic)]
        with _registry() as registry:
            verdicts = [schema_check.live(registry, one) for one in topics]
    _tell(verdicts, as_json)


@schemas_app.command("docs")
def docs(
    path: Annotated[
        Path, typer.Option("--path", "-p", help="The page to write.", show_default=True)
    ] = EVENTS_PAGE,
    as_json: AsJson = False,
) -> None:
    """Write the page about all topics, events and fields, from the schemas."""
    from schemas.markdown import events_page

    text = events_page()
    try:
        changed = not path.exists() or path.read_text("utf-8") != text
        if changed:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    except (OSError, ValueError) as error:
        raise CliError(f"{path} cannot be written: {error}") from error
    if as_json:
        typer.echo(json.dumps({"path": str(path), "changed": changed}))
    else:
        typer.echo(f"{path} {'written' if changed else 'is up to date'}")


def read_schema(file: Path) -> Any:
    """The JSON of an `.avsc` file; raises CliError."""
    from schemas.safety import UnsafeSchema, parse_text

    try:
        return parse_text(file.read_text("utf-8"))
    except OSError as error:
        raise CliError(f"{file} cannot be read: {error.strerror}") from error
    except (UnsafeSchema, UnicodeDecodeError) as error:
        raise CliError(f"{file}: {error}") from error


def _registry() -> RegistryClient:
    from driftlog import instance
    from schemas.registry.client import RegistryClient

    return RegistryClient(instance.settings().registry)


def _topics(task: Path | None) -> list[Topic]:
    from driftlog import instance
    from schemas.catalogue import system_topics
    from streams.task_file import load_task

    settings = instance.settings()
    if task is not None:
        return list(load_task(task).topics(settings.partitions))
    tasks = instance.tasks(settings)
    own = [topic for one in tasks for topic in one.topics(settings.partitions)]
    return [*system_topics(), *own]


def _named(topics: list[Topic], name: str) -> Topic:
    for topic in topics:
        if topic.name == name:
            return topic
    raise CliError(f"no topic {name!r}; there are {', '.join(topic.name for topic in topics)}")


def _changed(topics: list[Topic], name: str | None, file: Path) -> Topic:
    """The topic as it would be with the schema in `file`."""
    from driftlog.schema_check import with_schema

    schema = read_schema(file)
    if not isinstance(schema, dict) or not isinstance(schema.get("name"), str):
        raise CliError(f"{file}: the schema of an event is a record with a name")
    if name is not None:
        return with_schema(_named(topics, name), schema)
    kind = schema["name"].rpartition(".")[2]
    homes = [one for one in topics if any(known["name"] == kind for known in one.schemas)]
    if len(homes) != 1:
        many = "no topic carries" if not homes else "more than one topic carries"
        raise CliError(f"{file}: {many} {kind}; say which with --topic")
    return with_schema(homes[0], schema)


def _subject(registry: RegistryClient, name: str) -> dict[str, Any]:
    versions = registry.versions(name)
    newest = versions[-1]["schema"] if versions else []
    branches = newest if isinstance(newest, list) else [newest]
    return {
        "subject": name,
        "versions": [{"version": one["version"], "id": one["id"]} for one in versions],
        "compatibility": registry.level(name),
        "events": [one["name"] for one in branches if isinstance(one, dict) and "name" in one],
    }


def _tell(verdicts: list[Verdict], as_json: bool) -> None:
    refused = [verdict for verdict in verdicts if verdict.problems]
    if as_json:
        for verdict in verdicts:
            typer.echo(json.dumps(verdict.as_json()))
    else:
        for verdict in verdicts:
            typer.echo(f"{verdict.state:<10}  {verdict.subject}")
            for problem in verdict.problems:
                typer.echo(f"{'':<10}    {problem}")
    if refused:
        first = refused[0]
        more = f" (and {len(refused) - 1} more subjects)" if len(refused) > 1 else ""
        raise CliError(f"{first.subject}: {first.problems[0]}{more}")
