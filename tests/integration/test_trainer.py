"""The trainer on a real log with a real history: requests become models, whatever dies meanwhile."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from driftlog import instance
from driftlog.cli.errors import CliError
from driftlog.cli.main import app
from driftlog.cli.models import models_app
from driftlog.cli.quality import quality_app
from driftlog.cli.snapshots import snapshots_app
from driftlog.event_index import NoSuchEvent
from infra.settings import Settings
from models.artifacts import ArtifactStore
from models.dataset import from_arrow, golden_rows
from models.history import History
from models.registry import Registry, RegistryState, champion
from models.registry_log import RegistryLog
from models.snapshot_file import from_parquet, to_parquet
from schemas.catalogue import CORRECTIONS, RETRAIN_REQUESTS
from schemas.codec import Codec
from schemas.event import derive
from streams.log import LogWriter, connect_codec, read
from streams.task import DAY_MS
from tests.integration.clusters import eventually
from tests.integration.trainer_parts import START_MS, TASK_FILE, WEAR, history

pytestmark = pytest.mark.integration

TRAINED_S = 90.0


class Services:
    """History and trainer of the task, as processes of their own; its log as the tests see it."""

    def __init__(self, settings: Settings, task_file: Path) -> None:
        self.settings = settings
        self._task_file = task_file
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.codec: Codec = connect_codec(settings, [WEAR])
        self.writer = LogWriter(settings.bootstrap, self.codec)
        self._log = RegistryLog(settings.bootstrap, self.codec, threading.Event())

    def start(self, name: str) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "driftlog.services", name, "--task", str(self._task_file)]
        log = (self.settings.home / f"{name}.log").open("ab")
        process = subprocess.Popen(
            words, env={**os.environ, **self.settings.to_env()}, stdout=log, stderr=log
        )
        log.close()
        self._running[name] = process
        return process

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        self._running[name].send_signal(number)
        self._running[name].wait(30)

    def stop(self) -> None:
        for name in self._running:
            self.kill(name)
        self._log.close()

    @property
    def state(self) -> RegistryState:
        """The registry as the log has it now."""
        self._log.catch_up()
        return self._log.state

    @property
    def versions(self) -> list[str]:
        """Model versions of this module's task; other modules register theirs on the same cluster."""
        return [name for name, version in self.state.versions.items() if version.task == "wear"]

    def request(self, name: str, labels_until: int) -> str:
        """Ask for a model; the event id of the request."""
        event = derive(
            RETRAIN_REQUESTS,
            "RetrainRequested",
            *("test", name),
            time=labels_until,
            caused_by=None,
            task="wear",
            trigger="drift",
            reason=f"the test {name} wants it",
            actor="policy",
            labels_until=labels_until,
            evidence={"psi.size": 0.3},
        )
        self.writer.append([event])
        return event.id

    def steps(self, request_id: str) -> list[str]:
        """Types of the events about a request, every record in the log."""
        topics = [topic for topic in Registry.topics if topic != RETRAIN_REQUESTS]
        events = read(self.settings.bootstrap, self.codec, topics)
        return [event.type for event in events if event.data.get("request_id") == request_id]

    def await_step(self, request_id: str, type_: str) -> None:
        eventually(lambda: self.state.requests[request_id].step(type_) is not None, TRAINED_S)

    def outcome(self, request_id: str) -> dict[str, Any]:
        """The event that ended the request, once there is one."""
        eventually(lambda: self.state.requests[request_id].ended is not None, TRAINED_S)
        type_, data = self.state.requests[request_id].ended or ("", {})
        return {"type": type_, **data}


