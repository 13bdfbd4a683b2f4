"""driftlog.v1.Driftlog: predict, label and models, as over REST."""

from __future__ import annotations

from typing import Any

import grpc

from models.serving.grpc import driftlog_pb2 as pb
from models.serving.grpc.calls import Calls
from models.serving.grpc.errors import Refused
from models.serving.grpc.values import (
    label_body,
    label_response,
    models_response,
    predict_body,
    predict_response,
)
from models.serving.service import Service
from models.serving.which import named_task, only_task

DESCRIPTOR = pb.DESCRIPTOR.services_by_name["Driftlog"]


def handlers(service: Service) -> Any:
    """The generic handler of this service for a gRPC server."""

    def meant(request: Any) -> str:
        return named_task(service, request.task) if request.task else only_task(service)

    async def predict(request: Any) -> Any:
        task = meant(request)
        body = predict_body(request)
        return predict_response(await service.predict(task, body, _identity(request)))

    async def predict_one(request: Any) -> Any:
        return pb.PredictStreamResponse(answer=await predict(request))

    async def label(request: Any) -> Any:
        task = meant(request)
        return label_response(await service.label(task, label_body(request)))

    async def models(_: Any) -> Any:
        return models_response(service.models())

    calls = Calls(DESCRIPTOR, service.metrics)
    return grpc.method_handlers_generic_handler(
        DESCRIPTOR.full_name,
        {
            "Predict": calls.unary("Predict", predict),
            "PredictStream": calls.stream("PredictStream", predict_one, _refusal),
            "Label": calls.unary("Label", label),
            "Models": calls.unary("Models", models),
        },
    )


def _identity(request: Any) -> bytes:
    """Equal for a request that is sent again, whatever the order of its maps; empty if it is no retry."""
    if not all(instance.HasField("event_id") for instance in request.instances):
        return b""
    raw: bytes = request.SerializeToString(deterministic=True)
    return raw


def _refusal(said: Refused) -> Any:
    return pb.PredictStreamResponse(
        refusal=pb.Refusal(
            code=said.code.value[0],
            message=said.message,
            violations=[
                pb.FieldViolation(field=error.loc, description=error.message)
                for error in said.violations
            ],
            retry_after_ms=round(1000 * (said.retry_after_s or 0)),
        )
    )
