"""The real trainer over a log and a history in memory: its evidence, and golden sets that are cut anew."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from models.artifacts import ArtifactStore
from models.dataset import Dataset, golden_rows, to_arrow
from models.history import History
from models.registry_log import RegistryLog
from models.rejudge import rejudge
from models.snapshots import Snapshots
from models.trainer import Trainer
from models.trainer_metrics import TrainerMetrics
from schemas.event import Event
from streams.task import DAY_MS, GatePolicy
from tests.unit.models.memory_trainer import MemoryLog
from tests.unit.models.model_parts import UNTIL_MS, WEAR, asked, rows

TASK = replace(
    WEAR,
    gate=GatePolicy(recent_days=3, golden_share=0.1, min_rows=50, golden_days=30),
)


class Rows:
    """As History: whatever is asked, these rows."""

    def __init__(self) -> None:
        self.rows: Dataset = rows()

    def wait_for(self, offsets: Any, patience_s: float, pause: Any) -> None:
        pass

    def query(self, sql: str) -> Any:
        return to_arrow(TASK, self.rows)


def answer(trainer: Trainer, log: MemoryLog, request: Event, **fields: Any) -> Mapping[str, Any]:
    """The decision that the request ends in."""
    event = Event(request.topic, request.type, {**request.data, **fields})
    log.say(event)
    trainer._answer(event.id)
    ended = log.state.requests[event.id].ended
    assert ended is not None
    return ended[1]


def moved(days: int, seed: int) -> Dataset:
    data = rows(seed=seed)
    shift = days * DAY_MS
    return replace_times(data, shift)


def replace_times(data: Dataset, shift: int) -> Dataset:
    return Dataset(
        data.ids, data.times + shift, data.labels, data.label_times + shift, data.columns
    )


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> tuple[MemoryLog, ArtifactStore]:
    """The first training; one ten days later; one forty days later; one that is told to cut anew."""
    folder: Path = tmp_path_factory.mktemp("artifacts")
    log, history, store = MemoryLog(now_ms=0, task=TASK), Rows(), ArtifactStore(folder)
    snapshots = Snapshots(cast("History", history), store)
    stop = threading.Event()
    trainer = Trainer([TASK], cast("RegistryLog", log), snapshots, store, TrainerMetrics(), stop)
    trainer.start()
    for number, (days, trigger) in enumerate(
        [(0, "drift"), (10, "drift"), (40, "drift"), (41, "golden")], start=1
    ):
        history.rows = moved(days, seed=number)
        until = UNTIL_MS + days * DAY_MS
        request = asked(f"r{number}", until, trigger=trigger)
        answer(trainer, log, request, labels_until=until)
        trainer._answer(f"r{number}")  # a second try says nothing new
    return log, store


def test_golden_sets_replace_one_another_as_the_policy_or_a_person_says(
    lived: tuple[MemoryLog, ArtifactStore],
) -> None:
    log, store = lived
    sets = log.state.golden_sets["wear"]
    assert [taken["request_id"] for taken in sets] == ["r1", "r3", "r4"]
    assert [taken["replaces"] for taken in sets] == [None, *(t["snapshot"] for t in sets[:-1])]
    judged_by = [log.state.versions[f"wear-{n}"].golden for n in (1, 2, 3, 4)]
    assert judged_by == [sets[0]["snapshot"], *(taken["snapshot"] for taken in sets)]
    snapshots = Snapshots(cast("History", None), store)
    for taken in sets:
        assert golden_rows(snapshots.load(TASK, taken).ids, 0.1).all()


def test_what_was_measured_and_not_asked_for_stands_in_the_event(
    lived: tuple[MemoryLog, ArtifactStore],
) -> None:
    log, _ = lived
    decisions = [d for d in log.state.decisions["wear"] if d.gates]
    assert len(decisions) == 4
    last = {measure["name"]: measure for measure in decisions[-1].evidence}
    assert {"missing_labels", "calibration_error", "bytes", "latency_us"} <= set(last)
    assert last["latency_us"]["value"] > 0 < last["bytes"]["baseline"]
    recent = {gate["name"]: gate for gate in decisions[-1].gates}["recent_log_loss"]
    assert recent["low"] < recent["high"] and recent["blocks"] >= 3
    assert recent["maturity"] == pytest.approx(1.0)


def test_so_the_log_alone_judges_it_by_latency(lived: tuple[MemoryLog, ArtifactStore]) -> None:
    log, _ = lived
    strict = replace(TASK.gate, max_latency_ratio=1e-6)
    for judged in rejudge(log.state, "wear", strict):
        if judged.decision.previous != "wear-0":
            assert "latency" in judged.verdict.reason
            assert not judged.verdict.passed


def test_the_calibration_of_the_scores_is_registered(
    lived: tuple[MemoryLog, ArtifactStore],
) -> None:
    log, _ = lived
    for event in log.events:
        if event.type == "ModelRegistered" and event.data["reference"]:
            score = next(c for c in event.data["reference"] if c["name"] == "score")
            bins = event.data["calibration"]
            assert [b["negatives"] + b["positives"] for b in bins] == score["counts"]
            assert set(event.data["estimate_errors"]) == {"log_loss", "accuracy", "auc"} or (
                event.data["estimate_errors"] == {}
            )
