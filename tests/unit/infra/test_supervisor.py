"""A supervisor keeps real (small) processes running, and takes all of them along when it ends."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from infra import lifecycle, records, watched
from infra.errors import InfraError
from infra.ports import PortTaken
from infra.processes import Service
from infra.settings import Settings
from infra.supervisor import AlreadyUp, Supervisor, clear_leftovers, sole_supervisor, start_order
from tests.unit.infra.small import (
    SLEEP,
    eventually,
    python,
    record_of,
    settings_in,
    sleeper,
    state_of,
    supervised,
    taken_port,
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_in(tmp_path)


def run_once(settings: Settings, services: list[Service]) -> None:
    stop = threading.Event()
    stop.set()
    Supervisor(settings, services, lambda *_: None).run(stop)


def test_dependants_start_after_what_they_need_is_ready_and_stop_before(settings: Settings) -> None:
    mark = settings.home / "ready"
    base = dataclasses.replace(sleeper("base"), ready=mark.exists)
    with supervised(settings, [sleeper("top", depends_on=("base",)), base]) as reported:
        eventually(lambda: state_of(settings, "base") == "starting")
        assert state_of(settings, "top") == "waiting"
        mark.touch()
        eventually(lambda: state_of(settings, "top") == "ready")
        assert reported.index(("base", "ready")) < reported.index(("top", "starting"))
    assert reported.index(("top", "stopped")) < reported.index(("base", "stopping"))
    assert list(records.records(settings)) == []


def test_order_of_services() -> None:
    a, b = sleeper("a"), sleeper("b", depends_on=("a",))
    c = sleeper("c", depends_on=("a", "b"))
    assert [[item.name for item in level] for level in start_order([c, b, a])] == [
        ["a"],
        ["b"],
        ["c"],
    ]


@pytest.mark.parametrize("needs", ["missing", "loop"])
def test_what_can_never_start_is_refused(needs: str) -> None:
    with pytest.raises(InfraError, match=f"loop needs {needs}"):
        start_order([sleeper("loop", depends_on=(needs,))])


def test_a_killed_service_is_started_again(settings: Settings) -> None:
    with supervised(settings, [sleeper()]) as reported:
        eventually(lambda: state_of(settings) == "ready")
        first = record_of(settings)
        os.kill(first.pid, signal.SIGKILL)
        eventually(lambda: record_of(settings).restarts == 1 and state_of(settings) == "ready")
        assert record_of(settings).pid != first.pid
    states = [state for _, state in reported]
    assert states[:5] == ["starting", "ready", "backoff", "starting", "ready"]


def test_a_service_that_fails_again_and_again_is_started_ever_less_often(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "FIRST_DELAY_S", 0.01)
    details: list[str] = []
    stop = threading.Event()
    supervisor = Supervisor(
        settings,
        [python("failing", "raise SystemExit(3)", ready=lambda: False)],
        lambda _, state, detail: details.append(detail) if state == "backoff" else None,
    )
    thread = threading.Thread(target=supervisor.run, args=(stop,))
    thread.start()
    eventually(lambda: len(details) >= 4)
    stop.set()
    thread.join(20)
    delays = [0.01, 0.02, 0.04, 0.08]
    assert details[:4] == [f"exited with 3; starts again in {delay:g} s" for delay in delays]


def test_one_that_is_not_to_be_restarted_stays_ended(settings: Settings) -> None:
    with supervised(settings, [python("once", "pass", restart=False), sleeper()]) as reported:
        eventually(lambda: state_of(settings, "once") == "exited" and state_of(settings) == "ready")
    assert [state for name, state in reported if name == "once"].count("starting") == 1


def test_a_program_that_is_not_there_is_tried_again(settings: Settings) -> None:
    service = Service("nobody", ("/no/such/program",), ready=lambda: True)
    with supervised(settings, [service]):
        eventually(lambda: state_of(settings, "nobody") == "backoff")
        assert "cannot start /no/such/program: No such file" in record_of(settings, "nobody").detail


def test_an_unhealthy_service_is_started_anew(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "HEALTH_CHECK_S", 0.05)
    sick = settings.home / "sick"
    service = sleeper(healthy=lambda: not sick.exists(), unhealthy_after_s=0.2)
    with supervised(settings, [service]) as reported:
        eventually(lambda: state_of(settings) == "ready")
        first = record_of(settings).pid
        sick.touch()
        eventually(lambda: ("sleeper", "stopping") in reported)
        sick.unlink()
        eventually(lambda: state_of(settings) == "ready" and record_of(settings).pid != first)
    assert ("sleeper", "unhealthy") in reported


def test_one_that_never_gets_ready_is_started_anew(settings: Settings) -> None:
    service = sleeper(ready_timeout_s=0.1)
    with supervised(settings, [dataclasses.replace(service, ready=lambda: False)]) as reported:
        eventually(lambda: ("sleeper", "backoff") in reported)


def test_a_port_that_somebody_else_has_stops_nothing_from_being_said(settings: Settings) -> None:
    with taken_port() as port, pytest.raises(PortTaken) as caught:
        run_once(settings, [sleeper(ports=(port,))])
    assert f"port {port} is taken by {psutil.Process().name()}" in str(caught.value)
    assert not lifecycle.is_up(settings) and list(records.records(settings)) == []


def test_a_second_supervisor_ends_and_leaves_the_first_alone(settings: Settings) -> None:
    with supervised(settings, [sleeper()]):
        eventually(lambda: state_of(settings) == "ready")
        first = record_of(settings)
        with pytest.raises(AlreadyUp, match="already up"):
            run_once(settings, [sleeper()])
        assert record_of(settings) == first and records.alive(first)


def test_asking_whether_it_is_up_never_keeps_a_supervisor_from_starting(settings: Settings) -> None:
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            lifecycle.is_up(settings)

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    try:
        for _ in range(50):
            with sole_supervisor(settings):
                assert lifecycle.is_up(settings)
    finally:
        stop.set()
        for asker in askers:
            asker.join()
    assert not lifecycle.is_up(settings)


def test_what_a_killed_supervisor_left_is_stopped_and_strangers_are_not(settings: Settings) -> None:
    orphan = subprocess.Popen([SLEEP, "600"], start_new_session=True)
    bystander = subprocess.Popen([SLEEP, "600"], start_new_session=True)
    born = records.create_time(orphan.pid), records.create_time(bystander.pid)
    assert born[0] is not None and born[1] is not None
    left = records.Record("orphan", orphan.pid, born[0], (), (), 0.0, 0, "ready")
    reused = dataclasses.replace(
        left, name="reused", pid=bystander.pid, create_time=born[1] - 1_000
    )
    records.write_record(settings, left)
    records.write_record(settings, reused)
    records.write_hold(settings, "orphan", records.Hold("kill"))
    try:
        reaper = threading.Thread(target=orphan.wait)
        reaper.start()
        clear_leftovers(settings)
        reaper.join(30)
        assert orphan.returncode is not None
        assert bystander.poll() is None, "another process had taken over the recorded id"
        assert list(records.run_folder(settings).glob("*.json")) == []
        assert records.read_hold(settings, "orphan") is None
    finally:
        for process in (orphan, bystander):
            process.kill()
            process.wait()


def test_a_full_disk_does_not_end_the_supervisor(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with supervised(settings, [sleeper()]) as reported:
        eventually(lambda: state_of(settings) == "ready")
        pid = record_of(settings).pid

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(records, "write_record", full)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: reported.count(("sleeper", "ready")) == 2)
        monkeypatch.undo()


def test_status_tells_what_runs_and_what_does_not(settings: Settings) -> None:
    with taken_port() as port:
        pass
    with supervised(settings, [sleeper(ports=(port,))]):
        eventually(lambda: state_of(settings) == "ready")
        supervisor, service = lifecycle.status(settings)
        assert (supervisor.name, supervisor.pid) == ("supervisor", os.getpid())
        assert (service.state, service.port, service.restarts) == ("ready", port, 0)
        assert service.rss_mb > 0 and service.uptime_s >= 0
        record = record_of(settings)
        records.write_record(settings, dataclasses.replace(record, create_time=1.0))
        assert lifecycle.status(settings)[1].state == "down", "that process is not ours"
        assert lifecycle.status(settings)[1].pid is None
        records.write_record(settings, record)
    assert lifecycle.status(settings) == []


def test_waiting_ends_with_the_reason_when_the_supervisor_does(settings: Settings) -> None:
    settings.logs.mkdir(parents=True)
    (settings.logs / "supervisor.log").write_text("port 1 is taken by init (pid 1)\n", "utf-8")
    with pytest.raises(InfraError, match="the supervisor ended: port 1 is taken by init"):
        lifecycle.wait_ready(settings, timeout_s=30)


def test_waiting_ends_when_a_service_does_not_stay_up(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "FIRST_DELAY_S", 0.001)
    monkeypatch.setattr(watched, "LONGEST_DELAY_S", 0.2)
    failing = python(
        "failing", "print('no such file: x'); raise SystemExit(3)", ready=lambda: False
    )
    with supervised(settings, [failing]):
        eventually(lambda: lifecycle.is_up(settings))
        with pytest.raises(InfraError, match=r"failing does not stay up .*: no such file: x"):
            lifecycle.wait_ready(settings, timeout_s=30)


def test_down_without_anything_up_is_harmless(settings: Settings) -> None:
    assert lifecycle.stop(settings) == 0


def test_down_right_after_up_waits_for_the_supervisor_to_be_known(settings: Settings) -> None:
    code = """
