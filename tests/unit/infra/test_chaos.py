"""Faults on real (small) processes: done, held, and undone in time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infra import records
from infra.chaos import KINDS, PARTITION_S, find_target, inject, targets
from infra.errors import InfraError
from infra.settings import Settings
from tests.unit.infra.small import (
    eventually,
    record_of,
    settings_in,
    sleeper,
    state_of,
    supervised,
    taken_port,
)


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """A running system of one service, `sleeper`, that claims a port."""
    made = settings_in(tmp_path)
    with taken_port() as port:
        pass
    with supervised(made, [sleeper(ports=(port,))]):
        eventually(lambda: state_of(made) == "ready")
        yield made


def frozen(pid: int) -> bool:
    return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)


def test_a_killed_service_stays_down_until_it_is_restarted(settings: Settings) -> None:
    before = record_of(settings)
    fault = inject(settings, "kill", "sleeper")
    assert (fault.target, fault.pid, fault.until) == ("sleeper", before.pid, None)
    eventually(lambda: state_of(settings) == "held")
    give_it_time_to_be_wrong()
    assert state_of(settings) == "held" and not psutil.pid_exists(before.pid)
    inject(settings, "restart", "sleeper")
    eventually(lambda: state_of(settings) == "ready")
    assert record_of(settings).pid != before.pid


def test_a_kill_with_a_duration_ends_by_itself(settings: Settings) -> None:
    before = record_of(settings).pid
    fault = inject(settings, "kill", "sleeper", 1.0)
    assert fault.until is not None
    eventually(lambda: state_of(settings) == "held")
    eventually(lambda: state_of(settings) == "ready" and record_of(settings).pid != before)
    assert record_of(settings).started_at >= fault.until


def test_a_paused_service_is_frozen_until_it_is_resumed(settings: Settings) -> None:
    pid = record_of(settings).pid
    inject(settings, "pause", "sleeper")
    eventually(lambda: state_of(settings) == "paused" and frozen(pid))
    give_it_time_to_be_wrong()
    assert frozen(pid)
    inject(settings, "resume", "sleeper")
    eventually(lambda: state_of(settings) == "ready" and not frozen(pid))
    assert record_of(settings).pid == pid and record_of(settings).restarts == 0


@pytest.mark.parametrize("kind", ["pause", "partition"])
def test_a_pause_with_a_duration_ends_by_itself(settings: Settings, kind: str) -> None:
    pid = record_of(settings).pid
    fault = inject(settings, kind, "sleeper", 1.0)
    assert fault.until is not None
    eventually(lambda: frozen(pid))
    eventually(lambda: not frozen(pid) and state_of(settings) == "ready")
    assert time.time() >= fault.until and record_of(settings).pid == pid


def test_a_partition_has_an_end_by_default(settings: Settings) -> None:
    fault = inject(settings, "partition", "sleeper")
    assert fault.until == pytest.approx(fault.at + PARTITION_S)
    inject(settings, "resume", "sleeper")
    eventually(lambda: state_of(settings) == "ready")


def test_a_restart_is_a_clean_stop_and_a_new_start(settings: Settings) -> None:
    pid = record_of(settings).pid
    assert inject(settings, "restart", "sleeper").pid == pid
    eventually(lambda: state_of(settings) == "ready" and record_of(settings).pid != pid)


def test_a_paused_service_can_be_restarted_and_killed(settings: Settings) -> None:
    pid = record_of(settings).pid
    inject(settings, "pause", "sleeper")
    inject(settings, "restart", "sleeper")
    eventually(lambda: state_of(settings) == "ready" and record_of(settings).pid != pid)
    inject(settings, "pause", "sleeper")
    inject(settings, "kill", "sleeper", 0.3)
    eventually(lambda: record_of(settings).restarts == 2 and state_of(settings) == "ready")


def test_a_target_is_a_name_or_one_of_its_ports(settings: Settings) -> None:
    record = record_of(settings)
    assert find_target(settings, str(record.ports[0])).name == "sleeper"
    assert list(targets(settings)) == ["sleeper"], "not the supervisor itself"


@pytest.mark.parametrize(
    ("kind", "target", "duration_s", "message"),
    [
        ("explode", "sleeper", None, "unknown fault 'explode': use one of kill, pause"),
        ("kill", "nobody", None, "unknown target 'nobody': use one of sleeper"),
        ("kill", "supervisor", None, "unknown target 'supervisor'"),
        ("kill", "80", None, "unknown target '80'"),
        ("pause", "sleeper", 0.0, "cannot last 0 s"),
        ("pause", "sleeper", 3601.0, "cannot last 3601 s"),
        ("pause", "sleeper", float("nan"), "cannot last nan s"),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(
    settings: Settings, kind: str, target: str, duration_s: float | None, message: str
) -> None:
    before = record_of(settings)
    with pytest.raises(InfraError) as caught:
        inject(settings, kind, target, duration_s)
    assert message in str(caught.value)
    assert record_of(settings) == before and records.read_hold(settings, "sleeper") is None


@pytest.mark.parametrize("kind", ["kill", "pause", "partition", "resume"])
def test_what_does_not_run_can_only_be_restarted(settings: Settings, kind: str) -> None:
    inject(settings, "kill", "sleeper")
    eventually(lambda: state_of(settings) == "held")
    with pytest.raises(InfraError, match="does not run: `driftlog chaos restart sleeper`"):
        inject(settings, kind, "sleeper")
    assert state_of(settings) == "held"


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_can_be_broken_where_nothing_is_up(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InfraError, match="start it with `driftlog up`"):
        inject(settings_in(tmp_path / "elsewhere"), kind, "sleeper")


def give_it_time_to_be_wrong() -> None:
    """Longer than the supervisor's first delay: what was to stay down or frozen would be back."""
    time.sleep(1.0)
