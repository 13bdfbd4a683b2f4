"""Rollouts on a real log: serving, worker and control as processes; every request is answered throughout."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from driftlog import instance
from driftlog.cli.main import app
from driftlog.services import answers
from driftlog.settled import live_folds
from driftlog.verify import check_folds
from infra.settings import HOST, Settings
from models.artifacts import ArtifactStore
from models.encoder import Encoder, FeatureCode
from models.onnx_graph import constant
from schemas.catalogue import DEPLOYMENTS, MODEL_VERSIONS, ROLLOUTS, labels_topic, predictions_topic
from schemas.codec import Codec
from schemas.event import Event, derive
from streams.log import LogWriter, connect_codec, read
from streams.rollout_state import policy_text
from streams.task import Numeric, RolloutPolicy, Task
from tests.integration.clusters import eventually

pytestmark = pytest.mark.integration

POLICY = RolloutPolicy("canary", steps=(0.5, 1.0), min_labels=60, step_hours=0.0, watch_hours=24)
VALVE = Task(name="valve", features=(Numeric("age"),), label="leaks", rollout=POLICY)
TASK_FILE = f"from driftlog import *\n\ntask = {VALVE!r}\n"
SERVICES = {"serving": 18000, "worker": 18002, "control": 18003}
MOMENT_MS = 250
"""Event time between two requests; the label follows two seconds later."""
LABEL_MS = 2_000


class World:
    """A task with a good champion, callers that never stop, and labels that come at once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.codec: Codec = connect_codec(settings, [VALVE])
        self.writer = LogWriter(settings.bootstrap, self.codec)
        self.store = ArtifactStore(settings.artifacts)
        self.http = httpx.Client(base_url=f"http://{HOST}:{settings.port(18000)}", timeout=40)
        self.time = int(time.time() * 1000) - 6 * 3_600_000
        self.statuses: list[int] = []
        self.unlabelled: list[tuple[int, str, int]] = []
        self.asked = 0

    def register(self, version: str, score: float) -> None:
        stored = self.store.put_model(constant(score, Encoder("valve", (FeatureCode("age"),))))
        event = derive(
            MODEL_VERSIONS,
            "ModelRegistered",
            version,
            time=self.time,
            caused_by=None,
            task="valve",
            model_version=version,
            request_id=f"request of {version}",
            artifact=stored.sha256,
            path=stored.path,
            bytes=stored.bytes,
            recipe="constant",
            parameters="{}",
            seed=0,
            environment={},
            features=["age"],
            metrics={},
            reference_count=0,
            reference=[],
            parent=None,
            snapshot=None,
            golden=None,
        )
        self.writer.append([event])

    def promote(self, version: str, previous: str | None) -> Event:
        event = derive(
            DEPLOYMENTS,
            "ModelPromoted",
            *(version, self.time),
            time=self.time,
            caused_by=None,
            task="valve",
            model_version=version,
            previous_version=previous,
            reason="somebody was sure",
            actor="ann",
            request_id=None,
            gates=[],
        )
        self.writer.append([event])
        return event

    def roll_out(self, version: str, baseline: str) -> Event:
        event = derive(
            ROLLOUTS,
            "RolloutStarted",
            *(version, self.time),
            time=self.time,
            caused_by=None,
            task="valve",
            model_version=version,
            previous_version=baseline,
            strategy=POLICY.strategy,
            policy=policy_text(POLICY),
            reason="all gates passed",
            actor="trainer",
            request_id=None,
            gates=[],
        )
        self.writer.append([event])
        return event

    def ask(self) -> None:
        """One request, and the labels that are known by now: nine of ten valves leak."""
        self.time += MOMENT_MS
        id_, label = f"valve-{self.asked}", int(self.asked % 10 != 0)
        self.asked += 1
        body = {"instances": [{"age": 1.0, "event_id": id_, "event_time": self.time}]}
        self.statuses.append(self.http.post("/v1/tasks/valve/predict", json=body).status_code)
        self.unlabelled.append((self.time + LABEL_MS, id_, label))
        known = [one for one in self.unlabelled if one[0] <= self.time]
        self.unlabelled = self.unlabelled[len(known) :]
        if known:
            labels = [
                {"prediction_id": of, "label": value, "event_time": at} for at, of, value in known
            ]
            answer = self.http.post("/v1/tasks/valve/labels", json={"labels": labels})
            self.statuses.append(answer.status_code)

    def ask_until(self, condition: Any, most: int = 2_000) -> None:
        for _ in range(most):
            if condition():
                return
            self.ask()
        raise AssertionError(f"it did not happen within {most} requests")

    @property
    def champion(self) -> str | None:
        (model,) = self.http.get("/v1/models").raise_for_status().json()["models"]
        return str(model["model_version"])

    def logged(self, *topics: str) -> list[Event]:
        found: dict[str, Event] = {}
        for event in read(self.settings.bootstrap, self.codec, topics):
            if event.data.get("task", "valve") == "valve":
                found.setdefault(event.id, event)
        return list(found.values())

    def types(self, topic: str) -> list[str]:
        return [event.type for event in self.logged(topic)]


