"""Events -> Avro payloads: the codec's generated encoders beside fastavro, which checks and then writes.

    python -m benchmarks.encode [--quick] [--json FILE]

The work: events as the system makes them, one codec, one core. A SketchTaken has 9 columns of 20 counts each;
a DriftScored is flat; a PredictionMade has 8 doubles, or 5 texts and 13 doubles as in `examples/flights.py`.
`fastavro` checks every value strictly and then writes it, which is what the codec promises; `fastavro, no
check` writes 1 for 1.5. All run in turn in one process, each one's best round counts, and their bytes are
compared. Times are of CPU. Exit status 0 if every goal was met, 1 if not.
"""

from __future__ import annotations

import argparse
import io
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import fastavro

from benchmarks.harness import Goal, console, finish, show_table
from schemas.catalogue import DRIFT_SCORES, SKETCHES, system_topics, task_topics
from schemas.codec import Codec, without
from schemas.event import Event, derive
from schemas.registry.service import LocalRegistry

EVENTS, QUICK_EVENTS = 40_000, 2_000
"""Their times are more than the codec keeps the bytes of."""
ROUNDS = 7
GOAL = 4.0
"""So much faster than fastavro with its check."""
OURS, PEER, UNCHECKED = "driftlog", "fastavro", "fastavro, no check"
DOUBLES = [f"x{number}" for number in range(8)]
TEXTS = ["weekday", "carrier", "origin", "dest", "tail"]
MIXED = {**dict.fromkeys(TEXTS, "string"), **{f"x{number}": "double" for number in range(13)}}
TOPICS = {
    "doubles": task_topics("doubles", dict.fromkeys(DOUBLES, "double"), ())[0],
    "mixed": task_topics("mixed", MIXED, ())[0],
}
START = 1_700_000_000_000
WIDTH = 3_600_000
Encode = Callable[[Event], bytes]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="encode", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_EVENTS:,} events")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the same figures there")
    asked = parser.parse_args(arguments)
    most = QUICK_EVENTS if asked.quick else EVENTS
    codec = Codec(LocalRegistry(), [*system_topics(), *TOPICS.values()])
    out, rows, goals, report = console(), [], [], {}
    for kind, (make, weight) in KINDS.items():
        rng, count = random.Random(7), most // weight
        events = [make(rng, number) for number in range(count)]
        payloads, micros = compare(codec, events)
        ratio = micros[PEER] / micros[OURS]
        size = sum(map(len, payloads[OURS])) / count
        figures = [f"{micros[name]:.2f}" for name in (OURS, PEER, UNCHECKED)]
        rows.append((kind, f"{count:,}", f"{size:.0f}", *figures, f"{ratio:.1f}"))
        goals += [
            Goal(f"{kind}: {GOAL:g} x fastavro", f"{ratio:.1f}", ratio >= GOAL),
            Goal(
                f"{kind}: equal bytes", f"{count:,}", len(set(map(tuple, payloads.values()))) == 1
            ),
        ]
        report[kind] = {"events": count, "bytes": size, "microseconds": micros}
    names = (
        "kind",
        "events",
        "bytes",
        f"{OURS} us",
        f"{PEER} us",
        f"{UNCHECKED} us",
        f"{PEER} to {OURS}",
    )
    show_table(out, f"best of {ROUNDS}", names, rows)
    return finish(out, goals, {"kinds": report}, asked.json)


def compare(
    codec: Codec, events: Sequence[Event]
) -> tuple[dict[str, list[bytes]], dict[str, float]]:
    """Each contender's payloads, and its microseconds an event."""
    prefix = codec.encode(events[0])[:5]
    encoders = {
        OURS: codec.encode,
        PEER: fastavro_encode(codec, events[0], prefix, check=True),
        UNCHECKED: fastavro_encode(codec, events[0], prefix, check=False),
    }
    payloads = {name: [encode(event) for event in events] for name, encode in encoders.items()}
    best = dict.fromkeys(encoders, float("inf"))
    for _ in range(ROUNDS):
        for name, encode in encoders.items():
            begin = time.process_time_ns()
            for event in events:
                encode(event)
            best[name] = min(best[name], (time.process_time_ns() - begin) / 1e3 / len(events))
    return payloads, best


