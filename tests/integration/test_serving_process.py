"""The serving process before its log is there: both faces say so, and both end on SIGTERM."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from infra.settings import HOST, Settings, serving_port
from models.serving.grpc import driftlog_pb2_grpc as stubs
from tests.integration.clusters import fresh_settings
from tests.unit.models.grpc_parts import ask, instance

pytestmark = pytest.mark.integration
SERVE = """
import os, sys
from infra.settings import Settings
from models.serving import app
from tests.unit.models.serving_parts import FLIGHTS
app.main(Settings.from_env(os.environ), [FLIGHTS], int(sys.argv[1]))
"""
PATIENCE_S = 120
ELSEWHERE = 18_500
"""Base port of a second process."""


def start(settings: Settings, base_port: int = serving_port(1)) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SERVE, str(base_port)],
        env=os.environ | settings.to_env(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return fresh_settings(tmp_path)


@pytest.fixture
def process(settings: Settings) -> Iterator[subprocess.Popen[str]]:
    with start(settings) as started:
        yield started
        started.kill()


def wait_for_http(settings: Settings, process: subprocess.Popen[str]) -> None:
    began = time.monotonic()
    while process.poll() is None and time.monotonic() - began < PATIENCE_S:
        try:
            httpx.get(f"{settings.rest}/healthz", timeout=PATIENCE_S)
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("serving does not answer")


def test_without_a_log_both_faces_are_unready_and_end_cleanly(
    settings: Settings, process: subprocess.Popen[str]
) -> None:
    wait_for_http(settings, process)
    with httpx.Client(base_url=settings.rest, timeout=PATIENCE_S) as http:
        assert http.get("/readyz").status_code == 503
        assert http.get("/v2/health/ready").json() == {"ready": False}
    with grpc.insecure_channel(settings.grpc) as channel:
        request = health_pb2.HealthCheckRequest()
        health = health_pb2_grpc.HealthStub(channel).Check(request, timeout=PATIENCE_S)
        assert health.status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.RpcError) as caught:
            stubs.DriftlogStub(channel).Predict(ask(instance()), timeout=PATIENCE_S)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE

    with socket.socket() as taken:
        taken.bind((HOST, settings.port(ELSEWHERE) + 1))
        taken.listen()
        with start(settings, ELSEWHERE) as second:
            said, _ = second.communicate(timeout=PATIENCE_S)
    assert second.returncode != 0
    assert f"gRPC cannot listen on {HOST}:{settings.port(ELSEWHERE) + 1}" in said

    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 0
