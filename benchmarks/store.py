"""Rows of 16-byte keys and 24-byte values: driftlog's LSM tree beside RocksDB, and memory for scale.

    python -m benchmarks.store [--quick] [--json FILE]

Random keys, in batches of 10,000; each batch is on disk (fsync) before the next one, and the insert ends
with a flush. Then every key is looked up, as many that are not there, and every tenth is deleted. The
process is killed (SIGKILL) without closing anything, and another one opens what is left. RocksDB runs by
rocksdict: its time includes making Python bytes of the arrays, which is how Python uses it. Written bytes
are what the kernel says that the process sent to disk. Seconds are the best of several rounds.
Exit status 0 if every goal was met, 1 if not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Goal, console, finish, measure, show_table
from benchmarks.store_arms import ARMS, ON_DISK, ROW_BYTES

ROWS, QUICK_ROWS = 1_000_000, 100_000
ROUNDS = 3
GOAL_S = 4.0
GOAL_AMPLIFICATION = 1.3
OURS = "driftlog LSM tree"
PHASES = ("insert", "hit", "miss", "delete")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="store", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROWS:,} rows, one round")
    parser.add_argument("--rows", type=int, metavar="N", help="so many rows, one round")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the same figures there")
    asked = parser.parse_args(arguments)
    count = asked.rows or (QUICK_ROWS if asked.quick else ROWS)
    rounds = 1 if asked.quick or asked.rows else ROUNDS
    out = console()
    results = {name: best([run(name, count) for _ in range(rounds)]) for name in ARMS}
    show(out, results, count)
    report = {"rows": count, "row_bytes": ROW_BYTES, "results": results}
    return finish(out, goals(results, count), report, asked.json)


def run(name: str, count: int) -> dict[str, Any]:
    """One contender: at work until it is killed, then opened again."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "stderr.log"

        def phase(what: str) -> tuple[dict[str, Any], float]:
            module = "benchmarks.store_arms"
            argv = [sys.executable, "-m", module, name, f"{folder}/rows", str(count), what]
            found, used = measure(argv, log, timeout_s=600)
            return found, used.peak_mb

        found, peak_mb = phase("work")
        again = phase("reopen")[0] if name in ON_DISK else None
        return {**found, "peak_mb": peak_mb, "reopen": again}


def best(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures of one contender, each its best."""
    found = dict(rounds[0])
    for kind in ("seconds", "cpu"):
        found[kind] = {phase: min(one[kind][phase] for one in rounds) for phase in PHASES}
    found["written"] = min(one["written"] for one in rounds)
    if found["reopen"]:
        found["reopen"] = min((one["reopen"] for one in rounds), key=lambda one: one["seconds"])
    found["peak_mb"] = max(one["peak_mb"] for one in rounds)
    return found


def show(out: Any, results: dict[str, dict[str, Any]], count: int) -> None:
    rows = []
    for name, found in results.items():
        on_disk, again = name in ON_DISK, found["reopen"]
        rate = [f"{count / found['seconds'][phase] / 1e3:,.0f}" for phase in PHASES[:3]]
        rows.append(
            [
                name,
                f"{found['seconds']['insert']:.2f}",
                f"{found['cpu']['insert']:.2f}",
                *rate,
                f"{count / 10 / found['seconds']['delete'] / 1e3:,.0f}",
                f"{found['written'] / (count * ROW_BYTES):.2f}" if on_disk else "-",
                f"{found['disk'] / 1e6:.0f}" if on_disk else "-",
                f"{again['seconds']:.2f}" if again else "-",
                f"{found['peak_mb']:.0f}",
            ]
        )
    header = ("store", "insert s", "CPU s", "insert k/s", "hit k/s", "miss k/s", "del k/s")
    more = ("written", "disk MB", "reopen s", "peak MB")
    title = f"{count:,} rows of {ROW_BYTES} bytes; written: to disk, for each byte of a row"
    show_table(out, title, (*header, *more), rows)


def goals(results: dict[str, dict[str, Any]], count: int) -> list[Goal]:
    ours, rocks = results[OURS], results["RocksDB"]
    amplification = ours["written"] / (count * ROW_BYTES)
    left = count - count // 10
    equal = all(
        (found["hits"], found["misses"], found["wrong"], found["rows"]) == (count, count, 0, left)
        and (
            found["reopen"] is None
            or (found["reopen"]["right"], found["reopen"]["rows"]) == (True, left)
        )
        for found in results.values()
    )
    seconds, limit = ours["seconds"]["insert"], GOAL_S * count / ROWS
    faster = {p: rocks["seconds"][p] / ours["seconds"][p] for p in PHASES}
    return [
        Goal("every store answers alike, also after the kill", "rows, hits and misses", equal),
        Goal(f"{count:,} inserts in {limit:g} s", f"{seconds:.2f} s", seconds <= limit),
        Goal(
            f"at most {GOAL_AMPLIFICATION} bytes written for each",
            f"{amplification:.2f}, log included",
            amplification <= GOAL_AMPLIFICATION,
        ),
        Goal(
            "not slower than RocksDB in anything",
            ", ".join(f"{phase} {ratio:.1f}x" for phase, ratio in faster.items()),
            min(faster.values()) >= 1,
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
