"""The key store: one key a person, whoever comes first; gone for all once destroyed, through crashes."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from models.personal.erasure import finish
from models.personal.errors import KeysUnavailable, NotSealed
from models.personal.keystore import BEFORE, DESTROYED, UNKNOWN, KeyStore
from schemas.catalogue import PRIVACY
from schemas.event import Event

ROOT = Path(__file__).parents[3]
ERASE = (1_700_000_000_000, "ann", "asked to")
RACE = """
import sys
from pathlib import Path
from models.personal.keystore import KeyStore
folder = Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
keys = KeyStore(folder / "persons.sqlite", folder / "master.key")
found = keys.keys("orders", [f"c{number}" for number in range(50)])
print(",".join(key.person for key in found.values()), flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def keys(folder: Path) -> Iterator[KeyStore]:
    made = store(folder)
    yield made
    made.close()


def store(folder: Path, create: bool = True) -> KeyStore:
    return KeyStore(folder / "persons.sqlite", folder / "master.key", create)


def person(keys: KeyStore, subject: str = "4711", task: str = "orders") -> str:
    return keys.keys(task, [subject])[subject].person


def on_disk(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


class Log:
    """Takes events, and fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.events: list[Event] = []
        self.failures = failures

    def append(self, event: Event) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError("no broker")
        self.events.append(event)


def test_a_person_has_one_key_a_task_that_others_find_again(keys: KeyStore, folder: Path) -> None:
    first = keys.keys("orders", ["4711", "4712"])
    assert keys.keys("orders", ["4712", "4711"]) == first
    other = store(folder, create=False)
    assert other.keys("orders", ["4711"])["4711"] == first["4711"]
    assert other.of_person(first["4711"].person) == first["4711"]
    assert other.of_person("0" * 32) is None
    assert len({person(keys), person(keys, "4712"), person(keys, task="loans")}) == 3
    other.close()


def test_the_files_are_the_owner_s_alone_and_name_nobody(keys: KeyStore, folder: Path) -> None:
    key = keys.keys("orders", ["someone@example.org"])["someone@example.org"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert b"someone" not in on_disk(folder)
    assert key.secret not in on_disk(folder)


def test_processes_that_make_the_same_keys_at_once_make_one_each(folder: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", RACE, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    racers = [subprocess.Popen(command, env=env, text=True, **pipes) for _ in range(4)]  # type: ignore[call-overload]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    ended = [racer.communicate(timeout=60) for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 4, ended
    found = {told for told, _ in ended}
    assert len(found) == 1, "all processes have the same keys"
    assert len(set(found.pop().split(","))) == 50


def test_a_destroyed_key_is_gone_for_everybody_at_once_and_from_the_disk(
    keys: KeyStore, folder: Path
) -> None:
    for number in range(300):
        person(keys, f"c{number}")
    other = store(folder)
    gone, kept = person(other, "c150"), person(other, "c151")
    with sqlite3.connect(folder / "persons.sqlite") as reader:
        sql = "SELECT wrapped FROM keys WHERE person = ?"
        (wrapped,) = reader.execute(sql, (gone,)).fetchone()
    assert wrapped in on_disk(folder)
    log = Log()
    assert keys.destroy("orders", "c150", *ERASE) == DESTROYED
    assert other.of_person(gone) is None, "another process's store has it no more"
    [event] = finish(keys, log.append)
    disk = on_disk(folder)
    assert wrapped not in disk and wrapped[:16] not in disk
    assert gone.encode() not in disk, "nothing leads from the person to the pseudonym"
    assert other.of_person(kept) is not None
    assert (event.topic, event.type, event.data["person"]) == (PRIVACY, "SubjectErased", gone)
    assert set(event.data) == {
        *("event_id", "event_time", "caused_by", "task", "person", "actor", "reason")
    }
    other.close()


def test_erasing_again_is_harmless_and_a_person_who_comes_back_is_somebody_new(
    keys: KeyStore,
) -> None:
    log, before = Log(), person(keys)
    assert keys.destroy("orders", "4712", *ERASE) == UNKNOWN
    assert [keys.destroy("orders", "4711", *ERASE) for _ in range(2)] == [DESTROYED, BEFORE]
    assert len(finish(keys, log.append)) == 1 and not finish(keys, log.append)
    assert keys.destroy("orders", "4711", *ERASE) == BEFORE
    again = person(keys)
    assert again != before
    assert keys.destroy("orders", "4711", *ERASE) == DESTROYED
    finish(keys, log.append)
    assert [event.data["person"] for event in log.events] == [before, again]
    assert len({event.id for event in log.events}) == 2


@pytest.mark.parametrize("crash", ["destroy", "scrub", "append", "told", "last scrub"])
def test_wherever_erasing_ends_running_it_again_ends_it(
    folder: Path, crash: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is opened anew after each crash, as another process would."""
    first = store(folder)
    gone = person(first)
    log = Log(failures=1 if crash == "append" else 0)

    class Crash(Exception):
        pass

    def after(calls: int, real: Callable[..., object]) -> Callable[..., object]:
        left = [calls]

        def call(*given: object) -> object:
            left[0] -= 1
            if left[0] == 0:
                raise Crash
            return real(*given)

        return call

    if crash in ("scrub", "last scrub"):
        monkeypatch.setattr(first, "scrub", after(1 if crash == "scrub" else 2, first.scrub))
    elif crash == "told":
        monkeypatch.setattr(first, "told", after(1, first.told))
    assert first.destroy("orders", "4711", *ERASE) == DESTROYED
    if crash != "destroy":
        with pytest.raises((Crash, OSError)):
            finish(first, log.append)
    first.close()

    second = store(folder)
    assert second.of_person(gone) is None
    assert second.destroy("orders", "4711", 1, "bob", "again") == BEFORE
    finish(second, log.append)
    assert not second.untold()
    assert {event.id for event in log.events} == {log.events[0].id}, "one fact, however often said"
    assert all(event.data["actor"] == "ann" for event in log.events)
    assert (folder / "persons.sqlite-wal").stat().st_size == 0
    assert gone.encode() not in on_disk(folder)
    second.close()


def test_the_wrong_master_key_is_said_and_nothing_is_made_with_it(folder: Path) -> None:
    first = store(folder)
    person(first)
    first.close()
    (folder / "master.key").write_text("ab" * 32)
    before = on_disk(folder)
    wrong = store(folder)
    for _ in range(2):
        with pytest.raises(
            KeysUnavailable, match=r"is not the one of the key store .*DRIFTLOG_KEYRING"
        ):
            wrong.keys("orders", ["4711"])
    assert on_disk(folder) == before


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (b"ab" * 32, 0o644, "others may read the master key .*chmod 600"),
        (b"short", 0o600, "holds no master key: 64 hex digits"),
        (b"\xff" * 64, 0o600, "holds no master key"),
        (None, 0, "the master key .* is gone.*DRIFTLOG_KEYRING"),
    ],
)
def test_a_master_key_that_cannot_be_used_is_said(
    folder: Path, content: bytes | None, mode: int, said: str
) -> None:
    first = store(folder)
    person(first)
    first.close()
    path = folder / "master.key"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
        path.chmod(mode)
    with pytest.raises(KeysUnavailable, match=said):
        store(folder).keys("orders", ["4711"])
    assert path.exists() is (content is not None), "none is made in its place"


