"""REST: routes, status codes and metrics around the Service."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import FastAPI, Path, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.serving import openapi
from models.serving.bodies import parse_json, read_body
from models.serving.complaints import Complaints
from models.serving.docs_page import render
from models.serving.drain import Farewell
from models.serving.guards.setup import Guards
from models.serving.inference import rest as inference
from models.serving.instances import InvalidRequest
from models.serving.metrics import Metrics
from models.serving.problems import Problem, as_problem, response
from models.serving.quick import QuickPredict, Refuse
from models.serving.service import Service
from models.serving.which import named_task, only_task
from streams.log import LogUnavailable

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def _no_lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield


def create_app(
    service: Service, lifespan: Lifespan = _no_lifespan, guards: Guards | None = None
) -> FastAPI:
    """The ASGI application of one Service, behind `guards` if there are any."""
    app = FastAPI(
        title="driftlog serving",
        version="1",
        description="Predictions and labels; each is an event in the log before it is answered.",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages need a content delivery network
        redoc_url=None,
    )
    refuse = _add_problems(app, service.metrics)
    app.add_middleware(QuickPredict, service=service, refuse=refuse)
    if guards is not None:
        guards.stand_before(app)
    app.add_middleware(_Measured, metrics=service.metrics)
    app.add_middleware(Farewell, leaving=lambda: service.leaving)
    _add_tasks(app, service)
    _add_short_forms(app, service)
    app.include_router(inference.router(service))
    _add_operations(app, service)
    return app


def _add_tasks(app: FastAPI, service: Service) -> None:
    known = Path(description="A task.", json_schema_extra={"enum": list(service.desks)})

    @app.post(
        "/v1/tasks/{task}/predict",
        response_model=openapi.PredictOut,
        responses=openapi.PROBLEMS,
        openapi_extra=openapi.predict_body(service.tasks),
    )
    async def predict(request: Request, task: str = known) -> Response:
        """Score instances with the task's champion and record each as a PredictionMade event."""
        service.desk(task)
        raw = await read_body(request)
        return _json(await service.predict(task, parse_json(raw), raw))

    @app.post(
        "/v1/tasks/{task}/labels",
        response_model=openapi.LabelsOut,
        responses=openapi.PROBLEMS,
        openapi_extra=openapi.labels_body(service.tasks),
    )
    async def labels(request: Request, task: str = known) -> Response:
        """Record the truth about predictions as LabelObserved events."""
        service.desk(task)
        return _json(await service.label(task, parse_json(await read_body(request))))

    @app.get("/v1/models", response_model=openapi.ModelsOut)
    async def models() -> Response:
        """The champion of each task, since when and why."""
        return _json({"models": service.models()})


def _add_short_forms(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/predict",
        response_model=openapi.PredictOut,
        responses=openapi.PROBLEMS,
        openapi_extra=openapi.predict_body(service.tasks, named=True),
    )
    async def predict(request: Request) -> Response:
        """The same for the only task there is, or the one that the body names as `task`."""
        raw = await read_body(request)
        task, body = _named(service, parse_json(raw))
        return _json(await service.predict(task, body, raw))

    @app.post(
        "/v1/labels",
        response_model=openapi.LabelsOut,
        responses=openapi.PROBLEMS,
        openapi_extra=openapi.labels_body(service.tasks, named=True),
    )
    async def labels(request: Request) -> Response:
        """The same for the only task there is, or the one that the body names as `task`."""
        task, body = _named(service, parse_json(await read_body(request)))
        return _json(await service.label(task, body))


def _named(service: Service, body: Any) -> tuple[str, Any]:
    """The task that the body is about, and the body without its name."""
    if not isinstance(body, dict) or "task" not in body:
        return only_task(service), body
    return named_task(service, body.pop("task")), body


def _add_operations(app: FastAPI, service: Service) -> None:
    @app.get("/healthz")
    async def healthz() -> Response:
        """200 while the process answers."""
        return _json({"status": "ok"})

    @app.get("/readyz", responses={503: {"description": "Not ready; the body says why."}})
    async def readyz() -> Response:
        """200 once the log is connected and every task has a model."""
        ready, detail = await service.readiness()
        return _json(detail, 200 if ready else 503)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Prometheus' text format."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        return HTMLResponse(render(app.openapi(), str(request.base_url).rstrip("/")))


def _add_problems(app: FastAPI, metrics: Metrics) -> Refuse:
    complaints = Complaints(metrics)

    async def refuse(request: Request, error: Exception) -> Response:
        problem = as_problem(error)
        if problem.status >= 500:
            complaints.note(request.scope["path"], error)
        return _refusal(problem, request)

    async def unrouted(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        detail = f"{request.method} {request.scope['path']}: {error.detail}; see /docs"
        answer = _refusal(Problem(error.status_code, detail), request)
        answer.headers.update(error.headers or {})
        return answer

    async def gone(request: Request, _: Exception) -> Response:
        return _refusal(Problem(400, "the caller went away before the body was complete"), request)

    for known in (Problem, InvalidRequest, LogUnavailable, Exception):
        app.add_exception_handler(known, refuse)
    app.add_exception_handler(HTTPException, unrouted)
    app.add_exception_handler(ClientDisconnect, gone)

    schema = app.openapi

    def with_problem() -> dict[str, Any]:
        document = schema()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        if "ProblemOut" not in schemas:
            template = "#/components/schemas/{model}"
            problem = openapi.ProblemOut.model_json_schema(ref_template=template)
            schemas.update(problem.pop("$defs", {}))
            schemas["ProblemOut"] = problem
        return document

    app.openapi = with_problem  # type: ignore[method-assign]
    return refuse


class _Measured:
    """ASGI middleware: counts requests and times them, by route and status."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500
        start = time.perf_counter()

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note)
        finally:
            route = getattr(scope.get("route"), "path", "unknown")
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - start)


def _refusal(problem: Problem, request: Request) -> Response:
    if request.scope["path"].startswith(inference.PREFIX):
        return inference.problem_response(problem)
    return response(problem, request)


def _json(body: object, status: int = 200) -> Response:
    return Response(json.dumps(body), status, media_type="application/json")
