"""The whole system, started the way a user starts it, shared by all end-to-end tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from infra.settings import Settings
from tests.integration.clusters import fresh_settings

ROOT = Path(__file__).parents[2]
STRANGER = Path(__file__).with_name("stranger.py")


@dataclass(frozen=True)
class System:
    """The command line and the addresses of one instance."""

    settings: Settings

    def run(
        self, *words: str, stdin: str | None = None, timeout_s: float = 240
    ) -> subprocess.CompletedProcess[str]:
        """`driftlog WORDS...` in a process of its own."""
        return subprocess.run(
            [sys.executable, "-m", "driftlog", *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            cwd=ROOT,
            env={**os.environ, **self.settings.to_env()},
            check=False,
        )

    def first_line(self, holding: str, *words: str, timeout_s: float = 60) -> str | None:
        """The first line that holds a text, of a command that would run on; None if none comes in time."""
        command = [sys.executable, "-m", "driftlog", *words]
        env = {**os.environ, **self.settings.to_env()}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=env
        ) as process:
            alarm = threading.Timer(timeout_s, process.kill)
            alarm.start()
            assert process.stdout is not None
            found = next((line for line in process.stdout if holding in line), None)
            alarm.cancel()
            process.terminate()
        return found

    def ok(self, *words: str, stdin: str | None = None, timeout_s: float = 240) -> str:
        """Its output; the test fails if it does."""
        done = self.run(*words, stdin=stdin, timeout_s=timeout_s)
        assert done.returncode == 0, f"driftlog {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def refused(self, *words: str, stdin: str | None = None) -> str:
        """What it says on standard error; the test fails unless it failed without a traceback."""
        done = self.run(*words, stdin=stdin)
        assert done.returncode != 0, f"driftlog {' '.join(words)} did not fail"
        assert "Traceback" not in done.stderr
        return done.stderr

    def json(self, *words: str, timeout_s: float = 240) -> Any:
        return json.loads(self.ok(*words, timeout_s=timeout_s))

    def start_stranger(self, *words: str) -> subprocess.Popen[str]:
        """A program that shares no code with driftlog; see stranger.py."""
        ports = [
            self.settings.bootstrap,
            self.settings.registry,
            str(self.settings.port(18123)),
            self.settings.rest,
        ]
        return subprocess.Popen(
            [sys.executable, str(STRANGER), *ports, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=STRANGER.parent,
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        )

    def start_steady(self, what: str, seconds: int) -> subprocess.Popen[str]:
        """A stranger that has begun to produce or to ask."""
        process = self.start_stranger(what, str(seconds))
        assert process.stdout is not None
        assert "started" in process.stdout.readline()
        return process

    def stranger(self, *words: str, stdin: str = "") -> Any:
        return finish(self.start_stranger(*words), stdin)


def finish(process: subprocess.Popen[str], stdin: str = "", timeout_s: float = 240) -> Any:
    """The JSON that a stranger prints at its end."""
    out, err = process.communicate(stdin, timeout=timeout_s)
    assert process.returncode == 0, out + err
    return json.loads(out.strip().splitlines()[-1])


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The flights task and two serving replicas, brought up and fed with the first days; taken down."""
    settings = fresh_settings(tmp_path_factory.mktemp("system"))
    made = System(replace(settings, serving_replicas=2))
    try:
        made.ok("up", "--detach", "--task", "examples/flights.py", timeout_s=400)
        made.ok("feed", "--to", "2013-01-15", timeout_s=400)
        yield made
    finally:
        made.run("down")
