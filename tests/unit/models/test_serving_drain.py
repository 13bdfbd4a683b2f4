"""A serving process that is told to stop says so, answers on, and closes its door only then."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from infra.settings import HOST
from tests.unit.models.serving_parts import flight

ROOT = Path(__file__).parents[3]
PROGRAM = """
import asyncio, sys, uvicorn
from models.serving.api import create_app
from models.serving.drain import DrainingServer
from tests.unit.models.serving_parts import service

async def main():
    served = service()
    config = uvicorn.Config(create_app(served), port=int(sys.argv[1]), log_level="error")
    await DrainingServer(config, served.leave, float(sys.argv[2])).serve()

asyncio.run(main())
"""
PREDICT = "/v1/tasks/flights/predict"


@contextmanager
def process(delay_s: float) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", PROGRAM, str(port), str(delay_s)]
    running = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        with httpx.Client(base_url=f"http://{HOST}:{port}", timeout=20) as http:
            deadline = time.monotonic() + 60
            while not ready(http):
                assert time.monotonic() < deadline
                assert running.poll() is None
                time.sleep(0.05)
            yield running, http
    finally:
        running.kill()
        running.wait()


def ready(http: httpx.Client) -> bool:
    try:
        return http.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_it_answers_while_it_leaves_and_ends_then() -> None:
    with process(3.0) as (running, http):
        body = {"instances": [flight()]}
        assert "connection" not in http.post(PREDICT, json=body).headers
        running.send_signal(signal.SIGTERM)
        while (told := http.get("/readyz")).status_code == 200:
            time.sleep(0.01)
        assert told.json()["leaving"] == "this replica is about to stop"
        answer = http.post(PREDICT, json=body)
        assert answer.status_code == 200
        assert answer.headers["connection"] == "close"
        assert running.wait(30) == -signal.SIGTERM


def test_a_second_signal_ends_it_at_once() -> None:
    with process(250.0) as (running, http):
        running.send_signal(signal.SIGTERM)
        while http.get("/readyz").status_code == 200:
            time.sleep(0.01)
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == -signal.SIGTERM
