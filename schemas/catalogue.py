"""The topic catalogue: every topic, what it carries, how it is keyed and partitioned."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from schemas.union import union_of

Schema = dict[str, Any]

SKETCHES = "driftlog.sketches"
DRIFT_SCORES = "driftlog.drift_scores"
QUALITY_REPORTS = "driftlog.quality_reports"
QUALITY_COMMANDS = "driftlog.quality_commands"
PERFORMANCE_SCORES = "driftlog.performance_scores"
PERFORMANCE_ESTIMATES = "driftlog.performance_estimates"
ESTIMATE_ERRORS = "driftlog.estimate_errors"
LABEL_REQUESTS = "driftlog.label_requests"
ALERTS = "driftlog.alerts"
RETRAIN_REQUESTS = "driftlog.retrain_requests"
SNAPSHOTS = "driftlog.snapshots"
TRAINING_RUNS = "driftlog.training_runs"
TRIALS = "driftlog.trials"
MODEL_VERSIONS = "driftlog.model_versions"
DEPLOYMENTS = "driftlog.deployments"
ROLLOUTS = "driftlog.rollouts"
ROLLOUT_COMMANDS = "driftlog.rollout_commands"
STATE_HASHES = "driftlog.state_hashes"
FAULTS = "driftlog.faults"
REPLAYS = "driftlog.replays"
COUNTERFACTUALS = "driftlog.counterfactuals"
CORRECTIONS = "driftlog.corrections"
DOCUMENTS = "driftlog.documents"
AGENT_REQUESTS = "driftlog.agent_requests"
AGENT_STEPS = "driftlog.agent_steps"
AGENT_ANSWERS = "driftlog.agent_answers"
ACCESS = "driftlog.access"
AUDIT = "driftlog.audit"
PRIVACY = "driftlog.privacy"

DLQ_SUFFIX = ".dlq"


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic: its record types, its key field (the unit of ordering) and its partition count."""

    name: str
    schemas: tuple[Schema, ...]
    key: str = "task"
    partitions: int = 1

    @property
    def subject(self) -> str:
        """TopicNameStrategy, the default of every Confluent client."""
        return f"{self.name}-value"

    @property
    def value_schema(self) -> Schema | list[Schema]:
        """What is registered: the record, or a union when the topic carries several types."""
        return self.schemas[0] if len(self.schemas) == 1 else union_of(self.schemas)

    def schema(self, event_type: str) -> Schema:
        for schema in self.schemas:
            if schema["name"] == event_type:
                return schema
        known = ", ".join(schema["name"] for schema in self.schemas)
        raise KeyError(f"topic {self.name} carries {known}, not {event_type}")


@cache
def load_schema(name: str) -> Schema:
    """The checked-in `.avsc` of a system event; raises FileNotFoundError for an unknown name."""
    text = resources.files("schemas").joinpath("events", f"{name}.avsc").read_text("utf-8")
    schema: Schema = json.loads(text)
    return schema


def _topic(name: str, *types: str, key: str = "task") -> Topic:
    return Topic(name, tuple(load_schema(type_) for type_ in types), key)


@cache
def system_topics() -> tuple[Topic, ...]:
    """The topics that exist whatever the task; one partition each, so each has a total order."""
    return (
        _topic(SKETCHES, "SketchTaken"),
        _topic(DRIFT_SCORES, "DriftScored"),
        _topic(QUALITY_REPORTS, "QualityChecked"),
        _topic(QUALITY_COMMANDS, "QuarantineSet", "QuarantineReleased"),
        _topic(PERFORMANCE_SCORES, "PerformanceMeasured"),
        _topic(PERFORMANCE_ESTIMATES, "PerformanceEstimated"),
        _topic(ESTIMATE_ERRORS, "EstimateReconciled"),
        _topic(LABEL_REQUESTS, "LabelsRequested"),
        _topic(ALERTS, "AlertRaised", "AlertResolved"),
        _topic(RETRAIN_REQUESTS, "RetrainRequested"),
        _topic(SNAPSHOTS, "SnapshotTaken"),
        _topic(TRAINING_RUNS, "TrainingStarted", "TrainingFinished", "TrainingFailed"),
        _topic(TRIALS, "TrialFinished"),
        _topic(MODEL_VERSIONS, "ModelRegistered"),
        _topic(DEPLOYMENTS, "ModelPromoted", "PromotionRejected", "ModelRolledBack"),
        _topic(ROLLOUTS, "RolloutStarted", "RolloutAdvanced", "RolloutAborted", "RolloutFinished"),
        _topic(ROLLOUT_COMMANDS, "RolloutCommandGiven"),
        _topic(STATE_HASHES, "StateHashed", key="fold"),
        _topic(FAULTS, "FaultInjected", key="target"),
        _topic(REPLAYS, "ReplayStarted", "ReplayFinished", key="replay_id"),
        _topic(COUNTERFACTUALS, "PredictionRescored", "DecisionReplayed", key="replay_id"),
        _topic(CORRECTIONS, "PredictionCorrected"),
        _topic(DOCUMENTS, "DocumentAdded", key="document_id"),
        _topic(AGENT_REQUESTS, "QuestionAsked", key="event_id"),
        _topic(AGENT_STEPS, "AgentStepTaken", key="request_id"),
        _topic(AGENT_ANSWERS, "AnswerGiven", key="request_id"),
        _topic(ACCESS, "KeyIssued", "KeyRevoked", key="name"),
        _topic(AUDIT, "RequestsRefused"),
        _topic(PRIVACY, "SubjectErased", "PersonalDataRevealed"),
    )


