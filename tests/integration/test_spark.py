"""Backfill on a real Spark, in local mode: the same sketches and scores as the live reactors give."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner

from driftlog import backfill as driver
from driftlog.cli.errors import CliError
from driftlog.cli.main import app
from infra.settings import Settings
from infra.spark import spark_session
from schemas.catalogue import DRIFT_SCORES
from schemas.event import Event, Position
from schemas.registry.client import RegistryClient
from schemas.registry.service import LocalRegistry
from streams import log
from streams.backfill import Gathered, Job, latest_scores
from streams.raw_files import SCHEMA, Context, write_partition
from streams.spark import ParquetSource, UnusableFiles, backfill
from streams.topics import ensure_topics
from tests.unit.streams.backfill_data import (
    MODELS,
    TOPIC,
    Payloads,
    history,
    plain,
    records,
)
from tests.unit.streams.build import TASK
from tests.unit.streams.test_backfill import in_one_piece, job, live

pytestmark = pytest.mark.integration
TASK_FILE = """
from driftlog import Category, DriftPolicy, Numeric, Observed, Rate, Task

task = Task(
    name="toy",
    label="late",
    label_delay_hours=6,
    features=(
        Numeric("distance"),
        Category("carrier"),
        Rate("carrier_rate", by=("carrier",), hours=4, strength=2.0),
        Observed("wind", by="carrier", value="wind", max_age_hours=2),
    ),
    drift=DriftPolicy(window_hours=24, grace_minutes=60, min_rows=10),
)
"""
Written = tuple[Settings, Path, dict[int, Payloads]]
COUNTS = [700, 400, 0]
"""Records of each partition: the last has none."""


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One Spark for all tests here: it takes seconds to start."""
    home = tmp_path_factory.mktemp("spark")
    with spark_session(Settings(home=home), cores=2, log=home / "spark.log") as session:
        yield session


@pytest.fixture(scope="module")
def registry() -> LocalRegistry:
    return LocalRegistry()


@pytest.fixture(scope="module")
def payloads(registry: LocalRegistry) -> dict[int, Payloads]:
    return history(7, registry, COUNTS)


@pytest.fixture(scope="module")
def one_piece(registry: LocalRegistry, payloads: dict[int, Payloads]) -> Gathered:
    """What the fold says without Spark; held to the live reactors in the unit tests."""
    return in_one_piece(job(registry), payloads)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, payloads: dict[int, Payloads]) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    for number, all_ in payloads.items():
        write_partition(folder, number, records(number, all_, 150))
    return folder


def check_equal(found: Gathered, expected: Gathered) -> None:
    assert plain(found.sketches) == plain(expected.sketches)
    assert found.unreadable == expected.unreadable
    assert found.partitions == expected.partitions
    assert found.unknown_versions == expected.unknown_versions


@pytest.mark.parametrize("parts", [1, 4])
def test_parquet_gives_what_one_process_gives(
    spark: Any, registry: LocalRegistry, files: Path, one_piece: Gathered, parts: int
) -> None:
    source = ParquetSource(str(files), TOPIC)
    seen = []
    found = backfill(spark, job(registry), source, parts, lambda *at: seen.append(at), block=64)
    assert len(one_piece.sketches) > 50
    check_equal(found, one_piece)
    assert seen[-1][0] == "windows"
    assert seen[-1][1] == seen[-1][2] >= 2 * parts


def test_files_in_any_order_and_written_twice_change_nothing(
    spark: Any,
    registry: LocalRegistry,
    payloads: dict[int, Payloads],
    one_piece: Gathered,
    tmp_path: Path,
) -> None:
    rows = [(p, n, 0, value) for p, all_ in payloads.items() for n, value in enumerate(all_)]
    rows += rows[100:300]
    random.Random(3).shuffle(rows)
    for number in range(4):
        columns = zip(*rows[number::4], strict=True)
        table = pa.Table.from_arrays(
            [pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
        )
        pq.write_table(table, tmp_path / f"part-{number}.parquet")
    check_equal(backfill(spark, job(registry), ParquetSource(str(tmp_path), TOPIC)), one_piece)


def test_up_to_an_offset(
    spark: Any, registry: LocalRegistry, payloads: dict[int, Payloads], files: Path
) -> None:
    found = backfill(spark, job(registry), ParquetSource(str(files), TOPIC, to=250))
    some = {number: all_[:250] for number, all_ in payloads.items()}
    check_equal(found, in_one_piece(job(registry), some))


def test_parquet_of_something_else_is_refused(spark: Any, tmp_path: Path) -> None:
    pq.write_table(pa.table({"partition": [0], "value": ["text"]}), tmp_path / "a.parquet")
    source = ParquetSource(str(tmp_path / "a.parquet"), TOPIC)
    with pytest.raises(UnusableFiles, match=r"offset bigint.*value binary \(it is string\)"):
        backfill(spark, Job.of(TASK, MODELS, {}), source)


@pytest.fixture(scope="module")
def written(cluster: Settings, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """The history in a real topic, its models in the log, its schemas in a real registry."""
    task_file = tmp_path_factory.mktemp("task") / "toy_task.py"
    task_file.write_text(TASK_FILE)
    with RegistryClient(cluster.registry) as registry:
        payloads = history(11, registry, COUNTS)
    codec = log.connect_codec(cluster, [TASK])
    ensure_topics(cluster.bootstrap, log.all_topics(cluster, [TASK])[: -len(TASK.topics())], 3)
    ensure_topics(cluster.bootstrap, TASK.topics(len(COUNTS)), 3)
    log.LogWriter(cluster.bootstrap, codec).append([registered(event) for event in MODELS])
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "enable.idempotence": True})
    for number, all_ in payloads.items():
        for value in all_:
            producer.produce(TOPIC, value, partition=number)
            producer.poll(0)
    assert producer.flush(60) == 0
    return cluster, task_file, payloads


