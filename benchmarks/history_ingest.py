"""How fast the history service takes the log into ClickHouse: a backlog, steady load, and the ceiling.

    python -m benchmarks.history_ingest [--quick] [--json FILE]

Exit status 0 if every goal was met, 1 if not.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import harness
from benchmarks.drift_windows import topic, workload
from benchmarks.drift_windows.workload import Workload
from benchmarks.harness import Goal, NotRun
from benchmarks.history_load import Load, Step, load
from driftlog.services import answers
from infra.settings import HOST, Settings

EVENTS = 400_000
QUICK_EVENTS = 60_000
RATES_MB = (5.0, 10.0, 20.0, 40.0)
"""Megabytes of payload a second, one step after another."""
STEP_S = 20.0
QUICK_STEP_S = 5.0
GOAL_MB = 10.0
GOAL_LAG_S = 5.0
PARTITIONS = 4

Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _arguments(arguments)
    events = asked.events or (QUICK_EVENTS if asked.quick else EVENTS)
    console = harness.console()
    with tempfile.TemporaryDirectory(prefix="history-ingest-") as home:
        settings = Settings(
            home=Path(home), port_offset=asked.port_offset, cache=Settings().cache.expanduser()
        )
        with harness.cluster(settings):
            work = workload.make(events, PARTITIONS)
            topic.produce(settings, work, settings.replication)
            size = payload_bytes(work)
            rows = [_backlog(settings, work, size)]
            rows += [_direct(settings, work, size, arm) for arm in ("arrow", "avro")]
            step_s = QUICK_STEP_S if asked.quick else STEP_S
            steps = _steady(settings, RATES_MB, step_s)
    show(console, events, size, rows, steps)
    report = {
        "events": events,
        "payload_bytes": size,
        "ways": rows,
        "steps": [vars(s) for s in steps],
    }
    return harness.finish(console, goals(rows, steps), report, asked.json)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.history_ingest", description=__doc__
    )
    add: Any = parser.add_argument
    add("--quick", action="store_true", help=f"{QUICK_EVENTS:,} events, short steps")
    add("--events", type=int, metavar="N", help=f"backlog, {EVENTS:,} unless said otherwise")
    add("--port-offset", type=int, default=600, metavar="N")
    add("--json", type=Path, metavar="FILE", help="write the same figures there")
    return parser.parse_args(arguments)


def payload_bytes(work: Workload) -> int:
    """Bytes of all values in the topic."""
    from benchmarks.drift_windows.encoder import encode

    return sum(
        len(encode(work, 1, first, min(first + 50_000, len(work)))[0])
        for first in range(0, len(work), 50_000)
    )


@contextmanager
def service(settings: Settings, task: str) -> Iterator[int]:
    """The history service of one task, as `driftlog up` starts it; its process id."""
    file = settings.home / f"{task}.py"
    names = ", ".join(f'Numeric("{name}")' for name in workload.FEATURES)
    file.write_text(
        "from driftlog import Numeric, Task\n\n"
        f'task = Task(name="{task}", label="label", features=({names},))\n',
        encoding="utf-8",
    )
    log = settings.logs / f"history-{task}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "driftlog.services", "history", "--task", str(file)],
            env=os.environ | settings.to_env(),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def lag(settings: Settings, wait_s: float = 0.0) -> Row:
    """The service's `/lag` document."""
    url = f"http://{HOST}:{settings.port(settings.history_base)}/lag?wait={wait_s:g}"
    with urllib.request.urlopen(url, timeout=wait_s + 10) as answer:
        document: Row = json.load(answer)
    return document


def wait_ready(settings: Settings, timeout_s: float = 60.0) -> None:
    url = f"http://{HOST}:{settings.port(settings.history_base)}/readyz"
    give_up = time.monotonic() + timeout_s
    while not answers(url):
        if time.monotonic() > give_up:
            raise NotRun(f"the history is not ready after {timeout_s:.0f} s")
        time.sleep(0.05)


def _backlog(settings: Settings, work: Workload, size: int) -> Row:
    """The service meets a full topic: from ready to caught up."""
    before = harness.broker_cpu_seconds(settings)
    name = topic.task_name(work.events)
    with service(settings, name) as pid:
        wait_ready(settings)
        stored = _stored(lag(settings), f"{name}.predictions")
        began, watch = time.monotonic(), harness.Watch(pid)
        while (document := lag(settings, 100))["lag"]:
            if document["state"] == "failed":
                raise NotRun(document["problem"])
        seconds, used = time.monotonic() - began, watch.stop()
        found = _ask(settings, work)
    share = 1 - stored / len(work)  # what was stored before it was ready is not counted
    return {
        "way": "history service, from the log",
        "rows_per_second": len(work) * share / seconds,
        "mb_per_second": size * share / seconds / 1e6,
        "peak_mb": used.peak_mb,
        "cpu_s": used.cpu_s,
        "broker_cpu_s": round(harness.broker_cpu_seconds(settings) - before, 2),
        "right": found == checks(work),
        "note": "",
    }


def _stored(document: Row, name: str) -> int:
    return int(document["topics"].get(name, {}).get("stored", 0))


