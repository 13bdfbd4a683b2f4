"""The HTTP face over a real chDB, asked by real clients over a real socket."""

from __future__ import annotations

import gzip
import threading
import time
import uuid
from collections.abc import Iterator

import clickhouse_connect
import httpx
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from consumers.history.http import MAX_BODY
from tests.unit.consumers.history_http import Service, serve

PLACE = ("flights.predictions", 0)


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, trust_env=False) as client:
        yield client


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    made = clickhouse_connect.get_client(dsn=service.url, database="driftlog")
    yield made
    made.close()


def test_clickhouse_connect_reads_native_arrow_and_pandas(client: Client) -> None:
    rows = client.query(
        "SELECT model_version, count() AS n FROM flights_predictions FINAL GROUP BY 1 ORDER BY 1"
    ).result_rows
    assert list(rows) == [("flights-1", 50), ("flights-2", 50)]
    arrow = client.query_arrow("SELECT event_id, score, event_time FROM flights_predictions FINAL")
    assert arrow.num_rows == 100
    frame = client.query_df("SELECT score FROM flights_predictions FINAL ORDER BY score LIMIT 3")
    assert frame["score"].tolist() == [0.0, 0.0, 0.0]


def test_clickhouse_connect_binds_parameters_and_sets_settings(client: Client) -> None:
    sql = "SELECT count() FROM flights_predictions FINAL WHERE score >= {least:Float64}"
    assert client.query(sql, parameters={"least": 0.5}).result_rows[0][0] == 50
    assert client.command("SELECT 1", settings={"max_threads": 1}) == 1
    with client.query_row_block_stream("SELECT number FROM numbers(200000)") as stream:
        assert sum(len(block) for block in stream) == 200_000


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO flights_labels (event_id) VALUES ('x')",
        "DROP TABLE flights_labels",
        "SELECT file('/etc/passwd')",
        "SELECT 1; SELECT 2",
        "SET readonly = 0",
    ],
)
def test_what_is_not_a_question_is_refused_with_403(sql: str, http: httpx.Client) -> None:
    answer = http.post("/", content=sql)
    assert answer.status_code == 403
    assert answer.headers["X-ClickHouse-Exception-Code"] == "497"
    assert answer.text.startswith("Code: 497. DB::Exception: Refused: ")
    assert http.get("/", params={"query": sql}).status_code == 403


def test_a_client_sees_a_refusal_as_clickhouse_error(client: Client) -> None:
    with pytest.raises(DatabaseError, match="Refused"):
        client.command("SELECT url('http://127.0.0.1:1', 'CSV')")


def test_get_post_and_a_query_in_both_places(http: httpx.Client) -> None:
    assert http.get("/", params={"query": "SELECT 1 + 1"}).text == "2\n"
    assert http.post("/", content="SELECT 1 + 1").text == "2\n"
    assert http.post("/", params={"query": "SELECT 1"}, content="+ 2").text == "3\n"
    given = {"query": "SELECT {n:UInt8} * 2 FORMAT JSONEachRow", "param_n": "21"}
    answer = http.get("/", params=given)
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    assert 42 in answer.json().values()
    assert http.get("/").text == "Ok.\n"
    assert http.get("/ping").text == "Ok.\n"


def test_a_compressed_body_and_a_form_are_read(http: httpx.Client) -> None:
    packed = gzip.compress(b"SELECT 7")
    assert http.post("/", content=packed, headers={"Content-Encoding": "gzip"}).text == "7\n"
    form = {"query": (None, "SELECT {n:UInt8}"), "param_n": (None, "9")}
    assert http.post("/", files=form).text == "9\n"


def test_what_cannot_be_read_is_told_in_one_line(http: httpx.Client) -> None:
    bomb = gzip.compress(b" " * 100 * MAX_BODY)
    cases = [
        (http.post("/", content=b" " * (MAX_BODY + 1)), 400, "longer than"),
        (http.post("/", content=bomb, headers={"Content-Encoding": "gzip"}), 400, "longer than"),
        (http.post("/", content=b"\xff\xfe"), 400, "not UTF-8"),
        (http.post("/", content=b"x", headers={"Content-Encoding": "br"}), 400, "not offered"),
        (http.post("/", content=b"xyz", headers={"Content-Encoding": "gzip"}), 400, "no gzip"),
        (http.post("/", content=bomb[:9], headers={"Content-Encoding": "gzip"}), 400, "cut short"),
        (http.get("/", params={"query": "SELECT 1", "default_format": "X"}), 400, "not offered"),
        (http.get("/", params={"query": "SELECT 1", "database": "x"}), 404, "does not exist"),
        (http.get("/", params={"query": "SELECT 1", "compress": "1"}), 400, "not offered"),
        (http.get("/", params={"query": "SELECT nothing"}), 400, "UNKNOWN_IDENTIFIER"),
        (http.get("/", params={"query": "SELECT 1 FROM nothing"}), 404, "UNKNOWN_TABLE"),
        (http.get("/", params={"query": "SELECT {n:UInt8}"}), 400, "UNKNOWN_QUERY_PARAMETER"),
    ]
    for answer, status, words in cases:
        assert (answer.status_code, words in answer.text) == (status, True), answer.text
        assert answer.text.startswith("Code: ")
        assert "Traceback" not in answer.text


