"""What OpenAPI says about /v2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, Field

from models.serving.inference.mapping import OUTPUTS, inputs_of
from models.serving.inference.tensors import DTYPES, TEXT
from models.serving.instances import MAX_INSTANCES
from streams.task import Task


class ServerOut(BaseModel):
    name: str
    version: str
    extensions: list[str]


class LiveOut(BaseModel):
    live: bool


class ReadyOut(BaseModel):
    ready: bool


class ModelReadyOut(BaseModel):
    name: str
    ready: bool


class TensorOut(BaseModel):
    """What is known of a tensor before there is one; -1 stands for the number of rows."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadataOut(BaseModel):
    """A task's champion as the protocol sees it."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorOut]
    outputs: list[TensorOut]


class OutputOut(BaseModel):
    """`data` holds the values, unless bytes were asked for."""

    name: str
    datatype: str
    shape: list[int]
    data: list[float | int | str] | None = None
    parameters: dict[str, Any] | None = None


class InferOut(BaseModel):
    """`event_id` of each row is what its label refers to."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: dict[str, Any] | None = Field(
        default=None, description="`warnings`, if something was amiss."
    )
    outputs: list[OutputOut]


class InferErrorOut(BaseModel):
    error: str


_MEANINGS = {
    400: "The request is refused; nothing of it was accepted.",
    404: "No such task, or the version is not its champion.",
    408: "The body did not arrive in time.",
    413: "The body is larger than 1 MiB.",
    415: "The body is declared as something else than JSON or octets.",
    503: "No model yet, or the log did not acknowledge in time: send the same body again.",
}
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"description": meaning, "model": InferErrorOut}
    for status, meaning in _MEANINGS.items()
}
UNKNOWN: dict[int | str, dict[str, Any]] = {404: REFUSALS[404]}
NOT_READY: dict[int | str, dict[str, Any]] = {503: {"description": "Not ready.", "model": ReadyOut}}
_ROWS = {"type": "integer", "minimum": 1, "maximum": MAX_INSTANCES}


def infer_body(tasks: Sequence[Task]) -> dict[str, Any]:
    """`openapi_extra` of infer: the schema, and an example per task."""
    tensor = {
        "type": "object",
        "required": ["name", "datatype", "shape", "data"],
        "properties": {
            "name": {"type": "string"},
            "datatype": {"type": "string", "enum": [*DTYPES, TEXT]},
            "shape": {"type": "array", "items": _ROWS, "minItems": 1, "maxItems": 2},
            "data": {"type": "array", "items": {"type": ["number", "string", "null"]}},
            "parameters": {"type": "object"},
        },
    }
    output = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string", "enum": list(OUTPUTS)}},
    }
    schema = {
        "type": "object",
        "required": ["inputs"],
        "additionalProperties": False,
        "properties": {
            "id": {"type": "string"},
            "model_name": {"type": ["string", "null"]},
            "model_version": {"type": ["string", "null"]},
            "parameters": {"type": "object"},
            "inputs": {"type": "array", "items": tensor, "minItems": 1},
            "outputs": {"type": "array", "items": output},
        },
    }
    examples = {task.name: {"value": {"inputs": _example(task)}} for task in tasks}
    content = {"application/json": {"schema": schema, "examples": examples}}
    return {"requestBody": {"required": True, "content": content}}


def _example(task: Task) -> list[dict[str, Any]]:
    return [
        {"name": name, "datatype": kind, "shape": [1], "data": ["A" if kind == TEXT else 1.0]}
        for name, kind in inputs_of(task).items()
    ]
