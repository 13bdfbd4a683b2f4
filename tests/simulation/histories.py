"""One small history of a task with drift in it, and the processes that live through it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from schemas.catalogue import (
    DEPLOYMENTS,
    DRIFT_SCORES,
    ESTIMATE_ERRORS,
    LABEL_REQUESTS,
    MODEL_VERSIONS,
    PERFORMANCE_ESTIMATES,
    PERFORMANCE_SCORES,
    RETRAIN_REQUESTS,
    SKETCHES,
    labels_topic,
    predictions_topic,
)
from schemas.event import Event, derive
from streams.canonical import fingerprint
from streams.features import FeatureFold
from streams.folds import control_folds
from streams.ledger import Ledger
from streams.outcomes import OutcomeWindows
from streams.simulation import Faults, Process, SimulatedLog, run_history
from streams.task import Category, DriftPolicy, LabelPolicy, Numeric, Rate, RetrainPolicy, Task
from streams.window_rows import InputWindows

MINUTE = 60_000
HOUR = 60 * MINUTE
PARTITIONS = 2
TASK = Task(
    name="toy",
    label="late",
    label_delay_hours=1,
    features=(Numeric("x"), Category("c"), Rate("rate", by=("c",), hours=1)),
    drift=DriftPolicy(window_hours=1, grace_minutes=10, min_rows=5, min_psi=0.2),
    retrain=RetrainPolicy(first_labels=20, new_labels=10, cooldown_hours=2, votes=1, of_windows=2),
    labelling=LabelPolicy(budget=4),
)
PREDICTIONS, LABELS = predictions_topic("toy"), labels_topic("toy")
TOPICS = (
    PREDICTIONS,
    LABELS,
    SKETCHES,
    DRIFT_SCORES,
    PERFORMANCE_SCORES,
    RETRAIN_REQUESTS,
    MODEL_VERSIONS,
    DEPLOYMENTS,
    PERFORMANCE_ESTIMATES,
    ESTIMATE_ERRORS,
    LABEL_REQUESTS,
)
KEYS = {PREDICTIONS: "event_id", LABELS: "prediction_id"}


CALIBRATION = [
    {
        "negatives": 50 - positives,
        "positives": positives,
        "log_loss_0": one,
        "log_loss_1": other,
        "squared_0": one**2,
        "squared_1": other**2,
        "correct_0": 1.0 - right,
        "correct_1": right,
        "order": 0.6,
    }
    for positives, one, other, right in ((17, 0.4, 1.1, 0.0), (35, 1.2, 0.4, 1.0))
]
"""Of the two bins of the score."""


class Trainer:
    """Stands for the trainer: every request leads to a version (its own decisions are tested elsewhere)."""

    name = "toy.trainer"
    topics = (RETRAIN_REQUESTS,)

    def initial(self) -> list[str]:
        return []

    def apply(self, state: list[str], batch: Sequence[Event]) -> list[str]:
        return [*state, *(event.id for event in batch)]

    def react(self, state: list[str], event: Event) -> list[Event]:
        version = f"toy-{event.id[:6]}"
        return [
            registered(version, event.time, event.id),
            derive(
                DEPLOYMENTS,
                "ModelPromoted",
                event.id,
                time=event.time,
                caused_by=event.id,
                task="toy",
                model_version=version,
                reason="simulated",
                actor="trainer",
            ),
        ]


def registered(version: str, time: int, cause: str | None, reference: bool = True) -> Event:
    columns: list[dict[str, Any]] = [
        {"name": "x", "edges": [-0.5, 0.0, 0.5], "categories": [], "counts": [30, 20, 20, 30]},
        {"name": "c", "edges": [], "categories": ["a", "b"], "counts": [50, 50, 0]},
        {"name": "rate", "edges": [0.5], "categories": [], "counts": [50, 50]},
        {"name": "score", "edges": [0.5], "categories": [], "counts": [50, 50]},
    ]
    return derive(
        MODEL_VERSIONS,
        "ModelRegistered",
        version,
        time=time,
        caused_by=cause,
        task="toy",
        model_version=version,
        metrics={"log_loss": 0.6} if reference else {},
        reference_count=100 if reference else 0,
        reference=[{"missing": 0, "swing": 0.0, **c} for c in columns] if reference else [],
        calibration=CALIBRATION if reference else [],
        estimate_errors={"log_loss": 0.01} if reference else {},
    )


def inputs(seed: int, hours: int = 7, per_hour: int = 12) -> list[Event]:
    """Predictions and labels in order of their time: a cold start, a first model, drift from half way on."""
    rng = random.Random(seed)
    events = [registered("toy-0", 0, None, reference=False), registered("toy-1", 0, None)]
    for n in range(hours * per_hour):
        time = n * HOUR // per_hour
        drifted = time > hours * HOUR // 2
        x = rng.gauss(1.0 if drifted else 0.0, 0.6)
        score = min(max(0.5 + 0.3 * x, 0.01), 0.99)
        name = f"p{seed}-{n}"
        features = {"x": x, "c": rng.choice("ab"), "rate": rng.random()}
        data = {
            "event_id": name,
            "event_time": time,
            "caused_by": None,
            "model_version": "toy-0" if time < 2 * HOUR else "toy-1",
            "score": score,
            "label": int(score > 0.5),
            "features": features,
        }
        events.append(Event(PREDICTIONS, "PredictionMade", data))
        if rng.random() < 0.95:
            known = time + rng.randrange(55 * MINUTE)
            truth = int(rng.random() < (0.5 if drifted else score))
            data = {
                "event_id": f"l{name}",
                "event_time": known,
                "caused_by": None,
                "prediction_id": name,
                "label": truth,
            }
            events.append(Event(LABELS, "LabelObserved", data))
    return sorted(events, key=lambda event: (event.time, event.id))


def live_through(
    seed: int, faults: Faults, fault_seed: int
) -> tuple[dict[str, str], int, SimulatedLog]:
    """Fingerprints of every fold at rest, how many crashes there were, and the log."""
    log = SimulatedLog(
        {PREDICTIONS: PARTITIONS, LABELS: PARTITIONS},
        lambda event: str(event.data[KEYS.get(event.topic, "event_id")]),
    )
    processes = [
        Process(
            log,
            [FeatureFold(TASK, PARTITIONS), InputWindows(TASK), OutcomeWindows(TASK, PARTITIONS)],
        ),
        Process(log, control_folds([TASK], PARTITIONS)),
        Process(log, [Trainer()]),
        Process(log, [Ledger(TOPICS)]),
    ]
    run_history(inputs(seed), log, processes, fault_seed, faults)
    prints = {
        fold.name: fingerprint(process.projector.states[fold.name])
        for process in processes
        for fold in process.folds
    }
    return prints, sum(process.crashes for process in processes), log
