"""Avro payloads in memory -> columns: driftlog's decoder beside pyruhvro (Rust, to Arrow) and fastavro.

    python -m benchmarks.decode [--quick] [--json FILE]

The work: PredictionMade events with 8 nullable doubles; wanted are the id as 128 bits, the event time, the
model's version as a code, the score and the 8 doubles. pyruhvro knows no projection and always makes every
field, so driftlog takes part a second time with every field, to Arrow. Each contender runs in a process of
its own on one core; payloads are in memory in the form that it asks for, in batches of a consumer's size.
Rates are per second of CPU time, so that a busy machine changes them little. pyruhvro takes part if it can
be imported. Exit status 0 if every goal was met, 1 if not.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import io
import json
import multiprocessing
import random
import resource
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import psutil

from benchmarks.harness import Goal, console, finish, show_table
from schemas.catalogue import task_topics
from schemas.codec import Codec, without
from schemas.columnar import Kind, Records
from schemas.columnar.arrow import to_arrow
from schemas.columnar.decoder import ColumnDecoder
from schemas.event import derive
from schemas.registry.service import LocalRegistry

EVENTS, QUICK_EVENTS = 1_000_000, 100_000
BATCH = 20_000
ROUNDS = 5
"""Each contender's best one counts."""
SAMPLE = 2 * BATCH
"""Events for the loop over fastavro: its rate does not depend on their number."""
GOAL_PER_S = 5_000_000
OURS, OURS_WHOLE, FLOOR = (
    "driftlog",
    "driftlog, every field to Arrow",
    "the floor: copying the bytes",
)
PYRUHVRO, FASTAVRO = "pyruhvro", "fastavro"
FEATURES = tuple(f"x{number}" for number in range(8))
TOPIC = task_topics("bench", dict.fromkeys(FEATURES, "double"), ())[0]
HEADER_BYTES = 5

Columns = dict[str, Any]
"""'id' (n, 16) bytes, 'time' int64, 'version' list of texts, 'score' and the features float64."""


@dataclass(frozen=True)
class Result:
    """`memory_mb` is what a contender needs above the payloads; `digests` of its columns by rows."""

    events: int
    wall_s: float
    cpu_s: float
    memory_mb: float
    digests: dict[str, str]

    @property
    def per_cpu_s(self) -> float:
        return self.events / self.cpu_s


