"""The Open Inference Protocol, whatever carries it. A model is a task, its version the champion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from models.serving.inference.mapping import OUTPUTS, body_of, inputs_of, outputs_of
from models.serving.inference.tensors import Tensor
from models.serving.instances import FieldError, InvalidRequest
from models.serving.problems import Problem
from models.serving.service import Desk, Service

NAME = "driftlog"
VERSION = "1"
PLATFORM = "driftlog"
EXTENSIONS = ("binary_tensor_data",)


@dataclass(frozen=True, slots=True)
class Infer:
    """A request for inference. `outputs`: names, all if empty; `id` is given back and means nothing.

    `version`: the one that the body asks for, beside what the path says.
    """

    inputs: Sequence[Tensor]
    outputs: Sequence[str] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Inferred:
    """Its answer; `warnings` as REST has them."""

    model_name: str
    model_version: str
    id: str
    outputs: Sequence[Tensor]
    warnings: Sequence[str] = ()


async def infer(service: Service, name: str, version: str, asked: Infer, raw: bytes) -> Inferred:
    """Predict with task `name`; `raw` identifies the request. Raises like `Service.predict`.

    A `version` that is given must be the champion.
    """
    desk = model(service, name, version or asked.version)
    unknown = [output for output in asked.outputs if output not in OUTPUTS]
    if unknown:
        why = f"has no tensor {unknown[0][:80]!r}: there are {', '.join(OUTPUTS)}"
        raise InvalidRequest([FieldError("outputs", why)])
    body = body_of(desk.task, asked.inputs, asked.parameters)
    answer = await service.predict(name, body, raw)
    return Inferred(
        name,
        answer["model_version"],
        asked.id,
        outputs_of(answer, asked.outputs),
        answer.get("warnings", ()),
    )


def model(service: Service, name: str, version: str = "") -> Desk:
    """The desk of a model; raises Problem 404 for another version than the champion."""
    desk = service.desk(name)
    champion = desk.champion.version if desk.champion else None
    if version and version != champion:
        served = f"it is {champion}" if champion else "no model is loaded yet"
        raise Problem(404, f"version {version[:80]!r} of {name} is not served: {served}")
    return desk


def model_ready(service: Service, name: str, version: str = "") -> bool:
    """Whether the model answers; raises Problem 404 if it is not known."""
    log = service.log
    return model(service, name, version).champion is not None and bool(log and not log.problem)


def server_metadata() -> dict[str, Any]:
    return {"name": NAME, "version": VERSION, "extensions": list(EXTENSIONS)}


def model_metadata(service: Service, name: str, version: str = "") -> dict[str, Any]:
    """Names, datatypes and shapes of a model's tensors; raises Problem 404."""
    desk = model(service, name, version)
    outputs = {name: kind for name, kind in OUTPUTS.items() if name != "model_version"}
    return {
        "name": name,
        "versions": [desk.champion.version] if desk.champion else [],
        "platform": PLATFORM,
        "inputs": _tensors(inputs_of(desk.task)),
        "outputs": _tensors(outputs),
    }


def _tensors(found: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"name": name, "datatype": kind, "shape": [-1]} for name, kind in found.items()]
