"""A worker with outcome windows on disk that is killed again and again; run by test_outcome_store.

    python -m tests.unit.streams.outcome_lives FOLDER LIVES

Prints how the state ended after so many lives and how in one, and how the lives began.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from pathlib import Path

import numpy as np

from schemas.columnar import Columns
from streams.outcome_columns import OutcomeColumns, State
from streams.outcome_store import open_outcomes
from tests.unit.streams.build import HOUR, TASK

Offsets = dict[tuple[str, int], int]
PARTITIONS = 2
ROWS = 30_000
BATCH = 60
FOLD = OutcomeColumns(TASK, PARTITIONS)


def steps() -> list[Columns]:
    """What a worker reads, batch by batch: predictions, and labels some hours later, two partitions each."""
    rng = np.random.default_rng(11)
    predictions, labels = FOLD.topics
    ids = rng.integers(0, 2**64, (ROWS, 2), np.uint64)
    times = np.sort(rng.integers(0, 12 * 24 * HOUR, ROWS))
    known = np.flatnonzero(rng.random(ROWS) < 0.95)
    label_times = times[known] + rng.integers(0, 7 * HOUR, len(known))
    known, label_times = known[np.argsort(label_times)], np.sort(label_times)
    found: list[tuple[int, Columns]] = []
    for partition in range(PARTITIONS):
        mine = np.flatnonzero(ids[:, 0] % 2 == partition)
        score = {"model_version": np.zeros(len(mine), np.int32), "score": rng.random(len(mine))}
        data = {"event_id": ids[mine], "event_time": times[mine], **score}
        found += _cut(predictions, partition, data)
        its = np.flatnonzero(ids[known, 1] % 2 == partition)
        truth = {"label": rng.integers(0, 2, len(its)), "event_time": label_times[its]}
        data = {"event_id": ids[known[its]], "prediction_id": ids[known[its]], **truth}
        found += _cut(labels, partition, data)
    return [columns for _, columns in sorted(found, key=lambda item: item[0])]


def _cut(topic: str, partition: int, data: dict[str, np.ndarray]) -> list[tuple[int, Columns]]:
    found = []
    for first in range(0, len(data["event_time"]), BATCH):
        part = {path: values[first : first + BATCH] for path, values in data.items()}
        offset = first + np.arange(len(part["event_time"]))
        columns = Columns(topic, partition, offset, np.zeros_like(offset), part)
        found.append((int(part["event_time"][0]), columns))
    return found


def absorb(state: State, columns: Columns) -> None:
    FOLD.absorb(state, columns, {"model_version": ["toy-1"]}, str)


def summary(state: State) -> dict[str, object]:
    counts = state.join.counts
    print_ = FOLD.fingerprint(state)
    waiting = len(state.join.waiting_predictions), len(state.join.waiting_labels)
    return {"fingerprint": print_, "matched": counts.matched, "counts": str((counts, waiting))}


def live(folder: Path, work: list[Columns], say: int) -> State:
    """One life, from what the last one left to the end; a byte to `say` for each step."""
    committed = folder / "committed"
    done = int(committed.read_text()) if committed.exists() else 0
    at = [{}]  # offsets after each step
    for columns in work:
        at.append({**at[-1], (columns.topic, columns.partition): int(columns.offset[-1]) + 1})
    store = open_outcomes(folder / "state", FOLD, at[done], memory_bytes=0)
    begin = at.index(store.offsets)
    os.write(say, json.dumps([begin, done, store.discarded]).encode() + b"\n")
    for number in range(begin, len(work)):
        absorb(store.state, work[number])
        if number >= done:
            fresh = folder / "committed.new"
            fresh.write_text(str(number + 1))
            os.replace(fresh, committed)
        store.commit(at[number + 1])
        os.write(say, b".")
    return store.state


def main() -> None:
    folder, lives = Path(sys.argv[1]), int(sys.argv[2])
    work = steps()
    calm = FOLD.initial()
    for columns in work:
        absorb(calm, columns)
    rng, begun = random.Random(5), []
    for left in range(lives, -1, -1):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            state = live(folder, work, write)
            os.write(write, b"\n" + json.dumps(summary(state)).encode())
            os._exit(0)
        os.close(write)
        said = b""
        steps_to_live = rng.randrange(2 * len(work) // lives) if left else sys.maxsize
        while said.count(b".") < steps_to_live and (
            more := os.read(read, 1 << 16 if not left else 1)
        ):
            said += more
        if left:
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(read)
        begun.append(json.loads(said.split(b"\n")[0] or b"null"))
    ended = json.loads(said.split(b"\n")[2])
    print(json.dumps({"calm": summary(calm), "ended": ended, "begun": begun}))


if __name__ == "__main__":
    main()
