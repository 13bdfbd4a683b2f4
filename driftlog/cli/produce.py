"""`driftlog produce TOPIC`: JSON lines into the log, each validated and acknowledged."""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from driftlog.cli.errors import CliError

BATCH = 500


def produce(
    topic: Annotated[str, typer.Argument(help="e.g. flights.labels or driftlog.alerts")],
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Read from this file instead of stdin.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON summary.")] = False,
) -> None:
    """Write JSON lines as events: one object a line, its fields those of the topic's schema.

    event_id and event_time (ms or ISO 8601) are made up where they are missing; in a topic of several
    types "type" names the record. A bad line is told with its number and skipped; then the status is 1.
    """
    from driftlog import instance
    from schemas.errors import InvalidEvent
    from streams.log import LogWriter, all_topics, connect_codec

    settings = instance.settings()
    tasks = instance.tasks(settings)
    names = [known.name for known in all_topics(settings, tasks)]
    if topic not in names:
        raise CliError(f"no topic {topic!r}; there are: {', '.join(names)}")
    codec = connect_codec(settings, tasks)
    writer = LogWriter(settings.bootstrap, codec)
    acknowledged = bad = 0
    try:
        source = open(file, encoding="utf-8") if file else nullcontext(sys.stdin)  # noqa: SIM115
    except OSError as error:
        raise CliError(f"{file}: {error.strerror}") from error
    with source as lines:
        for batch in _batches(lines):
            records = []
            for number, line in batch:
                try:
                    event = to_event(codec.topic(topic), line)
                    records.append((topic, codec.key(event), codec.encode(event), _headers(event)))
                except (ValueError, InvalidEvent) as error:
                    bad += 1
                    sys.stderr.write(f"line {number}: {error}\n")
            writer.append_raw(records)
            acknowledged += len(records)
    if as_json:
        typer.echo(json.dumps({"topic": topic, "acknowledged": acknowledged, "refused": bad}))
    else:
        typer.echo(
            f"{acknowledged} events acknowledged in {topic}" + (f", {bad} refused" * (bad > 0))
        )
    if bad:
        raise typer.Exit(1)


def _headers(event: Any) -> list[tuple[str, bytes]]:
    from streams.log import record_headers

    return record_headers(event, "driftlog-produce")


def to_event(topic: Any, line: str) -> Any:
    """The event in a JSON line; raises ValueError with what is wrong."""
    from driftlog.cli.replay import parse_time
    from schemas.codec import check_finite
    from schemas.errors import InvalidEvent
    from schemas.event import Event

    try:
        data = json.loads(line)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ValueError("not a JSON object")
    types = [schema["name"] for schema in topic.schemas]
    type_ = data.pop("type", types[0] if len(types) == 1 else None)
    if type_ not in types:
        raise ValueError(f'"type" must be one of {", ".join(types)}, not {type_!r}')
    data.setdefault("event_id", str(uuid.uuid4()))
    data.setdefault("event_time", int(time.time() * 1000))
    data.setdefault("caused_by", None)
    if isinstance(data["event_time"], str):
        try:
            data["event_time"] = parse_time(data["event_time"])
        except CliError as error:
            raise ValueError(f"event_time: {error}") from error
    try:
        check_finite(data)
    except InvalidEvent as error:
        raise ValueError(str(error)) from error
    _check_sealed(data)
    return Event(topic.name, type_, data)


def _check_sealed(data: dict[str, Any]) -> None:
    """Raises ValueError for a personal field of a prediction that is not encrypted."""
    from models.personal.cipher import is_sealed
    from streams.personal import PREFIX

    for name, value in data.items():
        if name.startswith(PREFIX) and value is not None and not is_sealed(value):
            raise ValueError(f"{name} is not encrypted, and the log keeps it for ever: ask serving")


def _batches(lines: Any) -> Iterator[list[tuple[int, str]]]:
    """Numbered lines, as many as are there: a pipe that pauses does not hold back what it has sent."""
    waiting: queue.Queue[tuple[int, str] | None] = queue.Queue(4 * BATCH)

    def read() -> None:
        for numbered in enumerate(lines, 1):
            waiting.put(numbered)
        waiting.put(None)

    threading.Thread(target=read, daemon=True).start()
    batch: list[tuple[int, str]] = []
    while (item := waiting.get()) is not None:
        if item[1].strip():
            batch.append(item)
        if batch and (waiting.empty() or len(batch) == BATCH):
            yield batch
            batch = []
    if batch:
        yield batch
