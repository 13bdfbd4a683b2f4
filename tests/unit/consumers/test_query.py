"""`driftlog query` against the HTTP face of a real chDB."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner, Result

from driftlog.cli import query
from driftlog.cli.errors import CliError
from tests.unit.consumers.history_http import Service

app = typer.Typer()
query.register(app)
app.command("other")(lambda: None)  # with one command only, its name would be an argument


@pytest.fixture(autouse=True)
def history_here(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLOG_CLICKHOUSE_URL", service.url)


def run(*words: str, stdin: str = "") -> Result:
    return CliRunner().invoke(app, ["query", *words], input=stdin)


def said(*words: str) -> str:
    result = run(*words)
    assert result.exit_code == 0, result.exception
    return result.stdout


def error(*words: str) -> str:
    result = run(*words)
    assert result.exit_code != 0
    assert isinstance(result.exception, CliError)
    return str(result.exception)


def test_a_pipe_gets_tab_separated_lines_with_a_header() -> None:
    out = said(
        "SELECT model_version, count() AS n FROM flights_predictions FINAL GROUP BY 1 ORDER BY 1"
    )
    assert out == "model_version\tn\nflights-1\t50\nflights-2\t50\n"
    assert "flights_predictions" in said("SHOW TABLES")
    assert "event_id" in said("DESCRIBE flights_predictions")
    assert said("EXPLAIN SELECT 1").startswith("explain")


def test_json_csv_and_the_querys_own_format() -> None:
    sql = "SELECT event_id, score FROM flights_predictions FINAL ORDER BY event_id LIMIT 2"
    lines = [json.loads(line) for line in said(sql, "--json").splitlines()]
    assert [line["score"] for line in lines] == [0, 0.1]
    assert said(sql, "--format", "csv").splitlines()[0] == '"event_id","score"'
    assert said("SELECT 1 AS x FORMAT TSVWithNames") == "x\n1\n"


def test_parquet_goes_to_a_file_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    assert said("SELECT event_id FROM flights_predictions FINAL", "-o", str(path)) == ""
    assert pq.read_table(path).num_rows == 100


def test_parameters_settings_and_standard_input() -> None:
    assert said("SELECT {n:UInt8} + 1 AS x", "-p", "n=41") == "x\n42\n"
    assert said("SELECT 1 AS x SETTINGS max_threads = 1, join_use_nulls = 1") == "x\n1\n"
    assert run("-", stdin="SELECT 5 AS x").stdout == "x\n5\n"


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("DROP TABLE flights_labels", "DROP: only SELECT"),
        ("SELECT file('/etc/passwd')", "function file is not allowed"),
        ("SELECT * FROM nothing", "`driftlog query 'SHOW TABLES'` lists the tables"),
        ("SELECT 1 +", "cannot be parsed"),
    ],
)
def test_an_error_is_one_line_that_says_what_next(sql: str, words: str) -> None:
    told = error(sql)
    assert words in told
    assert "\n" not in told


def test_wrong_options_are_told(tmp_path: Path) -> None:
    assert "write name=value" in error("SELECT 1", "-p", "n")
    assert "there is no folder" in error("SELECT 1", "-o", str(tmp_path / "no" / "x.csv"))


def test_without_a_history_it_says_how_to_start_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLOG_CLICKHOUSE_URL", "http://127.0.0.1:9")
    assert "`driftlog up`" in error("SELECT 1")
