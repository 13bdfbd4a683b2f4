"""What OpenAPI says about bodies that are read by hand (they are checked per task, not per type)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, Field

from models.serving.instances import (
    MAX_ID,
    MAX_INSTANCES,
    MAX_LABELS,
    MAX_NUMBER,
    MAX_TEXT,
)
from streams.task import Category, Task, Text


class PredictionOut(BaseModel):
    """One answer; `event_id` is what its label refers to."""

    event_id: str = Field(examples=["7b0f6a52-5a0e-4f43-9d38-0d1f0c0f9a11"])
    score: float = Field(examples=[0.31], description="Probability of the positive class.")
    label: int = Field(examples=[0], description="1 if the score reached the task's threshold.")
    model_version: str | None = Field(
        default=None, description="Who answered this one; only there if several versions did."
    )


class PredictOut(BaseModel):
    """All answers of a request are in the log; they come from one version, unless one is rolled out."""

    model_version: str = Field(
        examples=["flights-3"],
        description="The version that answered; the champion, if several did.",
    )
    predictions: list[PredictionOut]
    warnings: list[str] | None = Field(
        default=None, description="Only there if something was amiss: features served as missing."
    )


class LabelsOut(BaseModel):
    """How many labels are in the log, and their ids."""

    accepted: int = Field(examples=[1])
    event_ids: list[str]


class RolloutOut(BaseModel):
    """A version beside the champion."""

    model_version: str = Field(examples=["flights-4"])
    share: float = Field(examples=[0.05], description="Of the requests that it answers.")
    shadow: bool = Field(description="It scores what the champion answers, unseen by callers.")


class ModelOut(BaseModel):
    """The champion of a task: since when (event time, ms) and why."""

    task: str = Field(examples=["flights"])
    model_version: str | None = Field(examples=["flights-3"])
    since: int | None = Field(examples=[1372636800000])
    reason: str | None = Field(examples=["all gates passed"])
    rollout: RolloutOut | None = Field(
        default=None, description="Only there while a version stands beside the champion."
    )


class ModelsOut(BaseModel):
    models: list[ModelOut]


class ErrorOut(BaseModel):
    loc: str = Field(examples=["instances[3].distance"])
    message: str = Field(examples=["must be a number, not text"])


class ProblemOut(BaseModel):
    """RFC 9457 problem details."""

    type: str = "about:blank"
    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    detail: str
    instance: str = Field(examples=["/v1/tasks/flights/predict"])
    errors: list[ErrorOut] | None = None


_MEANINGS = {
    404: "No such task; the known ones are named.",
    413: "The body is larger than 1 MiB.",
    422: "The body is refused; `errors` says where and why. Nothing of it was accepted.",
    408: "The body did not arrive in time.",
    415: "The body is not declared as application/json.",
    503: "No model yet, or the log did not acknowledge in time: send the same body again.",
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": meaning,
        "content": {
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemOut"}}
        },
    }
    for status, meaning in _MEANINGS.items()
}

_ID = {"type": "string", "minLength": 1, "maxLength": MAX_ID}
_ENVELOPE: dict[str, Any] = {
    "event_id": {
        **_ID,
        "description": "Identity of the fact; a retry with the same id adds nothing.",
    },
    "event_time": {
        "oneOf": [{"type": "integer", "minimum": 0}, {"type": "string", "format": "date-time"}],
        "description": "When it happened: ms since the epoch or ISO 8601; now if absent.",
    },
}


def predict_body(tasks: Sequence[Task], named: bool = False) -> dict[str, Any]:
    """`openapi_extra` of predict: a schema of the instance and an example per task.

    `named`: the path has no task, so that the body may (of several tasks: must) have it.
    """
    instances = {
        "type": "array",
        "minItems": 1,
        "maxItems": MAX_INSTANCES,
        "items": {"anyOf": [_instance(task) for task in tasks]},
    }
    examples = {task.name: {"instances": [_example(task)]} for task in tasks}
    return _body("instances", instances, examples, tasks if named else ())


def labels_body(tasks: Sequence[Task], named: bool = False) -> dict[str, Any]:
    """`openapi_extra` of labels: an example per task; `named` as for `predict_body`."""
    item = {
        "type": "object",
        "required": ["prediction_id", "label"],
        "additionalProperties": False,
        "properties": {
            "prediction_id": _ID,
            "label": {"type": "integer", "enum": [0, 1]},
            **_ENVELOPE,
        },
    }
    labels = {"type": "array", "minItems": 1, "maxItems": MAX_LABELS, "items": item}
    known = {"prediction_id": "7b0f6a52-5a0e-4f43-9d38-0d1f0c0f9a11", "label": 1}
    examples = {task.name: {"labels": [known]} for task in tasks}
    return _body("labels", labels, examples, tasks if named else ())


def _instance(task: Task) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for feature in task.features:
        if feature.name in task.given:
            about: dict[str, Any] = {"description": feature.doc} if feature.doc else {}
            if isinstance(feature, Text):
                about["maxLength"] = feature.max_length
            fields[feature.name] = {**_value(isinstance(feature, Category | Text)), **about}
    for name in task.private:
        about = {"description": "About a person: logged encrypted, no model's input."}
        longest = task.personal.max_length if task.personal else MAX_TEXT
        fields[name] = {"type": ["string", "null"], "maxLength": longest, **about}
    return {
        "title": task.name,
        "type": "object",
        "required": list(fields),
        "additionalProperties": False,
        "properties": {**fields, **_ENVELOPE},
    }


def _value(is_text: bool) -> dict[str, Any]:
    if is_text:
        return {"type": ["string", "null"], "maxLength": MAX_TEXT}
    return {"type": ["number", "null"], "minimum": -MAX_NUMBER, "maximum": MAX_NUMBER}


def _example(task: Task) -> dict[str, Any]:
    shown = {Category: "A", Text: "Thank you, it works."}
    features = {f.name: shown.get(type(f), 1.0) for f in task.features if f.name in task.given}
    return features | dict.fromkeys(task.private, "someone")


def _body(
    items: str, schema: dict[str, Any], examples: dict[str, Any], naming: Sequence[Task]
) -> dict[str, Any]:
    """A request whose body is `{items: [...]}`, with the name of one of the tasks in `naming`, if any."""
    properties, required = {items: schema}, [items]
    if naming:
        names = [task.name for task in naming]
        properties["task"] = {"type": "string", "enum": names}
        required += ["task"] if len(names) > 1 else []
        examples = {name: {"task": name, **example} for name, example in examples.items()}
    whole = {
        "type": "object",
        "required": required,
        "additionalProperties": False,
        "properties": properties,
    }
    shown = {name: {"value": example} for name, example in examples.items()}
    content = {"application/json": {"schema": whole, "examples": shown}}
    return {"requestBody": {"required": True, "content": content}}
