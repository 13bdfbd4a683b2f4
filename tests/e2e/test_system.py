"""The whole system from outside: its ports, its command line, and what it promises when parts of it die.

The tests share one instance and run in the order of this file: the gentle ones first.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from driftlog.settled import wait_settled
from infra import records
from streams.task_file import load_tasks
from tests.e2e.conftest import System, finish
from tests.integration.clusters import eventually, pid_of

pytestmark = pytest.mark.integration
SERVICES = ("registry", "history", "worker", "windows", "control", "trainer", "serving", "redis")


def verified(system: System) -> None:
    """Once the readers are done, `replay --verify` finds every store equal to the log."""
    all_ready(system)
    wait_settled(system.settings, load_tasks([Path("examples/flights.py")]), 120)
    checks = [json.loads(line) for line in system.ok("replay", "--verify", "--json").splitlines()]
    assert {check["name"] for check in checks} >= {"registry", "flights.features", "flights.policy"}
    assert all(check["passed"] for check in checks), checks


def all_ready(system: System) -> None:
    eventually(lambda: system.run("status").returncode == 0, 120)


def rows(system: System, sql: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in system.ok("query", sql, "--json").splitlines()]


def each_once(system: System, **ids: list[str]) -> None:
    """A stranger finds each id of `table=ids` in ClickHouse, and once."""
    for table, found in system.stranger("count", stdin=json.dumps(ids)).items():
        assert found == {"missing": 0, "double": 0}, (table, found)


def has_new_pid(system: System, name: str, gone: int) -> bool:
    """Whether the supervisor has started a service anew."""
    record = records.read_record(system.settings, name)
    return record is not None and records.alive(record) and record.pid != gone


def live_version(system: System) -> str:
    return str(httpx.get(f"{system.settings.rest}/v1/models").json()["models"][0]["model_version"])


def test_up_twice_changes_nothing(system: System) -> None:
    before = {each["name"]: each["pid"] for each in system.json("status", "--json")}
    assert set(before) > {"broker-1", "broker-2", "broker-3", *SERVICES}
    system.ok("up", "--detach", "--task", "examples/flights.py")
    assert {each["name"]: each["pid"] for each in system.json("status", "--json")} == before


def test_labels_led_to_a_trained_model_that_was_swapped_in(system: System) -> None:
    eventually(lambda: live_version(system) == "flights-1", 120)
    (decision,) = rows(system, "SELECT * FROM deployments FINAL WHERE model_version = 'flights-1'")
    assert decision["previous_version"] == "flights-0"
    (request,) = rows(
        system,
        f"SELECT * FROM retrain_requests FINAL WHERE event_id = '{decision['request_id']}'",
    )
    assert request["trigger"] == "first_labels"
    assert "flights-0" in system.ok("models", "at", "2013-01-02T00:00:00Z")


def test_a_stranger_finds_each_event_once_in_clickhouse(system: System) -> None:
    said = system.stranger("exchange", "20000")
    print(
        f"20,000 events, all in ClickHouse {said['seconds']:.1f} s after the last acknowledgement"
    )
    assert said["acknowledged"] == 20_000
    assert all(found == {"missing": 0, "double": 0} for found in said["found"].values()), said


def test_watch_shows_what_is_produced(system: System) -> None:
    line = json.dumps({"prediction_id": "nobody", "label": 1, "event_id": "watched-1"})
    out = system.ok("produce", "flights.labels", "--json", stdin=line)
    assert json.loads(out)["acknowledged"] == 1
    seen = system.first_line("watched-1", "watch", "flights.labels", "--from-start", "--json")
    assert seen is not None
    assert json.loads(seen)["prediction_id"] == "nobody"


def test_bad_lines_are_told_and_good_ones_produced(system: System) -> None:
    lines = [
        '{"prediction_id": "a", "label": 1}',
        "not json",
        '{"prediction_id": "a", "label": "one"}',
        '{"prediction_id": "a", "label": 1, "surprise": 2}',
        "[1]",
    ]
    done = system.run("produce", "flights.labels", "--json", stdin="\n".join(lines))
    assert done.returncode == 1
    assert json.loads(done.stdout) == {"topic": "flights.labels", "acknowledged": 1, "refused": 4}
    assert [each.split(":")[0] for each in done.stderr.splitlines()][:4] == [
        "line 2",
        "line 3",
        "line 4",
        "line 5",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("produce", "nothing.here"), "no topic"),
        (("watch", "nothing.here"), "no topic"),
        (("query", "DROP TABLE drift_scores"), "SELECT"),
        (("query", "SELECT file('/etc/passwd')"), "file"),
        (("query", "SELECT * FROM url('http://127.0.0.1/', CSV)"), "url"),
        (("query", "SELECT 1 INTO OUTFILE 'stolen.csv'"), "INTO"),
        (("query", "SELECT no_such_column FROM drift_scores"), "no_such_column"),
        (("replay", "--fold", "nonsense"), "no fold"),
        (("replay", "--to", "yesterday"), "is no time"),
        (("replay", "--model", "flights-99"), "flights-99"),
        (("similar", "flights", "nobody"), "no prediction nobody"),
        (("models", "show", "flights-99"), "flights-99"),
        (("chaos", "kill", "broker-9"), "unknown target"),
        (("up", "--task", "no_such_file.py"), "already up"),
        (("task", "check", "no_such_file.py"), "no_such_file.py"),
        (("feed", "no_such_task"), "name one of the tasks"),
    ],
)
def test_mistakes_get_one_clear_line(system: System, words: tuple[str, ...], said: str) -> None:
    error = system.refused(*words, stdin="")
    assert said in error
    assert len(error.strip().splitlines()) == 1


def test_bad_requests_are_refused_with_the_field(system: System) -> None:
    url = f"{system.settings.rest}/v1/tasks/flights/predict"
    for body, said in (
        (b"{", "JSON"),
        (b'{"instances": []}', "instances"),
        (b'{"instances": [{"distance": "far"}]}', "instances[0].distance"),
        (b'{"instances": [{"distance": NaN}]}', "instances[0].distance"),
        (b'{"instances": [{"colour": 1}]}', "instances[0].colour"),
    ):
        answer = httpx.post(url, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 422
        assert said in answer.text
    missing = httpx.post(url.replace("flights", "fights"), json={"instances": [{}]})
    assert missing.status_code == 404
    assert "flights" in missing.text


def test_garbage_goes_to_the_dead_letters_and_stops_nobody(system: System) -> None:
    sent = system.stranger("garbage")["sent"]
    sql = (
        "SELECT _partition, _offset, message FROM dead_letters FINAL"
        " WHERE _topic = 'flights.labels'"
    )
    eventually(lambda: len(rows(system, sql)) >= len(sent), 60)
    letters = rows(system, sql)
    assert len({(each["_partition"], each["_offset"]) for each in letters}) == len(sent)
    assert all(each["message"] for each in letters)
    line = json.dumps({"prediction_id": "after", "label": 1, "event_id": "after-garbage"})
    system.ok("produce", "flights.labels", stdin=line)
    eventually(
        lambda: bool(
            rows(system, "SELECT 1 FROM flights_labels FINAL WHERE event_id = 'after-garbage'")
        )
    )
    verified(system)


def test_logged_scores_come_back_bit_for_bit(system: System) -> None:
    system.ok("feed", "--to", "2013-01-17")
    words = ("--model", "flights-1", "--only", "flights-1", "--limit", "1000", "--json")
    row = system.json("replay", *words)
    assert row["answered_by"] == row["rescored_with"] == "flights-1"
    assert row["predictions"] == row["bit_identical"] == 1_000


def test_a_logged_prediction_has_neighbours_with_outcomes(system: System) -> None:
    (first,) = rows(
        system, "SELECT event_id FROM flights_predictions FINAL ORDER BY event_time LIMIT 1"
    )
    words = ("similar", "flights", first["event_id"], "-k", "20", "--json", "--device", "cpu")
    found = [json.loads(line) for line in system.ok(*words).splitlines()]
    cosines = [each["cosine"] for each in found]
    assert len(found) == 20 and cosines == sorted(cosines, reverse=True) and cosines[0] > 0.5
    assert first["event_id"] not in [each["prediction_id"] for each in found]
    assert {each["label"] for each in found} & {0, 1}
    assert {each.pop("device") for each in found} == {"cpu"}
    if shutil.which("g++"):
        again = [json.loads(line) for line in system.ok(*words[:-1], "emulator").splitlines()]
        assert {each.pop("device") for each in again} == {"emulator"}
        assert again == found, "the device shows in no result"


def test_state_as_of_a_moment_is_the_same_each_time(system: System) -> None:
    once = system.ok("replay", "--to", "2013-01-10T00:00:00Z", "--json")
    assert once == system.ok("replay", "--to", "2013-01-10T00:00:00Z", "--json")
    assert once != system.ok("replay", "--to", "2013-01-11T00:00:00Z", "--json")


def test_a_busy_system_equals_its_log(system: System) -> None:
    producing, asking = system.start_steady("produce", 20), system.start_steady("ask", 20)
    checks = system.ok("replay", "--verify")
    assert "DIFFERS" not in checks and "history state_hashes" in checks
    assert finish(producing)["acknowledged"] and finish(asking)["answered"]


def test_sigkill_of_every_service_in_the_middle_of_work(system: System) -> None:
    producing = system.start_steady("produce", 25)
    asking = system.start_steady("ask", 25)
    for service in SERVICES:
        victim = pid_of(system.settings, service)
        os.kill(victim, signal.SIGKILL)
        eventually(lambda gone=victim, name=service: has_new_pid(system, name, gone), 60)
    asked, produced = finish(asking), finish(producing)
    assert produced["unsure"] == 0
    verified(system)
    each_once(
        system, flights_predictions=asked["answered"], flights_labels=produced["acknowledged"]
    )


def test_sigkill_of_a_broker_under_load_loses_nothing(system: System) -> None:
    producing = system.start_steady("produce", 15)
    asking = system.start_steady("ask", 15)
    system.ok("chaos", "kill", "broker-2", "--for", "4")
    asked, produced = finish(asking), finish(producing)
    print(
        f"longest gap between acknowledgements {produced['longest_gap']:.1f} s,"
        f" slowest of {asked['asked']} requests {asked['slowest']:.1f} s"
    )
    assert produced["unsure"] == 0
    assert not asked["failures"]
    verified(system)
    each_once(
        system, flights_predictions=asked["answered"], flights_labels=produced["acknowledged"]
    )


def test_without_two_brokers_writes_are_refused_and_come_back(system: System) -> None:
    for broker in ("broker-2", "broker-3"):
        system.ok("chaos", "kill", broker)
    line = json.dumps({"prediction_id": "x", "label": 1, "event_id": "in-the-dark"})
    with ThreadPoolExecutor() as pool:  # both wait for the log before they give up
        refusing = pool.submit(system.refused, "produce", "flights.labels", stdin=line)
        answer = httpx.post(
            f"{system.settings.rest}/v1/tasks/flights/labels",
            json={"labels": [{"prediction_id": "x", "label": 1}]},
            timeout=60,
        )
        error = refusing.result()
    assert "not acknowledged" in error or "no broker" in error
    assert answer.status_code == 503
    assert "retry-after" in answer.headers
    for broker in ("broker-2", "broker-3"):
        system.ok("chaos", "restart", broker)
    all_ready(system)
    system.ok("produce", "flights.labels", stdin=line)
    verified(system)
    each_once(system, flights_labels=["in-the-dark"])


def test_deleted_stores_come_back_from_the_log(system: System) -> None:
    before = rows(system, "SELECT count() AS n FROM flights_predictions FINAL")
    system.ok("replay", "--rebuild")
    assert rows(system, "SELECT count() AS n FROM flights_predictions FINAL") == before
    verified(system)