def test_a_given_master_key_is_used(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "elsewhere"
    path.write_text("cd" * 32 + "\n")
    path.chmod(0o600)
    made = KeyStore(folder / "persons.sqlite", path)
    assert len(person(made)) == 32
    assert not (folder / "master.key").exists()
    made.close()


def test_a_store_that_vanishes_is_not_made_anew(keys: KeyStore, folder: Path) -> None:
    before = person(keys)
    aside = folder.with_name("aside")
    folder.rename(aside)
    for _ in range(2):
        with pytest.raises(KeysUnavailable, match="key store"):
            keys.keys("orders", ["4711"])
    assert not folder.exists()
    aside.rename(folder)
    assert person(keys) == before


def test_a_store_that_is_no_database_or_was_changed_is_said(keys: KeyStore, folder: Path) -> None:
    person(keys)
    with sqlite3.connect(folder / "persons.sqlite") as writer:
        writer.execute("UPDATE keys SET wrapped = zeroblob(48)")
    with pytest.raises(NotSealed, match="a key in the key store was changed"):
        person(keys)
    keys.close()
    (folder / "persons.sqlite").write_bytes(b"no database " * 1000)
    with pytest.raises(KeysUnavailable, match="not a database"):
        store(folder).keys("orders", ["4711"])


def test_a_writer_who_does_not_end_is_not_waited_for_for_ever(
    keys: KeyStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.personal.keystore.BUSY_S", 0.05)
    known = person(keys)
    other = store(folder)
    assert person(other) == known
    with sqlite3.connect(folder / "persons.sqlite", isolation_level=None) as writer:
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(KeysUnavailable, match="locked"):
            other.keys("orders", ["new"])
        assert person(store(folder)) == known, "who has a key is served all the same"
