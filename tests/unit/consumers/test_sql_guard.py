from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.history.engine import Engine, QueryFailed
from consumers.sql_functions import words
from consumers.sql_guard import LIMITS, RefusedQuery, SafeQuery, check, safe_settings
from tests.unit.consumers.queries import (
    CANARY,
    CONTEXTS,
    HOSTILE,
    HOSTILE_CALLS,
    LEGITIMATE,
)

SECRET = "the canary sings"
MATRIX = [context.format(call) for call in HOSTILE_CALLS for context in CONTEXTS]
PARAMS = {"x": "1", "s": "text", "t": "one", "d": "system"}


def test_the_corpora_are_large_enough() -> None:
    assert len({*HOSTILE, *MATRIX}) >= 500
    assert len(set(LEGITIMATE)) >= 60


@pytest.mark.parametrize("sql", [*HOSTILE, *MATRIX])
def test_a_hostile_query_is_refused_with_a_reason(sql: str) -> None:
    with pytest.raises(RefusedQuery) as refused:
        check(sql)
    assert 3 < len(str(refused.value)) < 500


@pytest.mark.parametrize("sql", LEGITIMATE)
def test_an_analytical_query_is_accepted_and_runs(sql: str, engine: Engine) -> None:
    answer = engine.run(check(sql), "JSONCompact", PARAMS)
    assert answer.body


def test_no_hostile_query_that_slips_through_would_touch_a_file(
    engine: Engine, tmp_path: Path
) -> None:
    """The whole way, with a real file: neither is the canary read, nor is anything written."""
    canary = tmp_path / "canary.csv"
    canary.write_text(SECRET)
    new = tmp_path / "new.csv"
    for path in (canary, new):
        for sql in (*HOSTILE, *MATRIX):
            try:
                answer = engine.run(check(sql.replace(CANARY, str(path))), "CSV", PARAMS)
            except (RefusedQuery, QueryFailed):
                continue
            assert SECRET.encode() not in answer.body
    assert canary.read_text() == SECRET
    assert not new.exists()


def test_the_canary_would_be_read_without_the_guard(engine: Engine, tmp_path: Path) -> None:
    """The test above can fail: chDB's own `readonly` lets these queries read and write files."""
    canary = tmp_path / "canary.csv"
    canary.write_text(SECRET)
    read = engine.run(SafeQuery(f"SELECT arrayMap(file, ['{canary}'])"), "CSV", {})
    assert SECRET.encode() in read.body
    engine.run(SafeQuery(f"SELECT 1 INTO OUTFILE '{tmp_path}/new.csv'"), "CSV", {})
    assert (tmp_path / "new.csv").exists()


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO drift_scores (event_id) VALUES ('x')",
        "DROP TABLE drift_scores",
        "SET readonly = 0",
        "SELECT * FROM file('x.csv')",
        "SELECT 1 SETTINGS max_execution_time = 0",
    ],
)
def test_the_engine_itself_refuses_writes_and_lifted_limits(sql: str, engine: Engine) -> None:
    with pytest.raises(QueryFailed):
        engine.run(SafeQuery(sql), "CSV", {})


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        (
            "SELECT sum(cityHash64(a.number, b.number)) FROM numbers(10000000) a, numbers(10000000) b",
            159,
        ),
        ("SELECT groupArray(number) FROM numbers(10000000)", 241),
        ("SELECT number FROM numbers(10000000)", 396),
    ],
)
def test_time_memory_and_rows_are_bounded(sql: str, code: int, engine: Engine) -> None:
    limited = SafeQuery(
        sql,
        "",
        {"max_execution_time": "1", "max_memory_usage": "50000000", "max_result_rows": "1000"},
    )
    assert check(sql)
    with pytest.raises(QueryFailed) as failed:
        engine.run(limited, "Null", {})
    assert failed.value.code in (code, 241)


