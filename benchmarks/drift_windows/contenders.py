"""Who takes part: what each runs, in which environment, and on how many events."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.drift_windows.kafka_streams.build import command as kafka_streams
from benchmarks.harness import ROOT, NotRun

FLOOR, PLAIN, FRAMEWORK, JAVA = "floor", "plain", "framework", "java"
OURS, REPLAY = "driftlog", "replay"
_MODULE = "benchmarks.drift_windows"
IN_A_GOAL = 5
"""Runs of those whose rates a goal compares: the load of a shared machine changes by the second."""


@dataclass(frozen=True)
class Contender:
    """`slice_events`: so many events are enough for a slow one; its rate stands for the whole topic.

    `packages`: what an environment of its own holds, beside what it reads this package with.
    """

    name: str
    title: str
    kind: str
    module: str = ""
    packages: tuple[str, ...] = ()
    threads: int = 0
    """Of Kafka Streams."""
    slice_events: int | None = None
    quick: bool = True
    runs: int = 1
    """How often it runs; the table shows the median."""
    env: Mapping[str, str] = field(default_factory=dict)

    def events_of(self, events: int) -> int:
        """How many it is given where others are given `events`."""
        return min(events, self.slice_events or events)

    def argv(self, cache: Path, install: bool) -> list[str]:
        """The command, to which the job's file is added; raises NotRun if it cannot be had."""
        if self.kind == JAVA:
            return kafka_streams(cache / "kafka-streams", self.threads, install)
        python = self._python(cache, install)
        return [str(python), "-m", f"{_MODULE}.{self.module}"]

    def _python(self, cache: Path, install: bool) -> Path:
        if not self.packages:
            return Path(sys.executable)
        folder = cache / "environments" / self.name
        python, done = folder / "bin" / "python", folder / ".complete"
        wanted = "\n".join(self.packages)
        if done.exists() and done.read_text("utf-8") == wanted:
            return python
        if not install:
            raise NotRun("not installed: add --peers")
        uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
        if uv is None:
            raise NotRun("uv is missing: make dev")
        for step in (
            [uv, "venv", "-q", "--clear", "--python", sys.executable, str(folder)],
            [uv, "pip", "install", "-q", "--python", str(python), *self.packages],
        ):
            made = subprocess.run(step, cwd=ROOT, capture_output=True, text=True, check=False)
            if made.returncode:
                why = made.stderr.strip().splitlines() or ["no reason given"]
                raise NotRun(f"does not install: {why[-1][:120]}")
        done.write_text(wanted, encoding="utf-8")
        return python


CONTENDERS = (
    Contender("floor", "confluent-kafka, nothing decoded", FLOOR, "peers.floor", runs=IN_A_GOAL),
    Contender(
        "driftlog", "driftlog: worker and control plane", OURS, "driftlog_arm", runs=IN_A_GOAL
    ),
    Contender(
        "replay", "driftlog: replay of all drift folds", REPLAY, "replay_arm", runs=IN_A_GOAL
    ),
    Contender(
        "pyruhvro",
        "confluent-kafka + pyruhvro + NumPy",
        PLAIN,
        "peers.confluent_pyruhvro",
        ("pyruhvro==0.4.0", "confluent-kafka", "numpy", "pyarrow"),
        runs=IN_A_GOAL,
    ),
    Contender("confluent", "confluent-kafka + fastavro + NumPy", PLAIN, "peers.confluent_fastavro"),
    Contender("aiokafka", "aiokafka + fastavro + NumPy", PLAIN, "peers.aiokafka_fastavro"),
    Contender("streams-2", "Kafka Streams, 2 threads", JAVA, threads=2, runs=IN_A_GOAL),
    Contender("streams-1", "Kafka Streams, 1 thread", JAVA, threads=1, quick=False),
    Contender(
        "bytewax",
        "Bytewax",
        FRAMEWORK,
        "peers.bytewax_flow",
        ("bytewax==0.21.1", "confluent-kafka", "fastavro", "numpy"),
        runs=IN_A_GOAL,
        slice_events=200_000,
        quick=False,
    ),
    Contender(
        "quix",
        "Quix Streams",
        FRAMEWORK,
        "peers.quix_windows",
        ("quixstreams==3.28.1", "fastavro", "numpy"),
        slice_events=200_000,
        quick=False,
    ),
    Contender(
        "pathway",
        "Pathway",
        FRAMEWORK,
        "peers.pathway_table",
        ("pathway==0.33.0", "fastavro", "numpy"),
        slice_events=200_000,
        quick=False,
    ),
    Contender(
        "faust",
        "Faust",
        FRAMEWORK,
        "peers.faust_agent",
        slice_events=100_000,
        quick=False,
    ),
)
