"""Errors over HTTP: RFC 9457 problem details, `application/problem+json`."""

from __future__ import annotations

import json
from collections.abc import Sequence

from fastapi import Request, Response

from models.serving.instances import FieldError, InvalidRequest
from streams.log import LogUnavailable

RETRY_AFTER_S = 2

_TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class Problem(Exception):
    """A request that is not served: status, what happened and what to do next."""

    def __init__(self, status: int, detail: str, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = errors


def as_problem(error: Exception) -> Problem:
    """The Problem that a known error means to the caller; others are internal errors without detail."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, InvalidRequest):
        return Problem(422, f"the request was refused: {error}", error.errors)
    if isinstance(error, LogUnavailable):
        detail = f"the log did not acknowledge: {error}; send the same body again (with event_ids)"
        return Problem(503, detail)
    return Problem(500, "serving failed on this request; its log says why")


def response(problem: Problem, request: Request) -> Response:
    """The problem as a response; a 503 says when to come back."""
    body: dict[str, object] = {
        "type": "about:blank",
        "title": _TITLES.get(problem.status, "Error"),
        "status": problem.status,
        "detail": problem.detail,
        "instance": request.scope["path"],
    }
    if problem.errors:
        body["errors"] = [{"loc": e.loc, "message": e.message} for e in problem.errors]
    headers = {"Retry-After": str(RETRY_AFTER_S)} if problem.status == 503 else None
    content = json.dumps(body)
    return Response(content, problem.status, headers, "application/problem+json")