Decode = Callable[[], Any]
Check = Callable[[], Iterator[Columns]]
"""The columns of each batch, after `Decode`, for comparing."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="decode", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_EVENTS:,} events")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the same figures there")
    asked = parser.parse_args(arguments)
    out = console()
    codec = Codec(LocalRegistry(), [TOPIC])
    payloads = make_payloads(codec, QUICK_EVENTS if asked.quick else EVENTS)
    size = sum(map(len, payloads)) / len(payloads)
    results = {
        OURS: run(driftlog, codec, payloads),
        OURS_WHOLE: run(driftlog_to_arrow, codec, payloads),
        FLOOR: run(copying, codec, payloads),
        FASTAVRO: run(fastavro_loop, codec, payloads[:SAMPLE]),
    }
    if importlib.util.find_spec("pyruhvro"):
        results[PYRUHVRO] = run(pyruhvro, codec, payloads)
    else:
        out.print("pyruhvro cannot be imported and does not take part: pip install pyruhvro")
    show(out, results, f"{len(payloads):,} events of {size:.0f} bytes, one core")
    report = {
        "events": len(payloads),
        "bytes": size,
        "results": {name: asdict(one) for name, one in results.items()},
    }
    return finish(out, goals(results), report, asked.json)


def make_payloads(codec: Codec, count: int) -> list[bytes]:
    """Events of three model versions that take turns irregularly; 3% of the doubles are null."""
    rng = random.Random(7)
    payloads = []
    for number in range(count):
        event = derive(
            TOPIC.name,
            "PredictionMade",
            number,
            time=1_700_000_000_000 + number,
            caused_by=None,
            model_version=f"bench-{rng.choice((1, 1, 1, 2, 3))}",
            score=rng.random(),
            label=rng.randrange(2),
            features={x: None if rng.random() < 0.03 else rng.gauss(0, 1) for x in FEATURES},
        )
        payloads.append(codec.encode(event))
    return payloads


def driftlog(codec: Codec, payloads: Sequence[bytes]) -> tuple[Decode, Check]:
    projection: dict[str, Kind] = {
        "event_id": "id",
        "event_time": "long",
        "model_version": "code",
        "score": "double",
        **{f"features.{x}": "double" for x in FEATURES},
    }
    decoder = ColumnDecoder(codec, TOPIC.name, "PredictionMade", projection)
    batches = [Records.of(TOPIC.name, 0, batch) for batch in _batches(payloads)]

    def decode() -> None:
        for records in batches:
            decoder.decode(records)

    def check() -> Iterator[Columns]:
        for records in batches:
            columns, bad = decoder.decode(records)
            assert not bad
            texts, data = decoder.dictionaries["model_version"].values, columns.data
            yield {
                "id": data["event_id"].astype(">u8").view(np.uint8),
                "time": data["event_time"],
                "version": [texts[code] for code in data["model_version"]],
                "score": data["score"],
                **{x: data[f"features.{x}"] for x in FEATURES},
            }

    return decode, check


def driftlog_to_arrow(codec: Codec, payloads: Sequence[bytes]) -> tuple[Decode, Check]:
    projection: dict[str, Kind] = {
        "event_id": "text",
        "event_time": "long",
        "caused_by": "text",
        "model_version": "text",
        "score": "double",
        "label": "long",
        **{f"features.{x}": "double" for x in FEATURES},
    }
    decoder = ColumnDecoder(codec, TOPIC.name, "PredictionMade", projection)
    batches = [Records.of(TOPIC.name, 0, batch) for batch in _batches(payloads)]

    def decode() -> None:
        for records in batches:
            to_arrow(decoder.decode(records)[0], decoder.dictionaries)

    def check() -> Iterator[Columns]:
        for records in batches:
            table = to_arrow(decoder.decode(records)[0], decoder.dictionaries)
            yield {
                "id": _id_bytes(table.column("event_id").to_pylist()),
                "time": table.column("event_time").to_numpy(),
                "version": table.column("model_version").to_pylist(),
                "score": table.column("score").to_numpy(),
                **{x: table.column(f"features.{x}").to_numpy() for x in FEATURES},
            }

    return decode, check


def copying(codec: Codec, payloads: Sequence[bytes]) -> tuple[Decode, Check]:  # noqa: ARG001
    """The floor: every byte read and written once, nothing understood."""
    batches = [np.frombuffer(b"".join(batch), np.uint8) for batch in _batches(payloads)]

    def decode() -> None:
        for batch in batches:
            batch.copy()

    return decode, lambda: iter(())


def pyruhvro(codec: Codec, payloads: Sequence[bytes]) -> tuple[Decode, Check]:  # noqa: ARG001
    """To Arrow; the header is cut off beforehand, which its user pays for."""
    from pyruhvro import deserialize_array

    schema = json.dumps(without(TOPIC.schemas[0], frozenset({"logicalType", "doc"})))
    batches = [[payload[HEADER_BYTES:] for payload in batch] for batch in _batches(payloads)]

    def decode() -> None:
        for batch in batches:
            deserialize_array(batch, schema)

    def check() -> Iterator[Columns]:
        for batch in batches:
            table = deserialize_array(batch, schema)
            vector = table.column("features")
            yield {
                "id": _id_bytes(table.column("event_id").to_pylist()),
                "time": table.column("event_time").to_numpy(),
                "version": table.column("model_version").to_pylist(),
                "score": table.column("score").to_numpy(),
                **{x: vector.field(x).to_numpy(zero_copy_only=False) for x in FEATURES},
            }

    return decode, check


def fastavro_loop(codec: Codec, payloads: Sequence[bytes]) -> tuple[Decode, Check]:  # noqa: ARG001
    """One dict an event, then NumPy arrays."""
    schema = fastavro.parse_schema(without(TOPIC.schemas[0], frozenset({"logicalType"})))
    read = fastavro.schemaless_reader

    def columns(batch: Sequence[bytes]) -> Columns:
        events = [read(io.BytesIO(payload[HEADER_BYTES:]), schema, None) for payload in batch]
        vectors = [event["features"] for event in events]
        return {
            "id": [event["event_id"] for event in events],
            "time": np.array([event["event_time"] for event in events]),
            "version": [event["model_version"] for event in events],
            "score": np.array([event["score"] for event in events]),
            **{x: np.array([vector[x] for vector in vectors], np.float64) for x in FEATURES},
        }

    def decode() -> None:
        for batch in _batches(payloads):
            columns(batch)

    def check() -> Iterator[Columns]:
        for batch in _batches(payloads):
            found = columns(batch)
            yield {**found, "id": _id_bytes(found["id"])}

    return decode, check


def run(
    contender: Callable[[Codec, Sequence[bytes]], tuple[Decode, Check]],
    codec: Codec,
    payloads: Sequence[bytes],
) -> Result:
    """Measure a contender in a child process, to which the payloads come by fork."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)

    def child() -> None:
        decode, check = contender(codec, payloads)
        before = psutil.Process().memory_info().rss
        decode()  # compiled and warm
        rounds = [_timed(decode) for _ in range(ROUNDS)]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        cpu_s, wall_s = min(rounds)
        memory_mb = max(0, peak - before) / 1e6
        send.send(Result(len(payloads), wall_s, cpu_s, memory_mb, _digests(check())))

    process = context.Process(target=child)
    process.start()
    send.close()
    try:
        return receive.recv()
    finally:
        process.join()