import sys, time
from pathlib import Path
from infra.processes import Service
from infra.settings import Settings
from infra.supervisor import run_foreground
from infra import supervisor
clear = supervisor.clear_leftovers
supervisor.clear_leftovers = lambda settings: (time.sleep(1), clear(settings))
home = Path(sys.argv[1])
service = Service("sleeper", ("sleep", "600"), ready=lambda: True)
run_foreground(Settings(home=home, cache=home / "cache"), [service])
"""
    daemon = lifecycle.spawn_detached(settings, [sys.executable, "-c", code, str(settings.home)])
    eventually(lambda: lifecycle.is_up(settings))
    began = time.monotonic()
    assert lifecycle.stop(settings) >= 1
    assert daemon.wait(30) == 0 and time.monotonic() - began < 20
    assert not lifecycle.is_up(settings) and records.strays(settings) == []


def test_a_service_is_restarted_once_its_successor_is_ready(settings: Settings) -> None:
    with supervised(settings, [sleeper(), sleeper("other")]):
        eventually(lambda: state_of(settings) == "ready" and state_of(settings, "other") == "ready")
        first, other = record_of(settings), record_of(settings, "other")
        after = lifecycle.restart(settings, "sleeper")
        assert (after.pid, after.state) == (record_of(settings).pid, "ready")
        assert not records.alive(first)
        assert record_of(settings, "other").pid == other.pid


def test_only_what_runs_is_restarted(settings: Settings) -> None:
    with (
        supervised(settings, [sleeper()]),
        pytest.raises(InfraError, match="nobody does not run in"),
    ):
        lifecycle.restart(settings, "nobody")


def test_a_successor_that_does_not_come_up_is_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "FIRST_DELAY_S", 0.01)
    mark, restarted = settings.home / "was-there", threading.Event()
    code = f"""import pathlib, time
mark = pathlib.Path({str(mark)!r})
if mark.exists():
    raise SystemExit(3)
mark.touch()
time.sleep(600)"""
    fickle = python("fickle", code, ready=lambda: mark.exists() and not restarted.is_set())
    with supervised(settings, [fickle]):
        eventually(lambda: state_of(settings, "fickle") == "ready")
        restarted.set()
        with pytest.raises(InfraError, match=r"fickle does not come up again \(exited with 3"):
            lifecycle.restart(settings, "fickle")
