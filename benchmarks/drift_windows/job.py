"""What a contender is told, and the lines it answers with; needs nothing but the standard library.

A contender reads one topic from the start to the end and gives one score per model, window and column.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """`ends[p]`: records of partition p. `reference`: a `ReferenceColumn` for each feature, then the score.

    A window [s, s + window_ms) of a partition is closed once an event at or after s + window_ms +
    lateness_ms was seen there. `windows` windows from `start_ms` on are asked for.
    """

    bootstrap: str
    topic: str
    events: int
    ends: list[int]
    schema: dict[str, Any]
    """Without logical types: times are plain numbers."""
    schema_id: int
    models: list[str]
    features: list[str]
    reference: list[dict[str, Any]]
    start_ms: int
    windows: int
    window_ms: int
    lateness_ms: int
    scores: str
    """The file for the scores."""
    run: str
    """A name that no other run has: for groups and topics of its own."""
    replication: int

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls) -> Job:
        """The job whose file is the program's argument."""
        return cls(**json.loads(Path(sys.argv[1]).read_text("utf-8")))

    @property
    def expected(self) -> int:
        """Number of scores."""
        return len(self.models) * self.windows * (len(self.features) + 1)


Score = tuple[str, int, str, float]
"""(model version, window start in ms, column, PSI)"""


def wait_for_go() -> None:
    """Say that all is ready; returns when the work may begin."""
    print("READY", flush=True)
    if not sys.stdin.readline():
        raise SystemExit("nobody says GO")


def finish(job: Job, began: float, ended: float, scores: Iterable[Score], **more: Any) -> None:
    """Hand in the scores; `began`, `ended` by `time.monotonic`. Returns when the process may end."""
    Path(job.scores).write_text(json.dumps(list(scores)), encoding="utf-8")
    # On a line of its own: a framework may have written to the one before.
    print("\nRESULT " + json.dumps({"began": began, "ended": ended, **more}), flush=True)
    sys.stdin.readline()


now = time.monotonic
