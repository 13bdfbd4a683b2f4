"""What is written down about processes names them, and only them."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from pathlib import Path

import pytest

from infra import records
from infra.records import Hold, Record
from infra.settings import Settings
from tests.unit.infra.small import SLEEP, settings_in


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_in(tmp_path)


def own_record(name: str = "me") -> Record:
    began = records.create_time(os.getpid())
    assert began is not None
    return Record(name, os.getpid(), began, ("python", "-m", "x"), (1, 2), 3.5, 4, "ready", "why")


def test_a_record_comes_back_as_it_was(settings: Settings) -> None:
    records.write_record(settings, own_record())
    assert records.read_record(settings, "me") == own_record()
    assert list(records.records(settings)) == [own_record()]
    records.remove_record(settings, "me")
    assert records.read_record(settings, "me") is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"name": "me"}', '"me"', "\x00\xff"])
def test_a_file_that_is_no_record_is_none(settings: Settings, text: str) -> None:
    folder = records.run_folder(settings)
    folder.mkdir(parents=True)
    (folder / "me.json").write_text(text, "latin-1")
    assert records.read_record(settings, "me") is None
    assert list(records.records(settings)) == []


def test_another_process_with_the_same_id_is_not_the_recorded_one() -> None:
    mine = own_record()
    assert records.alive(mine)
    assert not records.alive(dataclasses.replace(mine, create_time=mine.create_time - 60))
    assert not records.alive(dataclasses.replace(mine, pid=0))


def test_a_dead_process_is_not_alive_even_before_it_is_reaped() -> None:
    process = subprocess.Popen([SLEEP, "600"])
    began = records.create_time(process.pid)
    assert began is not None
    record = dataclasses.replace(own_record(), pid=process.pid, create_time=began)
    assert records.alive(record)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    assert not records.alive(record)
    process.wait()
    assert records.create_time(process.pid) is None


def test_a_hold_ends_when_its_time_comes(settings: Settings) -> None:
    records.write_hold(settings, "a", Hold("pause", 100.0))
    records.write_hold(settings, "b", Hold("kill"))
    timed, endless = records.read_hold(settings, "a"), records.read_hold(settings, "b")
    assert timed == Hold("pause", 100.0) and not timed.over(99.9) and timed.over(100.0)
    assert endless == Hold("kill") and not endless.over(1e12)
    records.remove_hold(settings, "a")
    records.remove_hold(settings, "a")
    assert records.read_hold(settings, "a") is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"kind": "kill", "until": "soon"}', '{"until": []}']
)
def test_a_file_that_is_no_hold_holds_nothing(settings: Settings, text: str) -> None:
    folder = records.run_folder(settings)
    folder.mkdir(parents=True)
    (folder / "a.hold").write_text(text, "utf-8")
    assert records.read_hold(settings, "a") is None


def test_strays_are_found_by_their_mark_alone(settings: Settings, tmp_path: Path) -> None:
    def marked(home: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([SLEEP, "600"], env={records.OWNER_VARIABLE: str(home)})

    ours, others = marked(settings.home), marked(tmp_path / "another")
    try:
        assert [process.pid for process in records.strays(settings)] == [ours.pid]
    finally:
        for process in (ours, others):
            process.kill()
            process.wait()
    assert records.strays(settings) == []