def fastavro_encode(codec: Codec, like: Event, prefix: bytes, check: bool) -> Encode:
    schema = codec.topic(like.topic).schema(like.type)
    parsed = fastavro.parse_schema(without(schema, frozenset({"logicalType"})))

    def encode(event: Event) -> bytes:
        if check and not fastavro.validate(
            event.data, parsed, raise_errors=False, strict=True, disable_tuple_notation=True
        ):
            raise ValueError(event)
        out = io.BytesIO()
        out.write(prefix)
        fastavro.schemaless_writer(
            out, parsed, event.data, strict_allow_default=True, disable_tuple_notation=True
        )
        return out.getvalue()

    return encode


def sketch(rng: random.Random, number: int) -> Event:
    start = START + number // 4 * WIDTH
    columns = []
    for place in range(9):
        low, high = sorted((rng.gauss(0, 3), rng.gauss(0, 3)))
        columns.append(
            {
                "name": f"column_{place}",
                "counts": [rng.randrange(1_000) for _ in range(20)],
                "missing": rng.randrange(9),
                "unseen": 0,
                "mean": rng.gauss(0, 1),
                "variance": rng.random(),
                "minimum": low,
                "maximum": high,
            }
        )
    return derive(
        SKETCHES,
        "SketchTaken",
        number,
        time=start + WIDTH,
        caused_by=f"cause-{number}",
        task="bench",
        model_version="bench-1",
        kind="inputs",
        window_start=start,
        window_end=start + WIDTH,
        partition=number % 4,
        revision=0,
        count=rng.randrange(20_000),
        columns=columns,
        totals={},
    )


def score(rng: random.Random, number: int) -> Event:
    start = START + number // 9 * WIDTH
    return derive(
        DRIFT_SCORES,
        "DriftScored",
        number,
        time=start + WIDTH,
        caused_by=f"cause-{number}",
        task="bench",
        model_version="bench-1",
        window_start=start,
        window_end=start + WIDTH,
        feature=f"column_{number % 9}",
        revision=0,
        count=rng.randrange(20_000),
        reference_count=150_000,
        psi=rng.random(),
        ks=rng.random(),
        js=rng.random(),
        threshold=0.1,
        drifted=rng.random() < 0.1,
    )


def doubles(rng: random.Random, number: int) -> Event:
    return prediction(rng, number, "doubles", {name: _double(rng) for name in DOUBLES})


def mixed(rng: random.Random, number: int) -> Event:
    vector = {
        name: f"{name}-{rng.randrange(30)}" if kind == "string" else _double(rng)
        for name, kind in MIXED.items()
    }
    return prediction(rng, number, "mixed", vector)


def prediction(rng: random.Random, number: int, task: str, vector: dict[str, object]) -> Event:
    return derive(
        TOPICS[task].name,
        "PredictionMade",
        number,
        time=START + number * 97,
        caused_by=None,
        model_version=f"{task}-1",
        score=rng.random(),
        label=rng.randrange(2),
        features=vector,
    )


def _double(rng: random.Random) -> float | None:
    return None if rng.random() < 0.03 else rng.gauss(0, 1)


KINDS: dict[str, tuple[Callable[[random.Random, int], Event], int]] = {
    "SketchTaken": (sketch, 40),
    "DriftScored": (score, 1),
    "PredictionMade, 8 doubles": (doubles, 1),
    "PredictionMade, 5 texts and 13 doubles": (mixed, 1),
}
"""What makes one, and how many events of the others it weighs."""

if __name__ == "__main__":
    sys.exit(main())
