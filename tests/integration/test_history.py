"""The history over a real log: each event once in ClickHouse, whatever dies meanwhile.

The events come from a program that shares no code with the history: schemas from the registry, Avro by
fastavro, records by librdkafka. What is stored is read by `clickhouse-connect`.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import clickhouse_connect
import fastavro
import pytest
from clickhouse_connect.driver.client import Client
from confluent_kafka import Consumer, Producer, TopicPartition

from infra.settings import HOST, Settings
from tests.integration.clusters import BROKERS, eventually, pid_of, running

pytestmark = pytest.mark.integration

TASK_FILE = """
from driftlog import Category, Numeric, Observed, Task

task = Task(
    name="parcels",
    label="arrives late",
    features=(Numeric("weight"), Category("depot"), Observed("queue", by="depot", value="waiting")),
)
"""
PREDICTIONS, LABELS, FEATURES = "parcels.predictions", "parcels.labels", "parcels.features"
START_MS = 1_700_000_000_000

Sent = tuple[str, str, bytes | None]
"""Topic, key, value."""


class History:
    """The service as `driftlog up` starts it, in a process that can be killed."""

    def __init__(self, settings: Settings, task_file: Path) -> None:
        self._settings = settings
        self._task_file = task_file
        self._process: subprocess.Popen[bytes] | None = None
        self._client: Client | None = None
        self.url = f"http://{HOST}:{settings.port(18123)}"

    def start(self) -> None:
        command = [sys.executable, "-m", "driftlog.services", "history", "--task"]
        with (self._settings.home / "history.log").open("ab") as output:
            self._process = subprocess.Popen(
                [*command, str(self._task_file)],
                env=os.environ | self._settings.to_env(),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        eventually(lambda: self.get("/readyz")[0] == 200)
        self._client = clickhouse_connect.get_client(dsn=self.url, database="driftlog")

    def end(self, how: signal.Signals) -> int:
        """The exit status."""
        assert self._process is not None and self._client is not None
        self._client.close()
        self._process.send_signal(how)
        return self._process.wait(30)

    def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON; (0, None) if nobody answers."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=100) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except OSError:
            return 0, None

    def catch_up(self) -> dict[str, Any]:
        """Wait until all that the log holds now is stored."""
        status, lag = self.get("/lag?wait=60")
        assert (status, lag["lag"]) == (200, 0), lag
        assert lag["caught_up"]
        document: dict[str, Any] = lag
        return document

    def ask(self, sql: str) -> list[Sequence[Any]]:
        assert self._client is not None
        return list(self._client.query(sql).result_rows)

    def caught_up(self) -> bool:
        return bool(self.get("/lag")[1]["caught_up"])


@dataclass
class Program:
    """Writes to the log as somebody else's program would."""

    settings: Settings
    random: random.Random

    def schema(self, topic: str) -> tuple[int, Any]:
        """The newest schema of the topic and its id."""
        answer = self.registry(f"/subjects/{topic}-value/versions/latest")
        return int(answer["id"]), json.loads(answer["schema"])

    def registry(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.settings.registry + path, data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def events(self, count: int) -> list[Sent]:
        """`count` predictions, each with its label."""
        prediction, label = Encoder(*self.schema(PREDICTIONS)), Encoder(*self.schema(LABELS))
        sent: list[Sent] = []
        for number in range(count):
            event_id = self.uid()
            head = {"event_id": event_id, "event_time": START_MS + 1_000 * number}
            made = {
                **head,
                "caused_by": None,
                "model_version": f"parcels-{number % 2}",
                "score": self.random.random(),
                "label": number % 2,
                "features": {"weight": float(number), "depot": "north", "queue": None},
            }
            known = {
                "event_id": self.uid(),
                "event_time": START_MS + 1_000 * number + 60_000,
                "caused_by": event_id,
                "prediction_id": event_id,
                "label": number % 2,
            }
            sent.append((PREDICTIONS, event_id, prediction(made)))
            sent.append((LABELS, event_id, label(known)))
        return sent

    def uid(self) -> str:
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def send(self, records: Sequence[Sent]) -> None:
        """Returns when the log has acknowledged all of them."""
        producer = Producer(
            {
                "bootstrap.servers": self.settings.bootstrap,
                "enable.idempotence": True,
                "linger.ms": 10,
                "request.timeout.ms": 3_000,
                "topic.metadata.refresh.interval.ms": 2_000,
                "queue.buffering.max.messages": 1_000_000,
                "log_level": 2,
            }
        )
        refused: list[object] = []
        for topic, key, value in records:
            producer.produce(
                topic, value, key, on_delivery=lambda e, _: refused.append(e) if e else None
            )
            producer.poll(0)
        assert producer.flush(60) == 0
        assert not refused


class Encoder:
    """Avro in Confluent's wire format."""

    def __init__(self, schema_id: int, schema: Any) -> None:
        self._head = struct.pack(">bI", 0, schema_id)
        self._schema = fastavro.parse_schema(schema, named_schemas={})

    def __call__(self, record: dict[str, Any]) -> bytes:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, self._schema, record)
        return self._head + out.getvalue()


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A cluster of its own: brokers and registry are broken here."""
    with running(tmp_path_factory.mktemp("history"), (*BROKERS, "registry")) as made:
        yield made


@pytest.fixture(scope="module")
def history(settings: Settings) -> Iterator[History]:
    task_file = settings.home / "parcels.py"
    task_file.write_text(TASK_FILE)
    service = History(settings, task_file)
    service.start()
    yield service
    service.end(signal.SIGTERM)


@pytest.fixture(scope="module")
def program(settings: Settings) -> Program:
    return Program(settings, random.Random(7))


def content(history: History) -> list[Sequence[Any]]:
    """What is stored, all columns but the time of storing, as counts and sums of hashes."""
    return [
        history.ask(
            "SELECT count(), uniqExact(event_id), uniqExact(_partition, _offset), sum(cityHash64(row))"
            " FROM (SELECT event_id, _partition, _offset, toString(tuple(* EXCEPT _ingested_at)) AS row"
            f" FROM {table} FINAL)"
        )[0]
        for table in ("parcels_predictions", "parcels_labels", "parcels_features")
    ]


def rows(history: History) -> int:
    """Rows of both tables as they are, repeats included."""
    return sum(
        int(history.ask(f"SELECT count() FROM {table}")[0][0])
        for table in ("parcels_predictions", "parcels_labels")
    )


def ids(history: History, table: str) -> list[str]:
    return [row[0] for row in history.ask(f"SELECT event_id FROM {table} FINAL")]


def keys(records: Sequence[Sent], topic: str) -> set[str]:
    return {key for name, key, _ in records if name == topic}


def test_twenty_thousand_events_are_there_once_within_seconds(
    history: History, program: Program
) -> None:
    records = program.events(10_000)
    began = time.monotonic()
    program.send(records)
    history.catch_up()
    took = time.monotonic() - began
    found = ids(history, "parcels_predictions")
    assert len(found) == len(set(found)) == 10_000
    assert set(found) == keys(records, PREDICTIONS)
    found = [row[0] for row in history.ask("SELECT prediction_id FROM parcels_labels FINAL")]
    assert len(found) == len(set(found)) == 10_000
    assert set(found) == keys(records, PREDICTIONS)
    assert took < 30, f"{took:.1f} s; 3 s on two idle cores"


def test_killed_again_and_again_it_misses_nothing_and_doubles_nothing(
    history: History, program: Program
) -> None:
    before = content(history)
    records = program.events(20_000)
    sender = threading.Thread(target=program.send, args=(records,))
    sender.start()
    kills, stored = 0, rows(history)
    while kills < 3:
        eventually(lambda least=stored: rows(history) > least or history.caught_up())  # type: ignore[misc]
        if history.caught_up() and not sender.is_alive():
            break
        history.end(signal.SIGKILL)
        kills += 1
        history.start()
        stored = rows(history)
    sender.join()
    assert kills, "it was never killed in the middle"
    history.catch_up()
    for old, (count, distinct, places, _) in zip(before[:2], content(history)[:2], strict=True):
        assert count == distinct == places == old[0] + 20_000
    assert keys(records, PREDICTIONS) <= set(ids(history, "parcels_predictions"))


def test_deleted_it_comes_back_from_the_log_exactly(history: History, settings: Settings) -> None:
    before = content(history)
    assert history.end(signal.SIGTERM) == 0
    shutil.rmtree(settings.home / "clickhouse")
    history.start()
    history.catch_up()
    assert content(history) == before


def test_bad_records_stand_aside_with_cause_and_place_and_stop_nothing(
    history: History, program: Program, settings: Settings
) -> None:
    records = program.events(100)
    good = next(value for topic, _, value in records if topic == PREDICTIONS and value)
    poison: list[bytes | None] = [
        None,
        b"",
        program.random.randbytes(50),
        b"{}",
        good[:-2],
        good[:20],
        good + b"\0",
        struct.pack(">bI", 0, 999_999) + b"body",
        good[:5]
        + b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"
        + b"a" * 50,  # a string of 2^63 bytes
        good[:5] + b"\x80" * 200,
        b"\0" * 900_000,
    ]
    bad: list[Sent] = [(PREDICTIONS, f"bad-{n}", value) for n, value in enumerate(poison)]
    before = history.ask("SELECT count() FROM parcels_predictions FINAL")[0][0]
    program.send([*records[:100], *bad, *records[100:]])
    history.catch_up()
    assert history.ask("SELECT count() FROM parcels_predictions FINAL")[0][0] == before + 100

    told = history.ask(
        "SELECT _topic, _partition, _offset, error, message, base64Decode(key_base64)"
        " FROM dead_letters FINAL ORDER BY _partition, _offset"
    )
    assert {row[5] for row in told} == {key for _, key, _ in bad}
    assert {row[3] for row in told} == {"UndecodableEvent", "UnknownSchema"}
    assert all(row[0] == PREDICTIONS and row[4] for row in told)
    assert dead_letters(settings, len(bad)) == sorted(tuple(map(str, row[:4])) for row in told)


def dead_letters(settings: Settings, count: int) -> list[tuple[str, ...]]:
    """(topic, partition, offset, error) of the first records of the dead-letter topic."""
    consumer = Consumer({"bootstrap.servers": settings.bootstrap, "group.id": "test"})
    try:
        consumer.assign([TopicPartition(f"{PREDICTIONS}.dlq", 0, 0)])
        found = []
        for message in consumer.consume(count, 20):
            told = dict(message.headers() or ())
            names = ("topic", "partition", "offset", "exception.class.name")
            found.append(tuple(_text(told[f"__connect.errors.{name}"]) for name in names))
        return sorted(found)
    finally:
        consumer.close()


def _text(header: object) -> str:
    assert isinstance(header, bytes)
    return header.decode()


def test_while_the_registry_is_silent_what_needs_it_waits(
    history: History, program: Program, settings: Settings
) -> None:
    """A schema that the history has never seen, and nobody to ask: no dead letter, no loss."""
    _, schema = program.schema(FEATURES)
    schema["fields"].append({"name": "note", "type": ["null", "string"], "default": None})
    path = f"/subjects/{FEATURES}-value/versions"
    new_id = program.registry(path, {"schema": json.dumps(schema)})["id"]
    observed = {
        "event_time": START_MS,
        "caused_by": None,
        "entity": "depot",
        "key": "north",
        "values": {"waiting": 3.0},
        "note": "a field that this code does not know yet",
    }
    encode = Encoder(new_id, schema)
    records: list[Sent] = [
        (FEATURES, "north", encode({**observed, "event_id": program.uid()})) for _ in range(20)
    ]
    [[dead]] = history.ask("SELECT count() FROM dead_letters FINAL")
    registry = pid_of(settings, "registry")
    os.kill(registry, signal.SIGSTOP)
    try:
        program.send(records)
        eventually(lambda: history.get("/status")[1]["state"] == "waiting")
        assert history.get("/readyz")[0] == 200
        assert history.get("/lag")[1]["lag"] == 20
        assert history.ask("SELECT count() FROM parcels_features") == [(0,)]
    finally:
        os.kill(registry, signal.SIGCONT)
    history.catch_up()
    assert history.ask("SELECT count(), uniqExact(event_id) FROM parcels_features FINAL") == [
        (20, 20)
    ]
    assert history.ask("SELECT count() FROM dead_letters FINAL") == [(dead,)]


def test_a_broker_is_killed_in_the_middle(
    history: History, program: Program, settings: Settings
) -> None:
    before = content(history)
    records = program.events(10_000)
    program.send(records[:4_000])
    os.kill(pid_of(settings, "broker-2"), signal.SIGKILL)
    program.send(records[4_000:])
    history.catch_up()
    for old, (count, distinct, places, _) in zip(before[:2], content(history)[:2], strict=True):
        assert count == distinct == places == old[0] + 10_000
    assert keys(records, PREDICTIONS) <= set(ids(history, "parcels_predictions"))