def test_a_query_cannot_lift_a_limit() -> None:
    asked = check(
        "SELECT 1 SETTINGS max_execution_time = 100000, max_memory_usage = 0, max_threads = 1"
    )
    assert asked.settings == {
        "max_execution_time": str(LIMITS["max_execution_time"]),
        "max_memory_usage": str(LIMITS["max_memory_usage"]),
        "max_threads": "1",
    }
    assert safe_settings({"readonly": "0", "allow_ddl": "1", "max_threads": "64"}) == {
        "max_threads": "2"
    }


def test_format_and_settings_are_split_off_in_either_order() -> None:
    want = SafeQuery("SELECT 1", "JSON", {"join_use_nulls": "1"})
    assert check("SELECT 1 FORMAT json SETTINGS join_use_nulls = 1") == want
    assert check("SELECT 1 SETTINGS join_use_nulls = 1 FORMAT JSON ;") == want


@pytest.mark.parametrize("sql", LEGITIMATE)
def test_what_is_accepted_is_accepted_again_unchanged(sql: str) -> None:
    once = check(sql)
    assert check(once.sql) == SafeQuery(once.sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT " + ",".join(["abs(1)"] * 14_000),
        "SELECT " + "settings " * 11_000 + "(1)",
        "SELECT " + "NOT " * 24_000 + "1",
        "SELECT " + "- " * 19_000 + "1",
        "SELECT 1" + " UNION ALL SELECT 1" * 5_000,
        "SELECT a" + ".a" * 40_000,
        "SELECT '" + "''" * 49_000,
        "SELECT 1" + "::Int8" * 9_000,
        "WITH " + ",".join(f"a{n} AS (SELECT 1)" for n in range(2_800)) + " SELECT 1",
        "SELECT event_id FROM alerts WHERE event_id IN (" + ",".join(["'x'"] * 9_000) + ")",
    ],
)
def test_a_long_query_is_judged_in_seconds(sql: str) -> None:
    began = time.process_time()
    with contextlib.suppress(RefusedQuery):
        check(sql)
    assert time.process_time() - began < 20


_WORDS = sorted(
    words(
        """
        SELECT FROM WHERE WITH AS ( ) , . * 1 'x' `x` x -> :: [ ] { } ; / IN NOT UNION ALL INTO OUTFILE
        'CANARY' FORMAT CSV SETTINGS readonly = 0 file url system one default APPLY arrayMap COLUMNS
        REPLACE EXCEPT JOIN USING PREWHERE LIMIT BY drift_scores -- /* */
        """
    )
    | {"\n"}
)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(_WORDS), max_size=14))
def test_no_order_of_words_lets_a_file_through(chosen: list[str]) -> None:
    """Whatever is accepted of these words names no file outside of quotes."""
    sql = f"SELECT {' '.join(chosen)}"
    with contextlib.suppress(RefusedQuery):
        accepted = check(sql)
        assert not re.search(r"(?i)outfile|\b(?:file|url)\s*\(", _unquoted(accepted.sql))
        assert "default." not in _unquoted(accepted.sql)


def _unquoted(sql: str) -> str:
    return re.sub(r"'(?:[^'\\]|\\.|'')*'|--[^\n]*|/\*.*?\*/", "''", sql, flags=re.DOTALL)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_accepted_or_refused(text: str) -> None:
    for sql in (text, f"SELECT {text}"):
        with contextlib.suppress(RefusedQuery):
            check(sql)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(LEGITIMATE),
    st.sampled_from(
        ["file('x')", "INTO OUTFILE 'x'", "default.`x`", "; DROP TABLE t", "system.users"]
    ),
    st.floats(0, 1),
)
def test_a_hostile_part_anywhere_outside_quotes_is_refused(
    sql: str, part: str, where: float
) -> None:
    at = int(where * len(sql))
    at = sql.rfind(" ", 0, at) if " " in sql[:at] else len(sql)
    before = sql[:at]
    quoted = before.count("'") % 2 or before.count('"') % 2 or before.count("`") % 2
    if quoted or "--" in before or before.count("/*") != before.count("*/") or "\\" in before:
        return
    with pytest.raises(RefusedQuery):
        check(f"{before} {part} {sql[at:]}")