def show(out: Any, results: Mapping[str, Result], title: str) -> None:
    best = max(results[name].per_cpu_s for name in (PYRUHVRO, FASTAVRO) if name in results)
    floor = results[FLOOR].per_cpu_s
    header = (
        "contender",
        "events/s",
        "CPU ns each",
        "wall s",
        "to best peer",
        "to floor",
        "memory MB",
    )
    rows = [
        (
            name,
            f"{one.per_cpu_s:,.0f}",
            f"{1e9 / one.per_cpu_s:,.0f}",
            f"{one.wall_s:.3f}",
            f"{one.per_cpu_s / best:.2f}",
            f"{one.per_cpu_s / floor:.3f}",
            f"{one.memory_mb:.0f}",
        )
        for name, one in results.items()
    ]
    show_table(out, f"{title}; best of {ROUNDS}", header, rows)


def goals(results: Mapping[str, Result]) -> list[Goal]:
    ours = results[OURS]
    checked = {name: one for name, one in results.items() if name not in {OURS, FLOOR}}
    same = all(
        digest == ours.digests[rows]
        for one in checked.values()
        for rows, digest in one.digests.items()
    )
    found = [
        Goal(
            f"at least {GOAL_PER_S:,} events per second of one core",
            f"{ours.per_cpu_s:,.0f}",
            ours.per_cpu_s >= GOAL_PER_S,
        ),
        Goal("equal columns", f"driftlog beside {', '.join(checked)}", same),
    ]
    if PYRUHVRO in results:
        rust = results[PYRUHVRO].per_cpu_s
        for name, least in ((OURS, 2.0), (OURS_WHOLE, 1.0)):
            ratio = results[name].per_cpu_s / rust
            found.append(Goal(f"{name}: {least:g} x pyruhvro", f"{ratio:.2f}", ratio >= least))
    return found


def _digests(batches: Iterator[Columns]) -> dict[str, str]:
    """SHA-256 of all columns so far, after each batch; by rows."""
    digest, rows, found = hashlib.sha256(), 0, {}
    for columns in batches:
        rows += len(columns["time"])
        for name in ("id", "time", "score", *FEATURES):
            values = np.ascontiguousarray(columns[name])
            if values.dtype == np.float64:
                values = np.where(np.isnan(values), np.nan, values)  # one NaN for all
            digest.update(values.tobytes())
        digest.update("\n".join(columns["version"]).encode())
        found[f"{rows}"] = digest.hexdigest()
    return found


def _batches(payloads: Sequence[bytes]) -> list[Sequence[bytes]]:
    return [payloads[start : start + BATCH] for start in range(0, len(payloads), BATCH)]


def _id_bytes(texts: Sequence[str]) -> Any:
    return np.frombuffer(b"".join(uuid.UUID(text).bytes for text in texts), np.uint8)


def _timed(work: Decode) -> tuple[float, float]:
    """(CPU seconds, wall seconds)."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


if __name__ == "__main__":
    sys.exit(main())
