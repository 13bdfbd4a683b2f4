"""The events of an answered request (pure). Ids are derived from it, so a second try makes the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from models.artifacts import Stored
from models.gates import Verdict
from models.search.study import Trial, study_id
from schemas.catalogue import (
    DEPLOYMENTS,
    MODEL_VERSIONS,
    QUALITY_REPORTS,
    RETRAIN_REQUESTS,
    ROLLOUTS,
    SNAPSHOTS,
    TRAINING_RUNS,
    TRIALS,
)
from schemas.event import Event, derive, derived_id
from streams.quality import Check, verdict
from streams.quarantine import Span
from streams.rollout_state import policy_text
from streams.task import Task

ACTOR = "trainer"
COLD_START = "cold_start"


def cold_start_id(task: str) -> str:
    return derived_id("RetrainRequested", task, COLD_START)


def cold_start(task: Task, now_ms: int) -> Event:
    """The request for a task's first version: a constant, while there is nothing to learn from."""
    return derive(
        RETRAIN_REQUESTS,
        "RetrainRequested",
        *(task.name, COLD_START),
        time=now_ms,
        caused_by=None,
        task=task.name,
        trigger=COLD_START,
        reason="cold start: the task has no model yet",
        actor=ACTOR,
        labels_until=now_ms,
        evidence={},
        tried_since=[],
    )


