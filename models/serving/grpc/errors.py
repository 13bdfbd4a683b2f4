"""Errors over gRPC: a code, a message, and google.rpc details that say which field or when to come back."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from models.serving.instances import FieldError
from models.serving.problems import RETRY_AFTER_S, as_problem

DETAILS_KEY = "grpc-status-details-bin"
"""Trailing metadata that holds a google.rpc.Status."""
MAX_SHOWN = 20
"""Violations in the details of a status: servers and proxies refuse headers of more than 8 KiB."""
MAX_SHOWN_CHARACTERS = 160

CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    409: grpc.StatusCode.ABORTED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""HTTP status -> what gRPC says for it."""
_COME_BACK = {429, 503}


@dataclass(frozen=True, slots=True)
class Refused:
    """What REST would answer, in gRPC's words."""

    code: grpc.StatusCode
    message: str
    violations: tuple[FieldError, ...] = ()
    retry_after_s: float | None = None
    """The same request may be sent again after so long; None: it would fail again."""

    def metadata(self) -> tuple[tuple[str, bytes], ...]:
        """Trailing metadata for the details."""
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        if self.violations:
            shown = [
                error_details_pb2.BadRequest.FieldViolation(
                    field=error.loc, description=error.message[:MAX_SHOWN_CHARACTERS]
                )
                for error in self.violations[:MAX_SHOWN]
            ]
            _add(status, error_details_pb2.BadRequest(field_violations=shown))
        if self.retry_after_s is not None:
            delay = duration_pb2.Duration()
            delay.FromMilliseconds(round(self.retry_after_s * 1000))
            _add(status, error_details_pb2.RetryInfo(retry_delay=delay))
        return ((DETAILS_KEY, status.SerializeToString()),)


def refused(error: Exception) -> Refused:
    """The same judgement as over REST (`as_problem`); what is not known is INTERNAL, without detail."""
    problem = as_problem(error)
    return Refused(
        CODES.get(problem.status, grpc.StatusCode.INTERNAL),
        problem.detail,
        tuple(problem.errors),
        RETRY_AFTER_S if problem.status in _COME_BACK else None,
    )


def _add(status: status_pb2.Status, detail: object) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)