def registered(event: Event) -> Event:
    """With the fields that a trainer fills in."""
    texts = dict.fromkeys(("request_id", "artifact", "path", "recipe", "parameters"), "none")
    return Event(
        event.topic, event.type, {**texts, "bytes": 0, "seed": 7, "features": [], **event.data}
    )


@pytest.fixture(scope="module")
def reacted(written: Written) -> tuple[list[Event], list[Position]]:
    """The latest scores of the live reactors, fed event by event; the places that they could not read."""
    cluster, _, payloads = written
    with RegistryClient(cluster.registry) as registry:
        _, said, bad = live(registry, payloads)
    return latest_scores(TASK, said), sorted(bad)


@pytest.fixture(scope="module")
def live_scores(reacted: tuple[list[Event], list[Position]]) -> list[Event]:
    return reacted[0]


@pytest.mark.parametrize("parts", [1, 3])
def test_kafka_gives_what_the_live_reactors_give(
    spark: Any, written: Written, reacted: tuple[list[Event], list[Position]], parts: int
) -> None:
    cluster, _, _ = written
    scores, bad = reacted
    prepared = driver.prepare(cluster, TASK, None)
    outcome = driver.run(spark, prepared, parts, block=64)
    assert len(prepared.job.schemas) == 2
    assert prepared.partitions == 3
    assert len(scores) > 50 and len(bad) > 10
    assert driver.compare(outcome.scores, scores) == []
    assert [one.at for one in outcome.gathered.unreadable] == bad
    assert outcome.gathered.counts.records == sum(COUNTS)
    assert outcome.gathered.unknown_versions == ["toy-9"]


def test_exported_files_need_no_log(
    spark: Any, written: Written, live_scores: list[Event], tmp_path: Path
) -> None:
    cluster, _, payloads = written
    seen = []
    count = driver.export(cluster, TASK, tmp_path, on_progress=lambda *at: seen.append(at))
    assert count == sum(COUNTS)
    assert seen[-1] == (count, count)
    rows = pq.read_table(tmp_path / "partition-1.parquet")
    assert rows["value"].to_pylist() == payloads[1]
    context = Context.read(tmp_path)
    assert context is not None
    assert (context.topic, context.partitions) == (TOPIC, 3)
    nowhere = Settings(
        home=tmp_path, kafka_bootstrap="127.0.0.1:1", registry_url="http://127.0.0.1:1"
    )
    outcome = driver.run(spark, driver.prepare(nowhere, TASK, str(tmp_path)))
    assert driver.compare(outcome.scores, live_scores) == []


def test_the_command_writes_compares_and_says_what_differs(
    spark: Any,
    written: Written,
    live_scores: list[Event],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster, task_file, _ = written
    for name, value in cluster.to_env().items():
        monkeypatch.setenv(name, value)

    def call(*more: str) -> Any:
        return CliRunner().invoke(app, ["backfill", str(task_file), *more])

    missing = call("--compare", "--json")
    assert isinstance(missing.exception, CliError)
    assert last_line(missing) == {"equal": False, "compared": len(live_scores)}
    wrote = call("--write", "--out", str(tmp_path / "out"))
    assert wrote.exit_code == 0, wrote.exception
    assert f"{len(live_scores):,} scores written" in wrote.stdout
    assert "cannot be read" in wrote.stdout
    assert "not registered, so not scored: toy-9" in wrote.stdout
    tables = {n: pq.read_table(tmp_path / "out" / f"{n}.parquet") for n in ("scores", "unreadable")}
    assert tables["scores"].num_rows == len(live_scores)
    assert tables["unreadable"].num_rows > 0

    equal = call("--compare", "--json")
    assert equal.exit_code == 0, equal.exception
    assert last_line(equal) == {"equal": True, "compared": len(live_scores)}
    again = call("--write")
    assert "0 scores written" in again.stdout

    one = driver.logged_scores(cluster, TASK)[3]
    wrong = {**one.data, "revision": one.data["revision"] + 1, "psi": 9.5, "event_id": "wrong"}
    codec = log.connect_codec(cluster, [TASK])
    log.LogWriter(cluster.bootstrap, codec).append([Event(DRIFT_SCORES, "DriftScored", wrong)])
    differs = call("--compare")
    assert isinstance(differs.exception, CliError)
    assert f"{one.data['feature']}: psi {one.data['psi']} (log: 9.5)" in differs.stdout
    refused = call("--write")
    assert "nothing was written: 1 scores of the log" in str(refused.exception)


def last_line(result: Any) -> Any:
    return json.loads(result.stdout.splitlines()[-1])


def test_a_task_that_fails_is_told_in_one_line(
    spark: Any, written: Written, files: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The registry is down: the bytes may be readable, so nothing is guessed."""
    cluster, task_file, _ = written
    for name, value in cluster.to_env().items():
        monkeypatch.setenv(name, value)
    away = functools.partial(Job.of, TASK, MODELS, {}, "http://127.0.0.1:1")
    monkeypatch.setattr(driver.Job, "of", lambda *given: away())
    failed = CliRunner().invoke(app, ["backfill", str(task_file), "--from", str(files)])
    assert isinstance(failed.exception, CliError)
    assert "RegistryUnavailable" in str(failed.exception)
    assert "\n" not in str(failed.exception)