@dataclass(frozen=True, slots=True)
class Cut:
    """A stored dataset: its file, its rows, the span and the part of the log that it was read from."""

    sha256: str
    path: str
    bytes: int
    rows: int
    positives: int
    from_time: int
    to_time: int
    sql: str
    offsets: Mapping[tuple[str, int], int]
    """(topic, partition) -> next offset."""
    excluded: tuple[Span, ...] = ()
    """What was left out, by time."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A stored model and what there is to say about its making."""

    file: Stored
    recipe: str
    parameters: Mapping[str, Any]
    seed: int
    environment: Mapping[str, str]
    metrics: Mapping[str, float] = field(default_factory=dict)
    reference: Sequence[Mapping[str, Any]] = ()
    reference_count: int = 0
    calibration: Sequence[Mapping[str, Any]] = ()
    estimate_errors: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """The training of `version` for a request; `asked` are the request's fields."""

    task: Task
    asked: Mapping[str, Any]
    version: str

    @property
    def request_id(self) -> str:
        return str(self.asked["event_id"])

    def snapshot_taken(self, cut: Cut, purpose: str, replaces: str | None = None) -> Event:
        return self._event(
            SNAPSHOTS,
            "SnapshotTaken",
            self._asked_at,
            self.request_id,
            purpose,
            purpose=purpose,
            snapshot=cut.sha256,
            path=cut.path,
            rows=cut.rows,
            positives=cut.positives,
            bytes=cut.bytes,
            from_time=cut.from_time,
            to_time=cut.to_time,
            sql=cut.sql,
            offsets=[
                {"topic": topic, "partition": partition, "offset": offset}
                for (topic, partition), offset in sorted(cut.offsets.items())
            ],
            replaces=replaces,
            excluded=[
                {"from_time": span.from_time, "to_time": span.to_time, "reason": span.reason}
                for span in cut.excluded
            ],
        )

    def checked(self, snapshot: Mapping[str, Any], checks: Sequence[Check]) -> Event:
        """The QualityChecked of the training set."""
        return self._event(
            QUALITY_REPORTS,
            "QualityChecked",
            self._asked_at,
            snapshot["event_id"],
            model_version=self.version,
            window_start=snapshot["from_time"],
            window_end=snapshot["to_time"],
            revision=0,
            count=snapshot["rows"],
            subject="snapshot",
            **verdict(checks),
        )

    def trial_finished(self, time: int, snapshot: Mapping[str, Any], trial: Trial) -> Event:
        recipe = self.task.recipe
        study = study_id(recipe, snapshot["snapshot"])
        return self._event(
            TRIALS,
            "TrialFinished",
            time,
            snapshot["event_id"],
            *(study, str(trial.number)),
            model_version=self.version,
            study=study,
            snapshot=snapshot["snapshot"],
            recipe=recipe.name,
            trial=trial.number,
            trials=recipe.trials,
            parameters=_json(trial.parameters),
            seed=trial.seed,
            values=list(trial.values),
            value=trial.value,
            state=trial.state,
            reason=trial.reason,
        )

    def training_started(self, snapshot: Mapping[str, Any]) -> Event:
        recipe = self.task.recipe
        sampling: dict[str, Any] = {}
        if recipe.max_rows is not None:
            sampling = {"max_rows": recipe.max_rows, "sampling": recipe.sampling}
            if recipe.sampling == "weighted":
                sampling["half_life_days"] = recipe.half_life_days
        return self._event(
            TRAINING_RUNS,
            "TrainingStarted",
            self._asked_at,
            snapshot["event_id"],
            model_version=self.version,
            recipe=recipe.name,
            parameters=_json({**sampling, **recipe.parameters}),
            seed=recipe.seed,
            snapshot=snapshot["snapshot"],
        )

    def training_finished(
        self, time: int, started: Mapping[str, Any], duration_ms: int, metrics: Mapping[str, float]
    ) -> Event:
        return self._event(
            TRAINING_RUNS,
            "TrainingFinished",
            time,
            started["event_id"],
            model_version=self.version,
            duration_ms=duration_ms,
            metrics=dict(metrics),
        )

    def training_failed(self, time: int, reason: str) -> Event:
        return self._event(
            TRAINING_RUNS,
            "TrainingFailed",
            time,
            self.request_id,
            model_version=self.version,
            reason=reason,
        )

    def registered(
        self,
        time: int,
        artifact: Artifact,
        *,
        caused_by: str,
        parent: str | None = None,
        snapshot: str | None = None,
        golden: str | None = None,
    ) -> Event:
        return self._event(
            MODEL_VERSIONS,
            "ModelRegistered",
            time,
            caused_by,
            model_version=self.version,
            parent=parent,
            snapshot=snapshot,
            golden=golden,
            artifact=artifact.file.sha256,
            path=artifact.file.path,
            bytes=artifact.file.bytes,
            recipe=artifact.recipe,
            parameters=_json(artifact.parameters),
            seed=artifact.seed,
            environment=dict(artifact.environment),
            features=list(self.task.vector),
            metrics=dict(artifact.metrics),
            reference_count=artifact.reference_count,
            reference=list(artifact.reference),
            calibration=list(artifact.calibration),
            estimate_errors=dict(artifact.estimate_errors),
        )

    def decided(
        self, time: int, registered: Mapping[str, Any], previous: str | None, verdict: Verdict
    ) -> Event:
        """ModelPromoted or PromotionRejected; one id for both, since there is one decision.

        Where the task rolls out by steps a challenger that passed gets a RolloutStarted instead, and its
        promotion is said by what weighs the evidence. The first version has nobody to be compared with.
        """
        rollout = self.task.rollout
        if verdict.passed and previous is not None and not rollout.immediate:
            return self._event(
                ROLLOUTS,
                "RolloutStarted",
                time,
                registered["event_id"],
                model_version=self.version,
                previous_version=previous,
                strategy=rollout.strategy,
                policy=policy_text(rollout),
                reason=verdict.reason,
                actor=ACTOR,
                gates=[dict(gate) for gate in verdict.gates],
                gate_evidence=[dict(measure) for measure in verdict.evidence],
            )
        event = self._event(
            DEPLOYMENTS,
            "ModelPromoted",
            time,
            registered["event_id"],
            model_version=self.version,
            previous_version=previous,
            reason=verdict.reason,
            actor=ACTOR,
            gates=[dict(gate) for gate in verdict.gates],
            evidence=[dict(measure) for measure in verdict.evidence],
        )
        return event if verdict.passed else Event(event.topic, "PromotionRejected", event.data)

    @property
    def _asked_at(self) -> int:
        return int(self.asked["event_time"])

    def _event(
        self, topic: str, type_: str, time: int, caused_by: str, *part: str, **fields: Any
    ) -> Event:
        return derive(
            topic,
            type_,
            *(self.request_id, *part),
            time=time,
            caused_by=caused_by,
            task=self.task.name,
            request_id=self.request_id,
            **fields,
        )


def _json(parameters: Mapping[str, Any]) -> str:
    return json.dumps(dict(parameters), sort_keys=True)
