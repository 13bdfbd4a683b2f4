"""Two serving replicas from outside, under load, while models, brokers and replicas come and go.

Shares the instance of test_system.py and runs after it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from schemas.catalogue import DEPLOYMENTS
from schemas.event import derive
from streams.log import LogWriter, connect_codec
from tests.e2e.conftest import ROOT, System
from tests.e2e.test_system import all_ready, each_once, has_new_pid
from tests.integration.clusters import eventually, pid_of

pytestmark = pytest.mark.integration
RATE = 500
"""Requests a second."""
SWAPS = 20


@contextmanager
def called(system: System) -> Iterator[dict[str, Any]]:
    """Callers at RATE while the block runs; what they tell is in the dict after it."""
    command = [sys.executable, "-m", "tests.e2e.callers", ",".join(system.settings.replicas)]
    told: dict[str, Any] = {}
    with subprocess.Popen(
        [*command, str(RATE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        try:
            assert process.stdout is not None
            assert "started" in process.stdout.readline()
            yield told
            out, _ = process.communicate("stop\n", timeout=300)
            told |= json.loads(out.splitlines()[-1])
        finally:
            process.kill()
    print({name: value for name, value in told.items() if name != "answered"})


def answering(system: System) -> set[str]:
    """Which version each replica says that it serves."""
    said = [httpx.get(f"{base}/v1/models", timeout=30).json() for base in system.settings.replicas]
    return {each["models"][0]["model_version"] for each in said}


def each_answer_is_in_the_log(system: System, told: dict[str, Any]) -> None:
    assert not told["failures"]
    assert told["sent"] == len(told["answered"]) == len(set(told["answered"]))
    found = system.stranger("logged", stdin=json.dumps(told["answered"]))
    print(f"in the log: {found}")
    assert found["missing"] == 0
    each_once(system, flights_predictions=told["answered"])


def test_swaps_a_dead_broker_and_a_dead_replica_cost_no_request(system: System) -> None:
    assert len(system.settings.replicas) == 2
    codec = connect_codec(system.settings)
    log = LogWriter(system.settings.bootstrap, codec)
    since = httpx.get(f"{system.settings.rest}/v1/models").json()["models"][0]["since"]

    def swap(number: int) -> None:
        version = f"flights-{number % 2}"
        event = derive(
            DEPLOYMENTS,
            "ModelPromoted",
            *("swap", number),
            time=since + number,
            caused_by=None,
            task="flights",
            model_version=version,
            previous_version=None,
            reason=f"swap {number}",
            actor="test",
            request_id=None,
            gates=[],
        )
        log.append([event])
        eventually(lambda: answering(system) == {version}, 60)

    with called(system) as told:
        for number in range(SWAPS):
            swap(number)
            if number == 5:
                system.ok("chaos", "kill", "broker-3", "--for", "3")
            if number == 12:
                victim = pid_of(system.settings, "serving")
                os.kill(victim, signal.SIGKILL)
                eventually(lambda gone=victim: has_new_pid(system, "serving", gone), 60)
                all_ready(system)
    assert set(told["versions"]) >= {"flights-0", "flights-1"}
    each_answer_is_in_the_log(system, told)


def test_a_rolling_restart_costs_no_request(system: System) -> None:
    all_ready(system)
    before = {pid_of(system.settings, name) for name in ("serving", "serving-2")}
    with called(system) as told:
        done = system.json("restart", "--json")
    assert {each["name"] for each in done} == {"serving", "serving-2"}
    assert not before & {each["pid"] for each in done}
    each_answer_is_in_the_log(system, told)
