"""Confluent's schema registry REST API over a Registry, plus /healthz and /metrics."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from schemas.compatibility import DEFAULT_LEVEL
from schemas.registry import commands, faults, records, store
from schemas.registry.faults import RegistryFault
from schemas.registry.metrics import RegistryMetrics
from schemas.registry.service import Registry
from schemas.registry.store import Version
from schemas.safety import MAX_SCHEMA_BYTES

MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
MAX_BODY_BYTES = 3 * MAX_SCHEMA_BYTES
Handler = Callable[[Request, Any], Any]
_NUMBER = re.compile(r"[1-9][0-9]{0,9}")


def registry_app(
    registry: Registry,
    loaded: Callable[[], bool],
    metrics: RegistryMetrics,
    lifespan: Any = None,
) -> Starlette:
    """The ASGI app; `loaded` tells whether the topic was read to its end once (before: 503)."""
    api = _Api(registry)
    routes = [_route(path, methods, metrics) for path, methods in api.routes().items()]

    async def healthz(_: Request) -> Response:
        up = loaded()
        return _answer({"status": "ok" if up else "loading"}, 200 if up else 503)

    async def exposition(_: Request) -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    routes += [Route("/healthz", healthz), Route("/metrics", exposition)]
    handlers: Any = {
        RegistryFault: _refuse,
        HTTPException: _http_error,
        Exception: _crash,
    }
    return Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan)


class _Api:
    """One method for each operation: (request, JSON body or None) -> JSON answer."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def routes(self) -> dict[str, dict[str, Handler]]:
        config: dict[str, Handler] = {
            "GET": self.level,
            "PUT": self.set_level,
            "DELETE": self.delete_level,
        }
        mode: dict[str, Handler] = {
            "GET": self.mode,
            "PUT": self.set_mode,
            "DELETE": self.delete_mode,
        }
        check: dict[str, Handler] = {"POST": self.check}
        return {
            "/": {"GET": lambda request, body: {}},
            "/subjects": {"GET": self.subjects},
            "/subjects/{subject}": {"POST": self.look_up, "DELETE": self.delete_subject},
            "/subjects/{subject}/versions": {"GET": self.numbers, "POST": self.register},
            "/subjects/{subject}/versions/{version}": {
                "GET": self.version,
                "DELETE": self.delete_version,
            },
            "/subjects/{subject}/versions/{version}/schema": {"GET": self.version_text},
            "/subjects/{subject}/versions/{version}/referencedby": {"GET": self.referenced_by},
            "/schemas/types": {"GET": lambda request, body: ["AVRO"]},
            "/schemas/ids/{id}": {"GET": self.schema},
            "/schemas/ids/{id}/schema": {"GET": self.schema_text},
            "/schemas/ids/{id}/versions": {"GET": self.schema_versions},
            "/schemas/ids/{id}/subjects": {"GET": self.schema_subjects},
            "/compatibility/subjects/{subject}/versions": check,
            "/compatibility/subjects/{subject}/versions/{version}": check,
            "/config": config,
            "/config/{subject}": config,
            "/mode": mode,
            "/mode/{subject}": mode,
        }

    def subjects(self, request: Request, _: Any) -> list[str]:
        deleted, prefix = _flag(request, "deleted"), request.query_params.get("subjectPrefix", "")
        names = self._registry.read(lambda state: store.subjects(state, deleted))
        return [name for name in names if name.startswith(prefix)]

    def numbers(self, request: Request, _: Any) -> list[int]:
        subject, deleted = _subject(request), _flag(request, "deleted")
        found = self._registry.read(lambda state: store.versions(state, subject, deleted))
        if not found:
            raise faults.no_subject(subject)
        return [version.number for version in found]

    def register(self, request: Request, body: Any) -> dict[str, Any]:
        version = self._registry.register(_subject(request), commands.read_schema(body))
        return {"id": version.id}

    def look_up(self, request: Request, body: Any) -> dict[str, Any]:
        subject, deleted, given = (
            _subject(request),
            _flag(request, "deleted"),
            commands.read_schema(body),
        )
        known = self._registry.read(lambda state: bool(store.versions(state, subject, deleted)))
        if not known:
            raise faults.no_subject(subject)
        found = self._registry.read(lambda state: store.find(state, subject, given.form, deleted))
        if found is None:
            raise faults.no_schema()
        return _full(found)

    def delete_subject(self, request: Request, _: Any) -> list[int]:
        subject, permanent = _subject(request), _flag(request, "permanent")
        return self._registry.change(
            lambda state: commands.delete_subject(state, subject, permanent)
        )

    def version(self, request: Request, _: Any) -> dict[str, Any]:
        return _full(self._version(request))

    def version_text(self, request: Request, _: Any) -> Any:
        return json.loads(self._version(request).text)

    def referenced_by(self, request: Request, _: Any) -> list[int]:
        self._version(request)
        return []

    def delete_version(self, request: Request, _: Any) -> int:
        subject, permanent = _subject(request), _flag(request, "permanent")
        number = _version_number(request)
        return self._registry.change(
            lambda state: commands.delete_version(state, subject, number, permanent)
        )

    def schema(self, request: Request, _: Any) -> dict[str, Any]:
        schema_id, text = self._text(request)
        kind = self._registry.read(lambda state: next(store.uses(state, schema_id, True), None))
        extra = {"schemaType": kind.type} if kind and kind.type != "AVRO" else {}
        top = {"maxId": self._registry.read(lambda state: state.last_id)}
        return {"schema": text, **extra, **(top if _flag(request, "fetchMaxId") else {})}

    def schema_text(self, request: Request, _: Any) -> Any:
        return json.loads(self._text(request)[1])

    def schema_versions(self, request: Request, _: Any) -> list[dict[str, Any]]:
        return [
            {"subject": version.subject, "version": version.number}
            for version in self._uses(request)
        ]

    def schema_subjects(self, request: Request, _: Any) -> list[str]:
        return list(dict.fromkeys(version.subject for version in self._uses(request)))

    def check(self, request: Request, body: Any) -> dict[str, Any]:
        subject, given = _subject(request), commands.read_schema(body)
        number = _version_number(request) if "version" in request.path_params else None
        if number is None and request.path_params.get("version") is not None:
            live = self._registry.read(lambda state: store.versions(state, subject))
            number = live[-1].number if live else None
        why = self._registry.read(lambda state: commands.check(state, subject, given, number))
        verbose = {"messages": why} if _flag(request, "verbose") else {}
        return {"is_compatible": not why, **verbose}

    def level(self, request: Request, _: Any) -> dict[str, Any]:
        subject = request.path_params.get("subject")
        if subject is None:
            return self._registry.read(
                lambda state: {"compatibilityLevel": state.levels.get(None, DEFAULT_LEVEL)}
            )
        own, given = self._registry.read(
            lambda state: (state.levels.get(_subject(request)), store.level(state, subject))
        )
        if own is None and not _flag(request, "defaultToGlobal"):
            raise RegistryFault(
                40408,
                f"Subject '{_subject(request)}' does not have subject-level compatibility configured",
            )
        return {"compatibilityLevel": own or given}

    def set_level(self, request: Request, body: Any) -> dict[str, Any]:
        level = body.get("compatibility") if isinstance(body, dict) else None
        level = level.upper() if isinstance(level, str) else level
        subject = _subject_or_all(request)
        self._registry.change(lambda state: (commands.set_level(subject, level), None))
        return {"compatibility": level}

    def delete_level(self, request: Request, _: Any) -> dict[str, Any]:
        subject = _subject_or_all(request)

        def drop(state: store.State) -> tuple[list[Any], dict[str, Any]]:
            own = state.levels.get(subject)
            if own is None and subject is not None:
                raise faults.no_subject(subject)
            return [records.config_record(subject, None)], {
                "compatibilityLevel": own or DEFAULT_LEVEL
            }

        return self._registry.change(drop)

    def mode(self, request: Request, _: Any) -> dict[str, Any]:
        subject = _subject_or_all(request)
        own = self._registry.read(lambda state: state.modes.get(subject))
        if own is None and subject is not None and not _flag(request, "defaultToGlobal"):
            raise RegistryFault(
                40409, f"Subject '{subject}' does not have subject-level mode configured"
            )
        return {"mode": self._registry.read(lambda state: store.mode(state, subject or ""))}

    def set_mode(self, request: Request, body: Any) -> dict[str, Any]:
        mode = body.get("mode") if isinstance(body, dict) else None
        subject = _subject_or_all(request)
        self._registry.change(lambda state: (commands.set_mode(subject, mode), None))
        return {"mode": mode}

    def delete_mode(self, request: Request, _: Any) -> dict[str, Any]:
        subject = _subject_or_all(request)

        def drop(state: store.State) -> tuple[list[Any], dict[str, Any]]:
            own = state.modes.get(subject)
            if own is None and subject is not None:
                raise faults.no_subject(subject)
            return [records.mode_record(subject, None)], {"mode": own or store.DEFAULT_MODE}

        return self._registry.change(drop)

    def _version(self, request: Request) -> Version:
        subject, number = _subject(request), _version_number(request)
        deleted = _flag(request, "deleted")
        return self._registry.read(lambda state: commands.version(state, subject, number, deleted))

    def _text(self, request: Request) -> tuple[int, str]:
        raw = request.path_params["id"]
        schema_id = int(raw) if _NUMBER.fullmatch(raw) else 0
        text = self._registry.read(lambda state: state.texts.get(schema_id))
        if text is None:
            raise RegistryFault(40403, f"Schema {raw[:20]} not found")
        return schema_id, text

    def _uses(self, request: Request) -> list[Version]:
        schema_id, _ = self._text(request)
        deleted = _flag(request, "deleted")
        return self._registry.read(lambda state: list(store.uses(state, schema_id, deleted)))


