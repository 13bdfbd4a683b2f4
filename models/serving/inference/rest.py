"""The Open Inference Protocol over HTTP, under /v2."""

from __future__ import annotations

import json

from fastapi import APIRouter, Path, Request, Response

from models.serving.bodies import read_body
from models.serving.inference import openapi, protocol
from models.serving.inference.json_form import HEADER, read_infer, write_infer
from models.serving.instances import FieldError, InvalidRequest
from models.serving.problems import RETRY_AFTER_S, Problem
from models.serving.service import Service

PREFIX = "/v2"
_BINARY = "application/octet-stream"
_UNPROCESSABLE = 422


def router(service: Service) -> APIRouter:
    """The routes for one Service."""
    routes = APIRouter(prefix=PREFIX, tags=["Open Inference Protocol"])
    _add_health(routes, service)
    _add_models(routes, service)
    return routes


def problem_response(problem: Problem) -> Response:
    """`{"error": ...}`; a body that is refused is a 400 here."""
    status = 400 if problem.status == _UNPROCESSABLE else problem.status
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else None
    return Response(
        json.dumps({"error": problem.detail}), status, headers, media_type="application/json"
    )


def _add_health(routes: APIRouter, service: Service) -> None:
    @routes.get("", response_model=openapi.ServerOut)
    async def server() -> Response:
        """What this server is."""
        return _json(protocol.server_metadata())

    @routes.get("/health/live", response_model=openapi.LiveOut)
    async def live() -> Response:
        """200 while the process answers."""
        return _json({"live": True})

    @routes.get("/health/ready", response_model=openapi.ReadyOut, responses=openapi.NOT_READY)
    async def ready() -> Response:
        """200 once the log is connected and every task has a model."""
        is_ready, _ = await service.readiness()
        return _json({"ready": is_ready}, 200 if is_ready else 503)


def _add_models(routes: APIRouter, service: Service) -> None:
    task = Path(description="A task.", json_schema_extra={"enum": list(service.desks)})
    champion = Path(description="The version that must be its champion.")

    @routes.get(
        "/models/{name}", response_model=openapi.ModelMetadataOut, responses=openapi.UNKNOWN
    )
    async def metadata(name: str = task) -> Response:
        """The model's tensors: one per feature that the caller gives."""
        return _json(protocol.model_metadata(service, name))

    @routes.get(
        "/models/{name}/versions/{version}",
        response_model=openapi.ModelMetadataOut,
        responses=openapi.UNKNOWN,
    )
    async def version_metadata(name: str = task, version: str = champion) -> Response:
        """The same, if this version is the champion."""
        return _json(protocol.model_metadata(service, name, version))

    @routes.get(
        "/models/{name}/ready",
        response_model=openapi.ModelReadyOut,
        responses={**openapi.UNKNOWN, **openapi.NOT_READY},
    )
    async def ready(name: str = task) -> Response:
        """Whether the task's champion answers."""
        return _model_ready(service, name)

    @routes.get(
        "/models/{name}/versions/{version}/ready",
        response_model=openapi.ModelReadyOut,
        responses={**openapi.UNKNOWN, **openapi.NOT_READY},
    )
    async def version_ready(name: str = task, version: str = champion) -> Response:
        """Whether this version, as the champion, answers."""
        return _model_ready(service, name, version)

    @routes.post(
        "/models/{name}/infer",
        response_model=openapi.InferOut,
        responses=openapi.REFUSALS,
        openapi_extra=openapi.infer_body(service.tasks),
    )
    async def infer(request: Request, name: str = task) -> Response:
        """Predict; tensors as JSON or, as the protocol's extension says, as bytes after it."""
        return await _infer(service, request, name)

    @routes.post(
        "/models/{name}/versions/{version}/infer",
        response_model=openapi.InferOut,
        responses=openapi.REFUSALS,
        openapi_extra=openapi.infer_body(service.tasks),
    )
    async def version_infer(
        request: Request, name: str = task, version: str = champion
    ) -> Response:
        """The same, if this version is the champion."""
        return await _infer(service, request, name, version)


async def _infer(service: Service, request: Request, name: str, version: str = "") -> Response:
    protocol.model(service, name, version)
    raw = await read_body(request, kinds=(_BINARY,))
    path = {"model_name": name, "model_version": version}
    asked, binary = read_infer(raw, _json_bytes(request.headers.get(HEADER)), path)
    said = await protocol.infer(service, name, version, asked, raw)
    body, json_bytes = write_infer(said, binary)
    if json_bytes is None:
        return Response(body, media_type="application/json")
    return Response(body, headers={HEADER: str(json_bytes)}, media_type=_BINARY)


def _json_bytes(header: str | None) -> int | None:
    if header is None:
        return None
    if not (header.isascii() and header.isdecimal() and len(header) < 10):
        raise InvalidRequest([FieldError(HEADER, "must be the number of bytes of the JSON")])
    return int(header)


def _model_ready(service: Service, name: str, version: str = "") -> Response:
    ready = protocol.model_ready(service, name, version)
    return _json({"name": name, "ready": ready}, 200 if ready else 503)


def _json(body: object, status: int = 200) -> Response:
    return Response(json.dumps(body), status, media_type="application/json")
