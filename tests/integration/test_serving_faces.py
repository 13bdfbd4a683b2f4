"""The serving process itself: both faces on their ports, and back on them after a SIGTERM."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from infra import records
from infra.settings import Settings
from models.serving.grpc import driftlog_pb2 as pb
from models.serving.grpc import driftlog_pb2_grpc as stubs
from tests.integration.clusters import CLUSTER, eventually, pid_of, running

pytestmark = pytest.mark.integration
FACES = ("driftlog.v1.Driftlog", "inference.GRPCInferenceService")


def healthy(settings: Settings, face: str) -> bool:
    with grpc.insecure_channel(settings.grpc) as channel:
        request = health_pb2.HealthCheckRequest(service=face)
        said = health_pb2_grpc.HealthStub(channel).Check(request, timeout=20)
        return bool(said.status == health_pb2.HealthCheckResponse.SERVING)


def both_answer(settings: Settings) -> None:
    assert httpx.get(f"{settings.rest}/readyz").status_code == 200
    assert httpx.get(f"{settings.rest}/v2/health/ready").json() == {"ready": True}
    assert [healthy(settings, face) for face in FACES] == [True, True]
    with grpc.insecure_channel(settings.grpc) as channel:
        said = stubs.DriftlogStub(channel).Models(pb.ModelsRequest(), timeout=20)
        assert list(said.models) == httpx.get(f"{settings.rest}/v1/models").json()["models"] == []


def test_both_faces_are_up_and_come_back(tmp_path: Path) -> None:
    with running(tmp_path, (*CLUSTER, "serving")) as settings:
        both_answer(settings)
        record = records.read_record(settings, "serving")
        assert record is not None
        assert f"127.0.0.1:{record.ports[1]}" == settings.grpc
        before = pid_of(settings, "serving")
        os.kill(before, signal.SIGTERM)

        def is_back() -> bool:
            found = records.read_record(settings, "serving")
            return found is not None and found.state == "ready" and found.pid != before

        eventually(is_back)
        both_answer(settings)
        log = (settings.logs / "serving.log").read_text("utf-8")
        assert "Traceback" not in log, log[-3000:]