def _route(path: str, methods: dict[str, Handler], metrics: RegistryMetrics) -> Route:
    async def serve(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        handler = methods[method]
        with metrics.request(method, path) as seen:
            try:
                body = await _body(request) if method in {"POST", "PUT"} else None
                answer = await run_in_threadpool(handler, request, body)
            except RegistryFault as fault:
                seen.status = fault.status
                raise
            return _answer(answer)

    return Route(path, serve, methods=list(methods))


async def _body(request: Request) -> Any:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise RegistryFault(413, f"The body is larger than {MAX_BODY_BYTES} bytes")
        chunks.append(chunk)
    try:
        return json.loads(b"".join(chunks) or b"null")
    except (ValueError, RecursionError) as error:
        raise RegistryFault(400, f"The body is not JSON: {error}") from error


def _answer(value: Any, status: int = 200) -> Response:
    return Response(json.dumps(value, separators=(",", ":")), status, media_type=MEDIA_TYPE)


def _full(version: Version) -> dict[str, Any]:
    kind = {"schemaType": version.type} if version.type != "AVRO" else {}
    return {
        "subject": version.subject,
        "version": version.number,
        "id": version.id,
        **kind,
        "schema": version.text,
    }


def _subject(request: Request) -> str:
    return str(request.path_params["subject"])


def _subject_or_all(request: Request) -> str | None:
    return _subject(request) if "subject" in request.path_params else None


def _version_number(request: Request) -> int | None:
    text = str(request.path_params["version"])
    if text in {"latest", "-1"}:
        return None
    if not _NUMBER.fullmatch(text) or int(text) > store.MAX_ID:
        raise faults.invalid_version(text[:40])
    return int(text)


def _flag(request: Request, name: str) -> bool:
    return request.query_params.get(name, "").lower() == "true"


async def _refuse(_: Request, error: Any) -> Response:
    return _answer({"error_code": error.code, "message": error.message}, error.status)


async def _http_error(_: Request, error: Any) -> Response:
    return _answer(
        {"error_code": error.status_code, "message": f"HTTP {error.status_code} {error.detail}"},
        error.status_code,
    )


async def _crash(_: Request, error: Exception) -> Response:
    return _answer({"error_code": 500, "message": f"Internal error: {type(error).__name__}"}, 500)
