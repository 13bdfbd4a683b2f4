"""Whatever OpenAPI allows, or forbids, is answered as it says; and every answer is in the log."""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case, GenerationMode
from schemathesis.core.transport import Response
from schemathesis.specs.openapi.checks import positive_data_acceptance

from models.serving.api import create_app
from tests.unit.models.serving_parts import MemoryLog, service

LOG = MemoryLog()
SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", create_app(service(LOG)))
SCHEMA.config.generation.update(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
PREDICTS = {"/v1/predict", "/v1/tasks/{task}/predict"}
LABELS = {"/v1/labels", "/v1/tasks/{task}/labels"}
INFERS = {"/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer"}


@SCHEMA.parametrize()
@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_the_service_does_what_its_openapi_says(case: Case) -> None:
    earlier = {event.id for event in LOG.events}
    response = case.call()
    # A schema cannot say that ids differ, that no time lies ahead, that each feature has its tensor.
    case.validate_response(response, excluded_checks=[positive_data_acceptance])
    logged = [event.id for event in LOG.events if event.id not in earlier]
    # A repeat is answered from the log: which ids an earlier example used depends on what ran before.
    said = [one for one in answered(case, response) if one not in earlier]
    assert len(said) == len(logged)
    assert all(one in (None, known) for one, known in zip(said, logged, strict=True))


def answered(case: Case, response: Response) -> list[Any]:
    """The ids that the caller was told, None for a row whose id was not asked for."""
    if response.status_code != 200:
        return []
    path = case.operation.path
    if path in PREDICTS:
        return [said["event_id"] for said in response.json()["predictions"]]
    if path in LABELS:
        return list(response.json()["event_ids"])
    if path in INFERS:
        outputs = {output["name"]: output["data"] for output in response.json()["outputs"]}
        return outputs.get("event_id") or [None] * len(next(iter(outputs.values())))
    return []
