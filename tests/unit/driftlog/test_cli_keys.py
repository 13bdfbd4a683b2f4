"""`driftlog keys`: keys are shown once, live as events, and end when they are told to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from typer.testing import CliRunner

from driftlog.cli import keys
from driftlog.cli.errors import CliError
from driftlog.cli.keys import keys_app
from driftlog.cli.opened import Opened
from infra.settings import Settings
from models.serving.guards.access import EXPIRED, REVOKED, Access, AccessKeys, hash_of
from schemas.catalogue import system_topics
from schemas.codec import Codec
from schemas.event import Event
from tests.unit.models.serving_parts import NOW_MS
from tests.unit.schemas.memory_registry import MemoryRegistry

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Log(Opened):
    """What `open_log` finds, without a log; what is said is folded at once."""

    said: list[Event] = field(default_factory=list)

    def append(self, event: Event) -> None:
        self.codec.encode(event)  # it fits its schema
        self.said.append(event)
        AccessKeys().apply(self.states["access"], [event])


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    schemas = Codec(MemoryRegistry(), system_topics())
    made = Log(Settings.from_env({}), {}, schemas, {"access": Access()})
    monkeypatch.setattr(keys, "_open", lambda: made)
    monkeypatch.setattr(keys, "_now_ms", lambda: NOW_MS)
    return made


def run(*words: str) -> str:
    """Standard output; raises what the command raises."""
    result = CliRunner().invoke(keys_app, list(words))
    if result.exception is not None:
        raise result.exception
    return result.stdout


def create(*more: str) -> str:
    return run("create", "--name", "shop", "--scope", "flights:predict,*:read", *more).strip()


def test_a_key_is_printed_once_and_the_log_holds_its_hash(log: Log) -> None:
    key = create("--expires", "90d", "--rate", "5")
    assert key.startswith("dl_") and len(key) == 67
    (event,) = log.said
    assert event.data["key_hash"] == hash_of(key)
    assert event.data["expires"] == NOW_MS + 90 * DAY_MS
    assert key not in json.dumps(event.data) + run("list") + run("list", "--json")
    (row,) = [json.loads(line) for line in run("list", "--json").splitlines()]
    assert (row["name"], row["state"], row["rate"]) == ("shop", "valid", 5.0)
    assert row["scopes"] == ["*:read", "flights:predict"]
    assert create_fails("already")


def create_fails(said: str) -> bool:
    with pytest.raises(CliError, match=said):
        create()
    return True


def test_a_rotated_key_counts_beside_the_new_one_for_a_while(log: Log) -> None:
    old = create("--expires", "10d")
    new = run("rotate", "shop", "--overlap", "2h").strip()
    access: Access = log.states["access"]
    assert new != old
    assert access.problem(hash_of(old), NOW_MS + 2 * 3_600_000 - 1) is None
    assert access.problem(hash_of(old), NOW_MS + 2 * 3_600_000) == REVOKED
    assert access.problem(hash_of(new), NOW_MS + 9 * DAY_MS) is None
    assert access.problem(hash_of(new), NOW_MS + 10 * DAY_MS) == EXPIRED
    assert log.said[1].data["replaces"] == hash_of(old)
    assert run("list").count("shop") == 2


def test_a_revoked_name_has_no_key_left(log: Log) -> None:
    key = create()
    newer = run("rotate", "shop").strip()
    assert "2 keys revoked" in run("revoke", "shop", "--reason", "leaked")
    access: Access = log.states["access"]
    assert {access.problem(hash_of(each), NOW_MS) for each in (key, newer)} == {REVOKED}
    assert log.said[-1].data["reason"] == "leaked"
    with pytest.raises(CliError, match="no key that counts; names in the log: shop"):
        run("revoke", "shop", "--reason", "again")
    assert "--all" in run("list") and "revoked_key" in run("list", "--all")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create", "--name", "a b", "--scope", "*:read"), "--name"),
        (("create", "--name", "a", "--scope", "flights"), "--scope"),
        (("create", "--name", "a", "--scope", "*:read", "--expires", "soon"), "--expires"),
        (("rotate", "nobody"), "nobody has no key"),
        (("revoke", "nobody", "--reason", " "), "nobody has no key"),
    ],
)
def test_what_cannot_be_done_is_said(log: Log, words: tuple[str, ...], said: str) -> None:
    with pytest.raises(CliError, match=said):
        run(*words)
    assert log.said == []