@pytest.fixture
def world(cluster: Settings, tmp_path: Path) -> Iterator[World]:
    task_file = tmp_path / "valve.py"
    task_file.write_text(TASK_FILE, "utf-8")
    settings = dataclasses.replace(cluster, home=tmp_path)
    instance.remember_tasks(settings, [task_file])
    running = []
    made = None
    # Open: other tests have made keys in this log.
    try:
        for name in SERVICES:
            words = [sys.executable, "-m", "driftlog.services", name, "--task", str(task_file)]
            with (tmp_path / f"{name}.log").open("ab") as out:
                environment = {**os.environ, **settings.to_env(), "DRIFTLOG_SERVING_OPEN": "1"}
                running.append(subprocess.Popen(words, env=environment, stdout=out, stderr=out))
        urls = [
            f"http://{HOST}:{settings.port(port)}{'/healthz' if name == 'serving' else '/metrics'}"
            for name, port in SERVICES.items()
        ]
        eventually(lambda: all(map(answers, urls)), 120)
        made = World(settings)
        yield made
    finally:
        if made is not None:
            made.http.close()
        for process in running:
            process.terminate()
        for process in running:
            process.wait(30)


def test_a_regression_past_the_gate_is_taken_back_and_no_request_fails(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version, score in (("valve-0", 0.5), ("valve-1", 0.9), ("valve-2", 0.1)):
        world.register(version, score)
    world.promote("valve-0", None)
    world.time += 60_000
    world.promote("valve-1", "valve-0")
    eventually(lambda: world.champion == "valve-1")
    for _ in range(400):
        world.ask()

    bad = world.promote("valve-2", "valve-1")
    world.ask_until(lambda: "ModelRolledBack" in world.types(DEPLOYMENTS), 1_000)
    world.ask_until(lambda: world.champion == "valve-1", 1_000)
    (back,) = [e for e in world.logged(DEPLOYMENTS) if e.type == "ModelRolledBack"]
    assert (back.data["model_version"], back.data["previous_version"]) == ("valve-1", "valve-2")
    assert (back.data["actor"], back.data["gates"][0]["passed"]) == ("policy", False)
    made = {
        e.id: e
        for e in world.logged(predictions_topic("valve"))
        if e.data["model_version"] == "valve-2"
    }
    labels = sorted(
        e.time for e in world.logged(labels_topic("valve")) if e.data["prediction_id"] in made
    )
    enough = labels[POLICY.min_labels - 1]
    took_s = (back.time - enough) / 1_000
    assert 0 <= took_s < 30, f"{took_s:.1f} s of event time after the evidence sufficed"
    print(f"taken back {took_s:.1f} s (event time) after {POLICY.min_labels} labels of valve-2,")
    print(f"{(back.time - bad.time) / 1000:.1f} s after its promotion: {back.data['reason']}")

    world.roll_out("valve-2", "valve-1")
    world.ask_until(lambda: "RolloutAborted" in world.types(ROLLOUTS), 1_500)
    assert world.types(ROLLOUTS) == ["RolloutStarted", "RolloutAdvanced", "RolloutAborted"]
    routed = [e for e in world.logged(predictions_topic("valve")) if e.data["route"]]
    assert {e.data["model_version"] for e in routed} == {"valve-1", "valve-2"}
    assert world.champion == "valve-1"
    print(world.logged(ROLLOUTS)[-1].data["reason"])

    for name, value in world.settings.to_env().items():
        monkeypatch.setenv(name, value)
    run = CliRunner()
    frozen = run.invoke(app, ["rollout", "freeze", "--reason", "holidays", "--json"])
    assert frozen.exit_code == 0, frozen.output
    (status,) = map(
        json.loads, run.invoke(app, ["rollout", "status", "--json"]).stdout.splitlines()
    )
    assert status["champion"] == "valve-1"
    assert status["frozen"]["reason"] == "holidays"
    assert [past["outcome"] for past in status["past"]] == ["aborted"]
    print(run.invoke(app, ["rollout", "status"]).stdout)

    assert set(world.statuses) == {200}
    print(f"{len(world.statuses)} requests, all answered")
    folds = [
        fold
        for group in live_folds(world.settings, [VALVE]).values()
        for fold in group
        if fold.name in ("valve.rollout", "rollouts", "registry")
    ]
    assert len(folds) == 3
    ends = len(list(read(world.settings.bootstrap, world.codec, [ROLLOUTS])))

    def verified() -> bool:
        checks = check_folds(world.settings, world.codec, folds)
        stated = [
            e for e in world.logged("driftlog.state_hashes") if e.data["fold"] == "valve.rollout"
        ]
        at = {o["topic"]: o["offset"] for o in stated[-1].data["offsets"]} if stated else {}
        return at.get(ROLLOUTS, 0) >= ends and all(check.passed for check in checks)

    eventually(verified, 60)
