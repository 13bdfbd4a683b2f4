"""Contenders are heard, measured and ended; what goes wrong is said in one line."""

from __future__ import annotations

import io
import json
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from benchmarks.harness import Goal, NotRun, finish, measure
from benchmarks.history_load import lag_seconds
from benchmarks.produce import digest


def program(folder: Path, text: str) -> list[str]:
    path = folder / "contender.py"
    path.write_text(textwrap.dedent(text))
    return [sys.executable, str(path)]


def test_the_work_is_measured_with_all_processes_and_the_preparation_is_not(
    tmp_path: Path,
) -> None:
    argv = program(
        tmp_path,
        """
        import os, subprocess, sys, time
        prepared = sum(i * i for i in range(3_000_000))
        print("noise"); print("READY", flush=True)
        assert sys.stdin.readline() == "GO\\n"
        before = time.process_time()
        child = subprocess.Popen(
            [sys.executable, "-c", "import sys; b = bytearray(b'1') * 80_000_000; print(1, flush=True);"
             "sys.stdin.read()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        child.stdout.readline()
        sum(i * i for i in range(1_000_000))
        print(f'RESULT {{"cpu": {time.process_time() - before}, "pid": {child.pid}}}', flush=True)
        assert sys.stdin.readline() == "END\\n"
        """,
    )
    result, used = measure(argv, tmp_path / "log")
    assert used.peak_mb > 80
    assert used.cpu_s >= result["cpu"] - 0.05
    assert not psutil.pid_exists(result["pid"])


def test_memory_that_was_used_for_a_moment_counts_but_not_that_of_the_preparation(
    tmp_path: Path,
) -> None:
    argv = program(
        tmp_path,
        """
        import sys
        del (big := [bytearray(b"1") * 300_000_000])[0]
        print("READY", flush=True); input()
        del (big := [bytearray(b"1") * 100_000_000])[0]
        print("RESULT {}", flush=True); input()
        """,
    )
    _, used = measure(argv, tmp_path / "log")
    assert 100 < used.peak_mb < 200


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("raise SystemExit('no such topic')", "no such topic"),
        ("print('READY', flush=True); input(); raise ValueError('poison')", "ValueError: poison"),
    ],
)
def test_a_contender_that_fails_says_why(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(NotRun, match=why):
        measure(program(tmp_path, text), tmp_path / "log")


def test_a_contender_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    text = "print('READY', flush=True); input(); input()"
    with pytest.raises(NotRun, match="no RESULT within"):
        measure(program(tmp_path, text), tmp_path / "log", timeout_s=0.2)


def test_the_exit_status_and_the_report_say_whether_goals_were_met(tmp_path: Path) -> None:
    out = io.StringIO()
    goals = [Goal("quick", "1 s", True), Goal("small", "9 GB", False)]
    assert finish(Console(file=out), goals[:1], {}, None) == 0
    assert finish(Console(file=out), goals, {"events": 3}, tmp_path / "r.json") == 1
    assert "missed small: 9 GB" in out.getvalue()
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["events"] == 3 and [goal["met"] for goal in report["goals"]] == [True, False]


def test_lag_is_the_age_of_the_oldest_event_that_is_not_stored() -> None:
    times, counts = [0.0, 1.0, 2.0, 3.0], [0, 10, 20, 30]
    assert lag_seconds(times, counts, stored=30, now=9.0) == 0.0
    assert lag_seconds(times, counts, stored=29, now=9.0) == 6.0
    assert lag_seconds(times, counts, stored=10, now=9.0) == 7.0
    assert lag_seconds(times, counts, stored=0, now=9.0) == 8.0


def test_the_digest_knows_records_in_any_order_and_each_only_once() -> None:
    one, other = (b"a", b"1"), (b"b", b"2")
    assert digest([one, other]) == digest([other, one])
    assert digest([one, other]) != digest([one, other, other])