def predictions_topic(task: str) -> str:
    return f"{task}.predictions"


def labels_topic(task: str) -> str:
    return f"{task}.labels"


def features_topic(task: str) -> str:
    return f"{task}.features"


def shadows_topic(task: str) -> str:
    return f"{task}.shadows"


def task_topics(
    task: str,
    features: Mapping[str, str],
    observed: Sequence[str],
    partitions: int = 4,
    private: Sequence[str] = (),
) -> tuple[Topic, ...]:
    """The four topics of a task, their schemas derived from its features.

    `features` maps each feature of the served vector to 'double' or 'string' (category);
    `observed` names the numeric values that arrive as observations about an entity (weather of an airport);
    `private` what predictions hold encrypted about a person.
    """
    namespace = f"driftlog.{task}"
    vector = _record(
        "Features",
        namespace,
        "The served feature vector: what the model saw.",
        [_optional(name, kind) for name, kind in features.items()],
    )
    values = _record(
        "Values",
        namespace,
        "What was observed.",
        [_optional(name, "double") for name in observed],
    )
    prediction = _event_record(
        "PredictionMade",
        namespace,
        "A model answered.",
        _field("model_version", "string", "Version that answered."),
        _field("score", "double", "Probability of the positive class."),
        _field("label", "int", "Decision: 1 if the score reached the threshold."),
        _field("features", vector, "The served feature vector."),
        {
            **_optional("route", "string"),
            "doc": "Which part of a rollout it was: '<rollout_id>/<step>/<arm>'; null outside of one.",
        },
        {
            **_optional("degraded", "string"),
            "doc": "What serving did without: 'online_features' (they are null for that reason), or null.",
        },
        *(_private(private) if private else ()),
    )
    label = _event_record(
        "LabelObserved",
        namespace,
        "The truth about a prediction became known.",
        _field("prediction_id", "string", "event_id of the PredictionMade."),
        _field("label", "int", "0 or 1."),
    )
    observation = _event_record(
        "FeatureObserved",
        namespace,
        "Something was observed about an entity.",
        _field("entity", "string", "What kind of thing, e.g. 'origin'."),
        _field("key", "string", "Which one, e.g. 'JFK'."),
        _field("values", values, "What was observed."),
    )
    shadow = _event_record(
        "ShadowPredictionMade",
        namespace,
        "Another version scored what a PredictionMade had answered; no caller saw it.",
        _field("prediction_id", "string", "event_id of the PredictionMade."),
        _field("model_version", "string", "Version that scored in the shadow."),
        {**_optional("score", "double"), "doc": "Its score; null if it had none that is finite."},
        {**_optional("label", "int"), "doc": "Its decision; null without a score."},
        _field("answered_by", "string", "Version that answered the caller."),
        _field("answered_score", "double", "The score that the caller got."),
        _field(
            "reason_id", "string", "event_id of the rollout or promotion that it is shadowed for."
        ),
    )
    return (
        Topic(predictions_topic(task), (prediction,), "event_id", partitions),
        Topic(labels_topic(task), (label,), "prediction_id", partitions),
        Topic(features_topic(task), (observation,), "key", partitions),
        Topic(shadows_topic(task), (shadow,), "prediction_id", partitions),
    )


def _field(name: str, type_: Any, doc: str) -> Schema:
    return {"name": name, "type": type_, "doc": doc}


def _optional(name: str, type_: str) -> Schema:
    return {"name": name, "type": ["null", type_], "default": None}


def _private(names: Sequence[str]) -> list[Schema]:
    """Fields of one level: the history keeps those of nested records in dictionaries of few values."""
    person = {
        **_optional("person", "string"),
        "doc": "Pseudonym of the person, made by the person's own key; null without a person.",
    }
    sealed = "Encrypted under the person's key: 's1.' and base64url of AES-SIV; null as it came."
    return [person, *({**_optional(f"personal_{name}", "string"), "doc": sealed} for name in names)]


def _record(name: str, namespace: str, doc: str, fields: list[Schema]) -> Schema:
    return {"type": "record", "name": name, "namespace": namespace, "doc": doc, "fields": fields}


def _event_record(name: str, namespace: str, doc: str, *fields: Schema) -> Schema:
    envelope = load_schema("SketchTaken")["fields"][:3]
    return _record(name, namespace, doc, [*envelope, *fields])