def test_the_query_id_comes_back_unless_it_could_break_a_header(http: httpx.Client) -> None:
    own = str(uuid.uuid4())
    for given, returned in ((own, own), ("\u65e5\u672c", ""), ("a\r\nX-Evil: 1", "")):
        answer = http.get("/", params={"query": "SELECT 1", "query_id": given})
        assert answer.status_code == 200
        assert answer.headers["X-ClickHouse-Query-Id"] == returned


def test_another_host_name_is_not_served(http: httpx.Client) -> None:
    assert http.get("/ping", headers={"Host": "evil.example"}).status_code == 400


def test_a_limit_is_kept_and_told(http: httpx.Client) -> None:
    sql = "SELECT count() FROM numbers(10000000) a, numbers(10000000) b WHERE a.number = 2 * b.number + 1"
    began = time.monotonic()
    params = {"query": sql, "max_execution_time": "1", "max_memory_usage": "100000000"}
    answer = http.get("/", params=params, timeout=30)
    assert answer.status_code in (408, 500)
    assert "Code: 159" in answer.text or "Code: 241" in answer.text
    assert time.monotonic() - began < 20


def test_readiness_follows_the_consumer(service: Service, http: httpx.Client) -> None:
    states = [
        ("starting", 503),
        ("waiting", 503),  # never ran: its log was not found yet
        ("running", 200),
        ("waiting", 200),  # a broker is away; questions are answered
        ("failed", 503),
    ]
    for state, status in states:
        service.metrics.state(state, "why" if state == "waiting" else "")
        answer = http.get("/readyz")
        assert (answer.status_code, answer.json()["state"]) == (status, state)
        assert http.get("/healthz").status_code == 200


def test_lag_is_measured_against_the_log_as_it_is_now(service: Service, http: httpx.Client) -> None:
    service.metrics.state("running")
    service.ends = {PLACE: 10, ("flights.labels", 1): 4}
    service.metrics.stored(PLACE, 7, 7)  # as far as the consumer knew, nothing was missing
    document = http.get("/lag").json()
    assert document == {
        "caught_up": False,
        "lag": 7,
        "state": "running",
        "problem": "",
        "topics": {
            "flights.labels": {"end": 4, "stored": 0, "lag": 4},
            "flights.predictions": {"end": 10, "stored": 7, "lag": 3},
        },
    }
    service.metrics.stored(PLACE, 12, 12)
    service.metrics.stored(("flights.labels", 1), 4, 4)
    assert http.get("/lag").json()["caught_up"] is True
    service.log_answers = False
    answer = http.get("/lag")
    assert answer.status_code == 503
    assert "no broker answers" in answer.json()["error"]
    for wait in ("x", "-1", "nan", "1e9"):
        assert http.get("/lag", params={"wait": wait}).status_code == 400


def test_lag_waits_until_what_was_written_before_is_stored(
    service: Service, http: httpx.Client
) -> None:
    service.metrics.state("running")
    service.ends = {PLACE: 10}
    assert http.get("/lag", params={"wait": "0.2"}).json()["lag"] == 10
    store = threading.Timer(0.3, lambda: service.metrics.stored(PLACE, 10, 99))
    store.start()
    began = time.monotonic()
    assert http.get("/lag", params={"wait": "30"}, timeout=40).json()["caught_up"] is True
    assert time.monotonic() - began < 25


def test_metrics_show_the_lag_of_each_partition(service: Service, http: httpx.Client) -> None:
    service.metrics.stored(PLACE, 7, 10)
    service.metrics.dead_letters("flights.predictions", 2)
    http.get("/", params={"query": "SELECT 1"})
    text = http.get("/metrics").text
    assert 'driftlog_history_lag_events{partition="0",topic="flights.predictions"} 3.0' in text
    assert 'driftlog_history_dead_letters_total{topic="flights.predictions"} 2.0' in text
    assert 'driftlog_history_query_seconds_count{outcome="answered"} 1.0' in text
    assert http.get("/status").json()["lag"] == 3


def test_with_a_server_elsewhere_questions_are_sent_there() -> None:
    for service in serve(None, "http://127.0.0.1:8123"):
        answer = httpx.get(service.url, params={"query": "SELECT 1"}, trust_env=False)
        assert answer.status_code == 400
        assert "http://127.0.0.1:8123" in answer.text
