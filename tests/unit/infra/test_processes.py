"""Starting and stopping one process, with all that it started."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from infra import processes, records
from infra.ports import is_free
from infra.processes import Service
from infra.settings import Settings
from tests.unit.infra.small import SLEEP, eventually, python, settings_in, sleeper

STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""
PARENT = f"""
import subprocess, time
child = subprocess.Popen([{SLEEP!r}, "600"])
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_in(tmp_path)


def said(settings: Settings, service: Service) -> str:
    path = settings.logs / f"{service.name}.log"
    eventually(lambda: path.read_text("utf-8").strip() != "")
    return path.read_text("utf-8").strip()


def test_a_service_gets_the_settings_its_own_variables_and_the_mark(settings: Settings) -> None:
    code = "import os; print(*(os.environ[n] for n in ('DRIFTLOG_HOME', 'MINE', %r)))"
    service = python("speaker", code % records.OWNER_VARIABLE, env={"MINE": "7"})
    process, record = processes.start(settings, service, restarts=3)
    process.wait(20)
    assert said(settings, service).split() == [str(settings.home), "7", str(settings.home)]
    assert (record.pid, record.restarts, record.state) == (process.pid, 3, "starting")


def test_a_program_that_is_not_there_cannot_be_started(settings: Settings) -> None:
    service = Service("nobody", ("/no/such/program",), ready=lambda: True)
    with pytest.raises(OSError, match="No such file"):
        processes.start(settings, service, 0)


def test_a_log_that_grew_too_long_is_put_aside(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_LOG_LIMIT_BYTES", 10)
    settings.logs.mkdir(parents=True)
    (settings.logs / "a.log").write_text("more than ten bytes", "utf-8")
    process, _ = processes.start(settings, python("a", "print('new')"), 0)
    process.wait(20)
    assert (settings.logs / "a.log").read_text("utf-8") == "new\n"
    assert (settings.logs / "a.log.1").read_text("utf-8") == "more than ten bytes"


def test_stopping_takes_the_children_along(settings: Settings) -> None:
    service = python("parent", PARENT)
    process, record = processes.start(settings, service, 0)
    child = psutil.Process(int(said(settings, service)))
    processes.stop_all([record], grace_s=10)
    assert process.wait(30) == -signal.SIGTERM
    child.wait(30)


def test_whoever_ignores_sigterm_is_killed_after_the_grace(settings: Settings) -> None:
    service = python("deaf", STUBBORN)
    process, record = processes.start(settings, service, 0)
    said(settings, service)
    processes.stop_all([record], grace_s=0.3)
    assert process.wait(30) == -signal.SIGKILL


def test_a_frozen_process_can_be_stopped(settings: Settings) -> None:
    process, record = processes.start(settings, sleeper(), 0)
    assert processes.signal_group(record, signal.SIGSTOP)
    began = time.monotonic()
    processes.stop_all([record], grace_s=20)
    assert process.wait(30) == -signal.SIGTERM and time.monotonic() - began < 10


def test_a_stranger_with_the_recorded_id_is_never_signalled(settings: Settings) -> None:
    process, record = processes.start(settings, sleeper(), 0)
    stranger = dataclasses.replace(record, create_time=record.create_time - 3600)
    assert not processes.signal_group(stranger, signal.SIGKILL)
    processes.stop_all([stranger], grace_s=0.1)
    processes.stop_process(stranger, grace_s=0.1)
    assert process.poll() is None
    processes.stop_process(record, grace_s=10)
    assert process.wait(30) == -signal.SIGTERM


def test_reaping_kills_what_a_dead_leader_left_in_its_group(settings: Settings) -> None:
    service = python("parent", PARENT)
    process, record = processes.start(settings, service, 0)
    child = psutil.Process(int(said(settings, service)))
    assert processes.reap(process) is None
    os.kill(record.pid, signal.SIGKILL)
    eventually(lambda: processes.reap(process) is not None)
    assert processes.reap(process) == -signal.SIGKILL
    child.wait(30)


def test_a_killed_process_is_gone_only_when_its_ports_are_free(settings: Settings) -> None:
    """Its first thread is a zombie at once; the others, which hold its sockets, may take a while."""
    code = """
import socket, threading, time
server = socket.create_server(("127.0.0.1", 0))
blocks = [bytearray(1 << 20) for _ in range(64)]
for _ in range(200):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
print(server.getsockname()[1], flush=True)
time.sleep(600)
"""
    service = python("listener", code)
    for _ in range(3):
        process, record = processes.start(settings, service, 0)
        port = int(said(settings, service).split()[-1])
        assert not is_free(port)
        processes.signal_group(record, signal.SIGKILL)
        while records.alive(record):
            pass
        assert is_free(port)
        process.wait(30)
        (settings.logs / "listener.log").unlink()
