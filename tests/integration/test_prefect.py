"""Nightly snapshots by Prefect itself, in an environment of its own, with a server for as long as a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration
UV = Path(sys.executable).with_name("uv")
NEEDS = ("prefect>=3.4", "fastapi<0.130")
"""Prefect's server asks FastAPI for what newer versions, such as ours, no longer have."""
HOUSE = Path(__file__).parents[2]

DRIFTLOG = """
import json, sys
from pathlib import Path
calls = Path(__file__).with_name("calls.txt")
with calls.open("a") as file:
    print(*sys.argv[1:], file=file)
name = sys.argv[3]
tries = calls.read_text().count(f"take {name} ")
if name == "lost" or (name == "loans" and tries == 1):
    print("driftlog: the history is not there: is the system up?", file=sys.stderr)
    sys.exit(1)
print(json.dumps({"snapshot": name[0] * 64, "rows": 12, "task": name}))
"""
RUN = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("prefect_flow", sys.argv[1])
flow = importlib.util.module_from_spec(spec)
spec.loader.exec_module(flow)
flow.take.retry_delay_seconds = 0
try:
    found = flow.nightly_snapshots(json.loads(sys.argv[3]), sys.argv[2])
except Exception as error:
    found = {"error": f"{type(error).__name__}: {error}"}
print(json.dumps(found))
"""
SCHEDULE = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("prefect_flow", sys.argv[1])
flow = importlib.util.module_from_spec(spec)
spec.loader.exec_module(flow)
seen = {}
object.__setattr__(flow.nightly_snapshots, "serve", lambda **given: seen.update(given))
flow.main(["flights", "loans", "--cron", "30 1 * * *", "--timezone", "Europe/Berlin"])
when = seen["schedule"]
told = {"cron": when.cron, "timezone": when.timezone, "tasks": seen["parameters"]["tasks"]}
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has Prefect, whose dependencies need not fit ours."""
    folder = tmp_path_factory.mktemp("prefect")
    subprocess.run([UV, "venv", "-q", "--python", sys.executable, folder], check=True)
    python = folder / "bin" / "python"
    subprocess.run([UV, "pip", "install", "-q", "--python", python, *NEEDS], check=True)
    return python


def run(prefect: Path, folder: Path, script: str, *arguments: str) -> Any:
    (folder / "driftlog.py").write_text(DRIFTLOG)
    given = {
        **{name: value for name, value in os.environ.items() if "PREFECT" not in name},
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "DO_NOT_TRACK": "1",
    }
    flow = str(HOUSE / "models" / "prefect_flow.py")
    done = subprocess.run(
        [str(prefect), "-c", script, flow, *arguments],
        cwd=folder,
        env=given,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_a_snapshot_of_each_task_is_taken_and_a_failure_tried_again(
    prefect: Path, tmp_path: Path
) -> None:
    command = f"{sys.executable} {tmp_path / 'driftlog.py'}"
    found = run(prefect, tmp_path, RUN, command, json.dumps(["flights", "loans"]))
    assert found == {"flights": "f" * 64, "loans": "l" * 64}
    calls = (tmp_path / "calls.txt").read_text().splitlines()
    assert sorted(calls) == [
        "snapshots take flights --json",
        *["snapshots take loans --json"] * 2,
    ]


def test_a_task_that_fails_is_told_and_keeps_no_other_back(prefect: Path, tmp_path: Path) -> None:
    command = f"{sys.executable} {tmp_path / 'driftlog.py'}"
    found = run(prefect, tmp_path, RUN, command, json.dumps(["lost", "flights"]))
    assert found["error"].startswith("SnapshotFailed: lost: driftlog: the history is not there")
    assert "take flights" in (tmp_path / "calls.txt").read_text()


def test_the_schedule_is_the_one_that_was_asked_for(prefect: Path, tmp_path: Path) -> None:
    assert run(prefect, tmp_path, SCHEDULE) == {
        "cron": "30 1 * * *",
        "timezone": "Europe/Berlin",
        "tasks": ["flights", "loans"],
    }