def checks(work: Workload) -> list[int]:
    """What `CHECKS` gives over all rows of the workload."""
    return [
        len(work),
        len(work),
        int(work.label.sum()),
        int(work.time.sum()) % (1 << 32),
        int((work.score > 0.25).sum()),
    ]


CHECKS = (
    "SELECT count(), uniqExact(event_id), sum(label),"
    " sum(toUnixTimestamp64Milli(event_time)) % 4294967296, countIf(score > 0.25) FROM {table}"
)


def _ask(settings: Settings, work: Workload) -> list[int]:
    import clickhouse_connect

    url = f"http://{HOST}:{settings.port(settings.history_base)}"
    client = clickhouse_connect.get_client(dsn=url, database="driftlog")
    try:
        table = f"{topic.task_name(work.events)}_predictions FINAL"
        return [int(value) for value in client.query(CHECKS.format(table=table)).result_rows[0]]
    finally:
        client.close()


def _direct(settings: Settings, work: Workload, size: int, arm: str) -> Row:
    """The same rows straight into a ClickHouse of their own, without a log."""
    titles = {
        "arrow": "Arrow blocks, inserted as the service does",
        "avro": "raw payloads, INSERT FORMAT AvroConfluent",
    }
    row: Row = {"way": titles[arm], "right": False, "note": ""}
    command = [sys.executable, "-m", "benchmarks.history_arms", arm, str(work.events)]
    try:
        result, used = harness.measure(
            command, settings.logs / f"history-{arm}.log", env=settings.to_env()
        )
    except NotRun as reason:
        return {**row, "note": f"not run: {reason}"}
    seconds = result["ended"] - result["began"]
    return {
        **row,
        "rows_per_second": len(work) / seconds,
        "mb_per_second": size / seconds / 1e6,
        "peak_mb": used.peak_mb,
        "cpu_s": used.cpu_s,
        "broker_cpu_s": 0.0,
        "right": result["checks"] == checks(work),
    }


def _steady(settings: Settings, rates_mb: Sequence[float], step_s: float) -> list[Step]:
    """Steps of load on a service that has caught up."""
    task = "steady"
    made = Load(settings, task, PARTITIONS)
    steps = []
    with service(settings, task):
        wait_ready(settings)
        for rate in rates_mb:
            with suppress(TimeoutError):
                steps.append(load(made, rate, step_s, lambda: _stored(lag(settings), made.topic)))
            if steps and not steps[-1].kept_up:
                break  # a higher rate would tell nothing more
    return steps


def show(
    console: Console, events: int, size: int, rows: Sequence[Row], steps: Sequence[Step]
) -> None:
    harness.show_table(
        console,
        f"a backlog of {events:,} predictions, {size / 1e6:.0f} MB of payload",
        ("way into ClickHouse", "rows/s", "MB/s", "x service", "peak MB", "CPU s", "brokers'\nCPU s", "rows"),
        [
            [
                row["way"],
                f"{row['rows_per_second']:,.0f}",
                f"{row['mb_per_second']:.1f}",
                f"{row['rows_per_second'] / rows[0]['rows_per_second']:.1f}",
                f"{row['peak_mb']:,.0f}",
                f"{row['cpu_s']:.1f}",
                f"{row['broker_cpu_s']:.1f}",
                "each once" if row["right"] else "wrong",
            ]
            if "rows_per_second" in row
            else [row["way"], "not run", *[""] * 6]
            for row in rows
        ],
    )  # fmt: skip
    for row in rows:
        if row["note"]:
            console.print(f"{row['way']}: {row['note']}", highlight=False)
    harness.show_table(
        console,
        "steady load on the service",
        ("MB/s asked", "MB/s sent", "MB/s stored", "lag median s", "lag most s", "kept up"),
        [
            [
                f"{step.asked_mb:g}",
                f"{step.sent_mb:.1f}",
                f"{step.stored_mb:.1f}",
                f"{step.lag_median_s:.2f}",
                f"{step.lag_most_s:.2f}",
                "yes" if step.kept_up else "no",
            ]
            for step in steps
        ],
    )


def goals(rows: Sequence[Row], steps: Sequence[Step]) -> list[Goal]:
    ran = [row for row in rows if "rows_per_second" in row]
    best = next((step for step in steps if step.asked_mb >= GOAL_MB), None)
    if best is None:
        figures = f"it fell behind at {steps[-1].asked_mb:g} MB/s" if steps else "no load was put"
    else:
        figures = f"{best.stored_mb:.1f} MB/s stored, lag at most {best.lag_most_s:.1f} s"
    return [
        Goal(
            "every row is stored once, whatever the way",
            f"{sum(row['right'] for row in ran)} of {len(ran)}",
            bool(ran) and all(row["right"] for row in ran),
        ),
        Goal(
            f"a backlog is stored at {GOAL_MB:g} MB/s or more",
            f"{rows[0]['mb_per_second']:.1f} MB/s",
            rows[0]["mb_per_second"] >= GOAL_MB,
        ),
        Goal(
            f"{GOAL_MB:g} MB/s are sustained with a lag below {GOAL_LAG_S:g} s",
            figures,
            best is not None and best.kept_up and best.lag_most_s < GOAL_LAG_S,
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