@pytest.fixture(scope="module")
def services(cluster: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """A history of 28 days in the log, and the services that read it."""
    home = tmp_path_factory.mktemp("trainer")
    task_file = home / "wear.py"
    task_file.write_text(TASK_FILE, "utf-8")
    made = Services(dataclasses.replace(cluster, home=home), task_file)
    instance.remember_tasks(made.settings, [task_file])
    try:
        trainer = made.start("trainer")
        made.start("history")
        eventually(lambda: bool(trainer.poll()) or champion(made.state, "wear") is not None, 60)
        assert trainer.poll() is None, (home / "trainer.log").read_text("utf-8")
        rows = list(history(days=28))
        made.writer.append([row.prediction for row in rows])
        made.writer.append([row.label for row in rows if row.label])
        made.writer.append([row.prediction for row in rows[-50:]])  # said again
        yield made
    finally:
        made.stop()


def day(number: float) -> int:
    return START_MS + int(number * DAY_MS)


def expected_rows(labels_until: int) -> list[tuple[str, int]]:
    """(event id, label) of the training set, by the definition and not by SQL."""
    since = labels_until - WEAR.recipe.training_days * DAY_MS
    return [
        (row.prediction.id, row.label.data["label"])
        for row in history(days=28)
        if row.label
        and row.label.time < labels_until
        and since <= row.prediction.time < labels_until
    ]


def test_a_task_without_a_model_gets_a_constant_one(services: Services) -> None:
    version = services.state.versions["wear-0"]
    assert (version.recipe, version.snapshot, version.reference_count) == ("constant", None, 0)
    decision = next(d for d in services.state.decisions["wear"] if d.version == "wear-0")
    assert (decision.kind, decision.reason, decision.actor) == (
        "ModelPromoted",
        "cold start",
        "trainer",
    )


def test_a_request_becomes_a_promoted_model_with_its_lineage(services: Services) -> None:
    request_id = services.request("first", day(20))
    outcome = services.outcome(request_id)
    assert outcome["type"] == "ModelPromoted", outcome
    assert (outcome["model_version"], outcome["previous_version"]) == ("wear-1", "wear-0")
    assert {gate["name"] for gate in outcome["gates"]} == {"recent_log_loss", "golden_log_loss"}
    assert START_MS < outcome["event_time"] < day(30), "event time, not the wall clock"

    state = services.state
    version, request = state.versions["wear-1"], state.requests[request_id]
    taken = request.step("SnapshotTaken", purpose="training")
    golden = request.step("SnapshotTaken", purpose="golden")
    assert taken and golden
    assert (version.snapshot, version.golden) == (taken["snapshot"], golden["snapshot"])
    assert version.parent == "wear-0"
    assert sorted(services.steps(request_id)) == [
        "ModelPromoted",
        "ModelRegistered",
        "QualityChecked",
        "SnapshotTaken",
        "SnapshotTaken",
        "TrainingFinished",
        "TrainingStarted",
    ]

    store = ArtifactStore(services.settings.artifacts)
    rows = from_parquet(WEAR, store.read(taken["path"], taken["snapshot"]))
    assert list(zip(rows.ids, rows.labels, strict=True)) == expected_rows(day(20))
    history_ = History(services.settings.clickhouse)
    again = to_parquet(WEAR, from_arrow(WEAR, history_.query(taken["sql"])))
    history_.close()
    assert ArtifactStore(services.settings.home).put_snapshot(again).sha256 == taken["snapshot"]


@pytest.mark.parametrize(
    "moment", ["SnapshotTaken", "QualityChecked", "TrainingStarted", "ModelRegistered"]
)
def test_a_killed_trainer_goes_on_where_it_was(services: Services, moment: str) -> None:
    until = {
        "SnapshotTaken": 22,
        "QualityChecked": 23,
        "TrainingStarted": 24,
        "ModelRegistered": 26,
    }[moment]
    before = len(services.versions)
    request_id = services.request(f"killed at {moment}", day(until))
    services.await_step(request_id, moment)
    services.kill("trainer")
    services.start("trainer")
    outcome = services.outcome(request_id)
    assert outcome["type"] in ("ModelPromoted", "PromotionRejected"), outcome
    state = services.state
    assert len(services.versions) == before + 1
    assert outcome["model_version"] == f"wear-{before}"
    steps = services.steps(request_id)
    once = ("SnapshotTaken", "QualityChecked", "TrainingStarted", "TrainingFinished")
    for type_ in (*once, "ModelRegistered"):
        assert steps.count(type_) == 1, steps
    taken = state.requests[request_id].step("SnapshotTaken")
    assert taken and state.versions[f"wear-{before}"].snapshot == taken["snapshot"]


def test_sigterm_ends_a_training_at_once(services: Services) -> None:
    request_id = services.request("terminated", day(27))
    services.await_step(request_id, "TrainingStarted")
    began = time.monotonic()
    services.kill("trainer", signal.SIGTERM)
    assert time.monotonic() - began < 20
    services.start("trainer")
    assert services.outcome(request_id)["type"] in ("ModelPromoted", "PromotionRejected")


def test_a_request_for_a_moment_that_is_past_is_still_answered(services: Services) -> None:
    outcome = services.outcome(services.request("superseded", day(10)))
    assert outcome["type"] == "PromotionRejected", outcome


def test_a_request_without_rows_fails_with_the_reason(services: Services) -> None:
    request_id = services.request("too early", START_MS)
    outcome = services.outcome(request_id)
    assert outcome["type"] == "TrainingFailed"
    assert outcome["reason"].startswith("0 labelled rows")
    taken = services.state.requests[request_id].step("SnapshotTaken")
    assert taken and taken["rows"] == 0


@pytest.fixture
def cli(services: Services, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """Runs `driftlog models ...  --json` (or another group's verb) and gives the objects that it prints."""
    for name, value in services.settings.to_env().items():
        monkeypatch.setenv(name, value)

    def run(*words: str, app: typer.Typer = models_app) -> list[dict[str, Any]]:
        result = CliRunner().invoke(app, [*words, "--json"])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return [json.loads(line) for line in result.stdout.splitlines()]

    return run


def test_snapshots_come_out_of_the_log_to_the_byte_and_leave_out_what_a_person_says(
    services: Services, cli: Callable[..., list[dict[str, Any]]]
) -> None:
    verified = cli("verify", "--task", "wear", app=snapshots_app)
    assert len(verified) > 2 and all(one["equal"] and one["stored"] for one in verified)
    checked = [one for one in cli("list", app=quality_app) if one.get("subject") == "snapshot"]
    assert checked and all(one["passed"] for one in checked)

    start, end = str(day(20)), str(day(21))
    cli("quarantine", start, end, "--reason", "for the test", app=quality_app)
    (taken,) = cli("take", "wear", "--until", str(day(24)), app=snapshots_app)
    excluded = {"from_time": day(20), "to_time": day(21), "reason": "for the test"}
    assert taken["excluded"] == [excluded]
    left = [(row.prediction.id, row.prediction.time) for row in history(days=28)]
    out = {id_ for id_, time_ in left if day(20) <= time_ < day(21)}
    assert taken["rows"] == sum(id_ not in out for id_, _ in expected_rows(day(24)))
    cli("release", start, end, "--reason", "the test is over", app=quality_app)
    (again,) = cli("verify", taken["snapshot"], app=snapshots_app)
    assert again["equal"], "its query names what was left out then"


def run_json(*words: str) -> list[dict[str, Any]]:
    """The objects that `driftlog ... --json` prints."""
    result = CliRunner().invoke(app, [*words, "--json"])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_version_is_made_again_to_the_byte(
    services: Services, cli: Callable[..., list[dict[str, Any]]]
) -> None:
    services.outcome(services.request("first", day(20)))
    (found,) = cli("reproduce", "wear-1")
    assert found["identical"], found
    assert (found["differences"], found["metrics"]) == ({}, {})
    assert found["verdict"] == found["decided"]


def test_why_leads_from_a_decision_to_its_request(
    services: Services, cli: Callable[..., list[dict[str, Any]]]
) -> None:
    request_id = services.request("first", day(20))
    decision = services.outcome(request_id)["event_id"]
    (answer,) = run_json("why", decision[:13])
    types, node = [], answer
    while node:
        types.append(node["type"])
        node = next((c for c in node["causes"] if c["role"] == "caused by"), None)
    chain = ["ModelPromoted", "ModelRegistered", "TrainingFinished", "TrainingStarted"]
    assert types == [*chain, "SnapshotTaken", "RetrainRequested"]
    assert answer["numbers"]["gate.recent_log_loss.passed"] is True
    with pytest.raises(NoSuchEvent, match="no event's id begins with 'nobody'"):
        run_json("why", "nobody")


def test_the_radius_of_every_version_is_what_its_files_hold(
    services: Services, cli: Callable[..., list[dict[str, Any]]]
) -> None:
    services.outcome(services.request("first", day(20)))
    store = ArtifactStore(services.settings.artifacts)
    state = services.state
    for name in services.versions:
        version = state.versions[name]
        (radius,) = run_json("blast", "--model", name, "--back")
        assert radius["vector"]["exactly"]["count"] == version.reference_count
        assert radius["vector"]["at_most"]["count"] == 0
        taken = state.requests[version.request_id].step("SnapshotTaken", purpose="training")
        if taken:
            rows = from_parquet(WEAR, store.read(taken["path"], taken["snapshot"]))
            learned = rows.ids[~golden_rows(rows.ids, WEAR.gate.golden_share)]
            assert set(radius["vector"]["exactly"]["names"]) == set(learned)
    (source,) = run_json(
        *("blast", "--topic", "wear.predictions", "--where", "features_colour = 'red'")
    )
    red = {r.prediction.id for r in history(28) if r.prediction.data["features"]["colour"] == "red"}
    assert set(source["prediction"]["exactly"]["names"]) == red
    assert source["version"]["exactly"]["count"] == sum(
        version.snapshot is not None
        for version in state.versions.values()
        if version.task == "wear"
    )


def test_corrections_are_published_once(
    services: Services, cli: Callable[..., list[dict[str, Any]]]
) -> None:
    services.outcome(services.request("first", day(20)))
    listed = run_json("corrections", "list", "wear-0", "--to", str(day(2)))
    assert len(listed) == 400
    words = ["corrections", "publish", "wear-0", "--with", "wear-1", "--reason", "it knew nothing"]
    words += ["--to", str(day(2))]
    wanted = run_json(*words, "--dry-run")
    assert wanted
    made = run_json(*words)
    assert [one["event_id"] for one in made] == [one["event_id"] for one in wanted]
    assert not run_json(*words)
    log = read(services.settings.bootstrap, services.codec, [CORRECTIONS])
    assert sorted(event.id for event in log) == sorted(one["event_id"] for one in made)


def test_the_command_line_tells_and_changes_which_version_answers(
    services: Services, cli: Callable[..., list[dict[str, Any]]]
) -> None:
    listed = cli("list", "--task", "wear")
    assert [row["model_version"] for row in listed][:2] == ["wear-0", "wear-1"]
    (live,) = [row["model_version"] for row in listed if row["live"]]

    (shown,) = cli("show", "wear-1")
    assert shown["request"]["trigger"] == "drift"
    assert shown["snapshot"]["snapshot"] == services.state.versions["wear-1"].snapshot

    (beginning,) = cli("at", "2013-01-01")
    assert (beginning["model_version"], beginning["since"]) == ("wear-0", None)
    (now,) = cli("at", "now")
    assert now["model_version"] == live

    other = "wear-0" if live != "wear-0" else "wear-1"
    (promoted,) = cli("promote", other, "--reason", "to see whether it works")
    assert (promoted["type"], promoted["previous_version"]) == ("ModelPromoted", live)
    (back,) = cli("rollback", "--reason", "it did")
    assert (back["type"], back["model_version"]) == ("ModelRolledBack", live)
    (found,) = cli("at", str(back["event_time"]))
    assert (found["model_version"], found["reason"]) == (live, "it did")

    with pytest.raises(CliError, match="no model version 'wear-99'"):
        cli("show", "wear-99")
    with pytest.raises(CliError, match="answers already"):
        cli("promote", live, "--reason", "again")

    (outcome,) = cli("retrain", "--reason", "for the test", "--wait")
    request = services.state.requests[outcome["request_id"]].asked
    assert outcome["type"] in ("ModelPromoted", "PromotionRejected")
    assert request and (request["trigger"], request["reason"]) == ("manual", "for the test")
    assert START_MS < request["labels_until"] < day(30), "event time, not the wall clock"
