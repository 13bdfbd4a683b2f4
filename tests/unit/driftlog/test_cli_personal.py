"""`driftlog erase` and `reveal`, with the log in a list and a real key store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer import Typer
from typer.testing import CliRunner

from driftlog import instance, personal, words
from driftlog.causes import Known
from driftlog.cli import personal as cli
from driftlog.cli import why as why_cli
from driftlog.cli.errors import CliError
from driftlog.cli.produce import to_event
from driftlog.event_index import NoSuchEvent
from driftlog.why import details, why
from infra.settings import Settings
from models.personal.errors import KeysUnavailable, NotSealed
from models.personal.keystore import KeyStore
from models.personal.sealing import seal_all
from schemas.catalogue import PRIVACY, labels_topic, predictions_topic, system_topics
from schemas.codec import Codec
from schemas.event import Event
from streams import log as streams_log
from streams.log import LogUnavailable
from streams.personal import Personal
from streams.task import Ask, Category, Task
from tests.unit.driftlog.known_events import ListedEvents
from tests.unit.models.serving_parts import NOW_MS, Schemas

ORDERS = Task("orders", (Category("shop"),), "late", personal=Personal("customer", ("email",)))
PLAIN = Task("plain", (Category("shop"),), "late")
WHO = {"customer": "C-4711", "email": "someone@example.org"}

app = Typer()
app.command("erase")(cli.erase)
app.command("reveal")(cli.reveal)


class Log:
    """Where the log and the event index stand; it can be away."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.away = False
        self.codec = Codec(Schemas(), [*system_topics(), *ORDERS.topics()])

    def __call__(self, *_: Any) -> Log:
        return self

    def append(self, events: list[Event]) -> None:
        if self.away:
            raise LogUnavailable("no broker answers")
        for event in events:
            self.codec.encode(event)  # it fits its schema
        self.events += events

    def read(self, bootstrap: str, codec: Codec, topics: list[str]) -> Iterator[Event]:
        return (event for event in self.events if event.topic in topics)

    def resolve(self, text: str) -> Event:
        return next(event for event in self.events if event.id.startswith(text))

    def close(self) -> None:
        pass


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


