"""`models gates` and `models evaluate` on a registry of two versions, one of them refused."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from driftlog.cli import models_judge
from driftlog.cli.errors import CliError
from driftlog.cli.models import models_app
from driftlog.cli.opened import OpenedRegistry
from models import snapshot_file, training
from models.artifacts import ArtifactStore
from models.lineage import Artifact, Cut, Run
from models.registry import Registry
from models.scorer import Scorer
from streams.task import DAY_MS, GatePolicy
from tests.unit.models.model_parts import UNTIL_MS, WEAR, asked, rows

TASK = replace(WEAR, gate=GatePolicy(recent_days=3, golden_share=0.1, min_rows=50))


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """wear-1 was promoted, wear-2 (trained on turned labels) refused."""
    store = ArtifactStore(tmp_path_factory.mktemp("store"))
    events: list[Any] = []
    champion, golden = None, None
    for number, data in enumerate([rows(2_500), rows(2_500, seed=2, turned=True)], start=1):
        request = asked(f"r{number}", UNTIL_MS + number)
        run = Run(TASK, request.data, f"wear-{number}")
        taken = run.snapshot_taken(cut(store, data), "training")
        if golden is None:
            mask = training.golden_set(TASK, data)
            assert mask is not None
            golden = data.where(mask)
            events.append(run.snapshot_taken(cut(store, golden), "golden"))
        made = training.train(TASK, data, UNTIL_MS + number, champion, golden, run.version)
        stored = store.put_model(made.onnx)
        artifact = Artifact(stored, "gradient_boosting", {}, 7, {}, made.metrics)
        registered = run.registered(
            2, artifact, caused_by="f", snapshot=taken.data["snapshot"], golden=None
        )
        previous = champion.version if champion else None
        decided = run.decided(3, registered.data, previous, made.verdict)
        events += [request, taken, registered, decided]
        if made.verdict.passed:
            scorer = Scorer.from_bytes(made.onnx)
            seen_until = UNTIL_MS - 4 * DAY_MS  # so that newer rows can judge the next one
            champion = training.Champion(run.version, scorer, seen_until, stored.bytes)
    state = Registry().apply(Registry().initial(), events)
    settings = SimpleNamespace(artifacts=store._root)
    states = {"registry": state, "rollouts": {}}
    return OpenedRegistry(settings, {"wear": TASK}, None, states)  # type: ignore[arg-type]


def cut(store: ArtifactStore, data: Any) -> Cut:
    stored = store.put_snapshot(snapshot_file.to_parquet(TASK, data))
    return Cut(stored.sha256, stored.path, stored.bytes, len(data), data.positives, 0, 1, "", {})


@pytest.fixture
def run(opened: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(models_judge, "open_registry", lambda: opened)

    def call(*words: str) -> Any:
        return CliRunner().invoke(models_app, words)

    return call


def test_past_decisions_stand_under_the_same_policy(run: Any) -> None:
    done = run("gates", "wear", "--json")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(d["model_version"], d["then"], d["now"]) for d in found] == [
        ("wear-1", "promoted", "promoted"),
        ("wear-2", "refused", "refused"),
    ]
    assert found[1]["reason"].startswith("wear-2 stays behind wear-1: ")


def test_another_policy_turns_them_around(run: Any) -> None:
    words = ["--policy", "gate.max_recent_ratio=9", "--policy", "gate.max_golden_ratio=none"]
    done = run("gates", "wear", *words, "--policy", "gate.max_calibration_error=0.9")
    assert done.exit_code == 0
    assert "1 of 2 decisions would be others under gate.max_calibration_error = 0.9" in done.stdout
    strict = run("gates", "wear", "--policy", "gate.max_size_ratio=0.001", "--json")
    assert strict.stdout.count("times the champion's") == 1, "the first has no champion to beat"


def test_what_is_no_gate_is_refused(run: Any) -> None:
    assert isinstance(run("gates", "wear", "--policy", "retrain.votes=1").exception, CliError)
    assert isinstance(run("gates", "wear", "--policy", "gate.rule=best").exception, CliError)


def test_a_version_is_evaluated_on_golden_rows(run: Any, opened: Any) -> None:
    done = run("evaluate", "wear-1", "--json")
    assert done.exit_code == 0, done.exception
    good, bad = json.loads(done.stdout), json.loads(run("evaluate", "wear-2", "--json").stdout)
    assert good["rows"] == bad["rows"] > 300, (
        "the golden set and the golden rows of the newest snapshot"
    )
    assert {each["feature"] for each in good["slices"]} == {"colour"}
    said = run("evaluate", "wear-1", "--by", "colour").stdout
    assert "wear-1 on" in said and "calibration error" in said
    wrong = run("evaluate", "wear-1", "--by", "size").exception
    assert isinstance(wrong, CliError) and "it has colour" in str(wrong)
