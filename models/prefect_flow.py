"""Snapshots every night by Prefect: one of each task, each tried again by itself.

    PREFECT/bin/python models/prefect_flow.py flights loans --cron "0 2 * * *" --driftlog .venv/bin/driftlog

stays up and takes them when it is time; its runs are seen in Prefect's own pages. A snapshot is taken by
`driftlog snapshots take`, so it is a SnapshotTaken in the log like any other. Prefect lives in an environment
of its own (its server wants an older FastAPI): this file needs nothing else; `--driftlog` names the command.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
from collections.abc import Sequence

from prefect import flow, get_run_logger, task

LIMIT_S = 3_600
RETRIES, DELAY_S = 3, 60
HERE = "driftlog"


class SnapshotFailed(Exception):
    """No snapshot of a task was taken; the message is driftlog's own."""


@task(  # type: ignore[untyped-decorator]
    name="snapshot", retries=RETRIES, retry_delay_seconds=DELAY_S, task_run_name="snapshot-{name}"
)
def take(name: str, driftlog: str = HERE) -> str:
    """The SHA-256 of a new snapshot of the task `name`; raises SnapshotFailed."""
    command = [*shlex.split(driftlog), "snapshots", "take", name, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()
        raise SnapshotFailed(f"{name}: {said[-1]}")
    taken = json.loads(done.stdout.strip().splitlines()[-1])
    get_run_logger().info("%s: %s rows in %s", name, taken["rows"], taken["snapshot"])
    return str(taken["snapshot"])


@flow(name="driftlog-snapshots")  # type: ignore[untyped-decorator]
def nightly_snapshots(tasks: list[str], driftlog: str = HERE) -> dict[str, str]:
    """Task -> SHA-256. One that fails keeps no other back; raises SnapshotFailed in the end."""
    running = {name: take.submit(name, driftlog) for name in tasks}
    found = {name: future.result(raise_on_failure=False) for name, future in running.items()}
    failed = [str(answer) for answer in found.values() if isinstance(answer, Exception)]
    if failed:
        raise SnapshotFailed("; ".join(failed))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="prefect_flow.py", description=__doc__)
    parser.add_argument("tasks", nargs="+", metavar="TASK")
    parser.add_argument("--cron", default="0 2 * * *", help="When, as cron says it.")
    parser.add_argument("--timezone", default="UTC")
    parser.add_argument("--driftlog", default=HERE, help="The command to call.")
    given = parser.parse_args(arguments)
    from prefect.schedules import Cron

    nightly_snapshots.serve(
        name="nightly",
        schedule=Cron(given.cron, timezone=given.timezone),
        parameters={"tasks": given.tasks, "driftlog": given.driftlog},
    )


if __name__ == "__main__":
    main()