@pytest.fixture
def log(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Log:
    made = Log()
    monkeypatch.setattr(instance, "settings", lambda: settings)
    monkeypatch.setattr(instance, "tasks", lambda _: [ORDERS, PLAIN])
    monkeypatch.setattr(streams_log, "LogWriter", made)
    monkeypatch.setattr(streams_log, "connect_codec", lambda *_: made.codec)
    monkeypatch.setattr(streams_log, "read", made.read)
    monkeypatch.setattr(why_cli, "open_index", made)
    return made


@pytest.fixture
def keys(settings: Settings) -> Iterator[KeyStore]:
    made = KeyStore(settings.key_store, settings.master_key)
    yield made
    made.close()


def prediction(keys: KeyStore, event_id: str = "p-1", **changes: Any) -> Event:
    given = {"shop": "north", **WHO, **changes}
    [sealed] = seal_all(keys, ORDERS, [Ask(NOW_MS, event_id, given)])
    data = {"event_id": event_id, "event_time": NOW_MS, "caused_by": None, "model_version": "m-1"}
    data |= {"score": 0.5, "label": 1, "features": {"shop": "north"}, **sealed}
    return Event(predictions_topic("orders"), "PredictionMade", data)


def run(*given: str, stdin: str = "") -> str:
    """Standard output; raises what the command raises."""
    result = CliRunner().invoke(app, list(given), input=stdin, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.stdout


def erase(*more: str) -> dict[str, Any]:
    told = run(
        "erase", "C-4711", "--task", "orders", "--reason", "asked to", "--yes", "--json", *more
    )
    found: dict[str, Any] = json.loads(told)
    return found


def test_what_was_recorded_is_revealed_to_who_says_why_until_the_person_is_erased(
    log: Log, keys: KeyStore
) -> None:
    log.append([prediction(keys)])
    person = log.events[0].data["person"]
    shown = run("reveal", "p-1", "--reason", "a complaint", "--actor", "ann")
    assert shown == "customer: C-4711\nemail: someone@example.org\n"
    said = log.events[-1]
    assert (said.type, said.data["actor"]) == ("PersonalDataRevealed", "ann")
    assert said.data["prediction_id"] == "p-1" and said.data["fields"] == ["customer", "email"]

    made = erase("--actor", "bob")
    assert made["state"] == "destroyed" and made["events"][0]["person"] == person
    erased = log.events[-1]
    assert (erased.type, erased.data["person"], erased.data["actor"]) == (
        *("SubjectErased", person, "bob"),
    )
    count = len(log.events)
    assert run("reveal", "p-1", "--reason", "again") == "customer: [erased]\nemail: [erased]\n"
    told = json.loads(run("reveal", "p-1", "--reason", "again", "--json"))
    assert told["erased"] and told["fields"] == {"customer": None, "email": None}
    assert erase() == {"task": "orders", "state": "before", "events": []}
    assert len(log.events) == count, "nothing was revealed or erased, so nothing is said"
    plain = json.dumps([event.data for event in log.events])
    assert "C-4711" not in plain and "someone" not in plain


def test_a_log_that_is_away_does_not_keep_the_key_alive(log: Log, keys: KeyStore) -> None:
    log.append([prediction(keys)])
    log.away = True
    with pytest.raises(CliError, match="the key is destroyed, but the log does not have the event"):
        erase()
    assert keys.of_person(log.events[0].data["person"]) is None
    log.away = False
    assert run("reveal", "p-1", "--reason", "look").startswith("customer: [erased]")
    assert log.events[-1].type == "PredictionMade", "the erasure is not told yet"
    again = erase()
    assert again["state"] == "before" and len(again["events"]) == 1
    assert [event.type for event in log.events if event.topic == PRIVACY] == ["SubjectErased"]


def test_nothing_is_revealed_that_the_log_does_not_hear_of(log: Log, keys: KeyStore) -> None:
    log.append([prediction(keys)])
    log.away = True
    with pytest.raises(LogUnavailable):
        run("reveal", "p-1", "--reason", "curious")


def test_erasing_asks_and_takes_the_name_from_stdin(log: Log, keys: KeyStore) -> None:
    keys.keys("orders", ["C-4711"])
    where = ("--task", "orders", "--reason", "asked to")
    with pytest.raises(typer.Abort):
        run("erase", "C-4711", *where, stdin="n\n")
    assert not log.events
    with pytest.raises(CliError, match="say --yes"):
        run("erase", "-", *where, stdin="C-4711\n")
    with pytest.raises(CliError, match="SUBJECT is empty"):
        run("erase", "-", "--yes", *where, stdin="\n")
    assert "erased: " in run("erase", "-", "--yes", *where, stdin="C-4711\n")
    assert "erased before" in run("erase", "C-4711", *where, stdin="y\n")


@pytest.mark.parametrize(
    ("words_", "said"),
    [
        (("4712", "--task", "orders"), "has no key for this subject"),
        (("C-4711", "--task", "plain"), "declares nothing personal"),
        (("C-4711",), "which task"),
        (("C-4711", "--task", "orders", "--reason", " "), "--reason is empty"),
    ],
)
def test_what_cannot_be_erased_is_said(
    log: Log, keys: KeyStore, words_: tuple[str, ...], said: str
) -> None:
    keys.keys("orders", ["C-4711"])
    with pytest.raises(CliError, match=said):
        run("erase", "--reason", "asked to", "--yes", *words_)


def test_without_a_key_store_nothing_is_made(log: Log, settings: Settings) -> None:
    with pytest.raises(CliError, match=r"there is no key store .* where serving runs"):
        erase()
    assert not settings.key_store.exists() and not settings.master_key.exists()


def test_what_cannot_be_revealed_is_said(
    log: Log, keys: KeyStore, settings: Settings, tmp_path: Path
) -> None:
    elsewhere = KeyStore(tmp_path / "b" / "persons.sqlite", tmp_path / "b" / "master.key")
    label = Event(labels_topic("orders"), "LabelObserved", {"event_id": "l-1", "event_time": 1})
    nobody = prediction(keys, "n-1", customer=None, email=None)
    moved = prediction(keys, "m-1")
    moved = replace(moved, data={**moved.data, "event_id": "m-2"})
    log.events += [prediction(elsewhere, "e-1"), label, nobody, moved]
    for event_id, error, said in (
        ("e-1", KeysUnavailable, "made with another one"),
        ("l-1", NoSuchEvent, "is a LabelObserved, not a prediction"),
        ("n-1", NoSuchEvent, "says nothing about a person"),
        ("m-2", NotSealed, "does not open"),
    ):
        with pytest.raises(error, match=said):
            run("reveal", event_id, "--reason", "look")
    assert not [event for event in log.events if event.topic == PRIVACY]
    elsewhere.close()


def test_why_and_words_show_that_there_is_something(keys: KeyStore) -> None:
    event = prediction(keys)
    short = event.data["person"][:8]
    line = f"personal: person {short}, customer [encrypted], email [encrypted]"
    assert line in details(event)
    assert f"personal: person {short}, customer [encrypted]" in details(
        prediction(keys, email=None)
    )
    said = personal.revealed(
        personal.read(keys, ORDERS, event, lambda _: False), NOW_MS, "ann", "a complaint"
    )
    assert words.describe(said) == "ann read customer, email of prediction p-1: a complaint"
    tree = why(said, Known(ListedEvents([event, said]), {"orders": ORDERS}))
    assert [cause.event.id for cause in tree.walk()] == [said.id, "p-1"]
    assert json.dumps(tree.to_json(), default=str)


def test_produce_refuses_what_is_not_encrypted(keys: KeyStore) -> None:
    topic = ORDERS.topics()[0]
    event = prediction(keys)
    assert to_event(topic, json.dumps(event.data)).data == event.data
    with pytest.raises(ValueError, match="personal_email is not encrypted") as caught:
        to_event(topic, json.dumps({**event.data, "personal_email": "someone@example.org"}))
    assert "someone" not in str(caught.value)
