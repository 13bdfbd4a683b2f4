"""What an answer costs that is in the log first: driftlog beside the same model without any log.

    python -m benchmarks.serving [--quick] [--mlserver PYTHON] [--bentoml PYTHON] [--json FILE]

A real three-broker log, the serving service as `driftlog up` starts it (and once more in spool mode), a bare
FastAPI application with the same ONNX file, and MLServer and BentoML if an interpreter that has them is
named. All stand ready at the same time; a load generator in a process of its own (benchmarks.serving_load)
visits them in turn, round by round, and the median round counts. Exit status 0 if every goal was met, 1 if
not.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import redis

from benchmarks import harness, serving_arms
from benchmarks.harness import BROKERS, ROOT, Goal, NotRun
from benchmarks.serving_load import UNNAMED, Job
from benchmarks.serving_online_task import task as online
from benchmarks.serving_task import CATEGORIES, NUMBERS, task
from driftlog.services import answers
from infra.settings import Settings
from models.artifacts import ArtifactStore
from models.dataset import Dataset
from models.recipes import fit
from models.scorer import Scorer
from schemas.catalogue import DEPLOYMENTS, MODEL_VERSIONS
from schemas.event import derive
from schemas.registry.client import RegistryClient
from streams.features import rate_key
from streams.log import LogWriter, all_topics, connect_codec
from streams.online import FILLED, store_key
from streams.task import Task
from streams.topics import ensure_topics, register_schemas

SHARE = 0.8
"""Goal: of the bare application's throughput at concurrency 64."""
RATE = 500
"""Requests a second of the open loop."""
BATCH = 32
SPOOL_PORTS = 50
"""The port offset of the second serving process beyond the first's."""
BARE, DURABLE, SPOOL, MLSERVER, BENTOML = (
    "bare FastAPI",
    "driftlog",
    "driftlog, spool",
    "MLServer",
    "BentoML",
)
HEADER = ("load", "server", "answers/s", "x bare", "p50 ms", "p99", "p99.9", "CPU us", "failed")


@dataclass(frozen=True)
class Server:
    """One arm: where it listens, and what it is sent."""

    name: str
    port: int
    pid: int
    path: str
    grpc_port: int
    bodies: dict[str, Path]
    """`single` and `batch`; of driftlog `named` and, where it speaks it, `grpc`."""


@dataclass(frozen=True)
class Load:
    """One row of the table."""

    name: str
    body: str = "single"
    connections: int = 64
    rate: float | None = None
    task: str = ""
    """Another task than the others; then driftlog alone is measured."""
    grpc: str = ""
    """Method of driftlog.v1.Driftlog instead of HTTP."""


@dataclass
class Measured:
    """The rounds of one server under one load."""

    load: str
    server: str
    rounds: list[dict[str, Any]] = field(default_factory=list)

    def median(self, name: str) -> float:
        return statistics.median(one[name] for one in self.rounds)

    @property
    def failed(self) -> int:
        return sum(one["failed"] for one in self.rounds)


LOADS = (
    Load("closed, 1", connections=1),
    Load("closed, 16", connections=16),
    Load("closed, 64"),
    Load(f"batches of {BATCH}, 16", "batch", 16),
    Load(f"open, {RATE}/s", rate=RATE, connections=256),
    Load("online features, 64", task=online.name),
    Load("named by callers, 64", "named"),
    Load("gRPC, 64", "grpc", grpc="Predict"),
    Load("gRPC streams, 64", "grpc", grpc="PredictStream"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    add: Any = parser.add_argument
    add("--quick", action="store_true", help="3 s a load and one round, instead of 8 s and three")
    add("--seconds", type=float, metavar="S")
    add("--rounds", type=int, metavar="N")
    add(
        "--mlserver",
        type=Path,
        metavar="PYTHON",
        help="an interpreter that has MLServer and onnxruntime",
    )
    add("--bentoml", type=Path, metavar="PYTHON", help="one that has BentoML and onnxruntime")
    add("--only", action="append", metavar="LOAD", help="loads whose name contains this")
    add("--server", action="append", metavar="NAME", help="servers whose name contains this")
    add("--port-offset", type=int, default=700, metavar="N")
    add("--json", type=Path, metavar="FILE", help="write the same figures there")
    asked = parser.parse_args(arguments)
    asked.seconds = asked.seconds or (3.0 if asked.quick else 8.0)
    asked.rounds = asked.rounds or (1 if asked.quick else 3)
    console = harness.console()
    found: list[Measured] = []
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="serving-") as home:
        settings = Settings(
            home=Path(home), port_offset=asked.port_offset, cache=Settings().cache.expanduser()
        )
        with harness.cluster(settings, (*BROKERS, "registry", "redis")), ExitStack() as stack:
            prepare(settings)
            servers = list(started(settings, asked, stack, notes))
            for (
                server
            ) in servers:  # the brokers' code is compiled by then, and everybody has met the load
                _round(settings, LOADS[2], server, 4.0, [])
            for number in range(asked.rounds):
                for load in chosen(asked):
                    for server in servers[:: 1 if number % 2 == 0 else -1]:
                        try:
                            _round(settings, load, server, asked.seconds, found)
                        except NotRun as error:
                            notes.append(f"{load.name}, {server.name}: {error}")
            brokers_s = harness.broker_cpu_seconds(settings)
    harness.show_table(
        console, f"{asked.seconds:g} s a load, {asked.rounds} rounds", HEADER, rows(found)
    )
    for note in notes:
        console.print(note, highlight=False, soft_wrap=True)
    report = {
        "measured": [asdict(one) for one in found],
        "brokers_cpu_s": brokers_s,
        "notes": notes,
    }
    return harness.finish(console, goals(found), report, asked.json)


def chosen(asked: Any) -> list[Load]:
    return [one for one in LOADS if not asked.only or any(word in one.name for word in asked.only)]


def prepare(settings: Settings) -> None:
    """Topics, schemas, a trained model for both tasks in the registry, online features in Redis."""
    topics = all_topics(settings, [task, online])
    ensure_topics(settings.bootstrap, topics, settings.replication)
    register_schemas(RegistryClient(settings.registry, settings.home / "schemas"), topics)
    store = ArtifactStore(settings.artifacts)
    writer = LogWriter(settings.bootstrap, connect_codec(settings, [task, online]))
    for one in (task, online):
        data = model(one)
        if one is task:
            encoder = Scorer.from_bytes(data).encoder
            book = {
                code.name: None
                if code.categories is None
                else {"categories": dict(code.categories), "unknown": code.unknown}
                for code in encoder.features
            }
            folder = settings.home / "model"
            folder.mkdir()
            (folder / serving_arms.MODEL).write_bytes(data)
            (folder / serving_arms.CODES).write_text(json.dumps(book))
        stored, version, now = store.put_model(data), f"{one.name}-1", time.time_ns() // 1_000_000
        common: dict[str, Any] = {
            "time": now,
            "caused_by": None,
            "task": one.name,
            "model_version": version,
        }
        registered = derive(
            MODEL_VERSIONS,
            "ModelRegistered",
            version,
            **common,
            request_id=version,
            artifact=stored.sha256,
            path=stored.path,
            bytes=stored.bytes,
            recipe="gradient_boosting",
            parameters="{}",
            seed=7,
            features=list(one.vector),
        )
        promoted = derive(
            DEPLOYMENTS, "ModelPromoted", version, **common, reason="benchmark", actor="benchmark"
        )
        writer.append([registered, promoted])
    with redis.Redis.from_url(settings.redis) as client:
        hour = time.time_ns() // 1_000_000 // 3_600_000 * 3_600_000
        blob = json.dumps([[hour - n * 1_800_000, 100 + n, 20] for n in range(1, 48)])
        values = {name: [f"{name}{n}" for n in range(count)] for name, count in CATEGORIES.items()}
        keys = [rate_key((), ())] + [
            rate_key((name,), (v,)) for name in values for v in values[name]
        ]
        client.mset({store_key(online.name, key): blob for key in keys})
        client.set(store_key(online.name, FILLED), hour)


def model(one: Task) -> bytes:
    """Gradient-boosted trees (40 of 15 leaves) of 20,000 made rows; equal on every call."""
    dice, count = np.random.default_rng(7), 20_000
    columns: dict[str, Any] = {name: dice.normal(size=count) for name in one.vector}
    for name, many in CATEGORIES.items():
        columns[name] = np.array(
            [f"{name}{n}" for n in dice.integers(many, size=count)], dtype=object
        )
    score = columns["x0"] + columns["x1"] * columns["x2"] + dice.normal(size=count)
    ids = np.array([str(number) for number in range(count)], dtype=object)
    times = np.arange(count, dtype=np.int64)
    data = Dataset(ids, times, (score > 0).astype(np.int8), times, columns)
    return fit(one, data, "gradient_boosting", {"iterations": 40, "leaves": 15}, 7)


def instances(seed: int, count: int) -> list[dict[str, Any]]:
    dice = random.Random(seed)
    return [
        {name: round(dice.gauss(0, 1), 4) for name in NUMBERS}
        | {name: f"{name}{dice.randrange(many)}" for name, many in CATEGORIES.items()}
        for _ in range(count)
    ]


def bodies(folder: Path, kind: str) -> dict[str, Path]:
    """Files with 512 bodies of one instance, and 64 of BATCH, as `kind` of server wants them."""
    found = {}
    for name, count, size in (("single", 512, 1), ("batch", 64, BATCH)):
        found[name] = folder / f"{kind}-{name}.jsonl"
        lines = [_body(kind, instances(seed, size)) for seed in range(count)]
        found[name].write_text("".join(json.dumps(line) + "\n" for line in lines))
    return found


def own_bodies(folder: Path) -> dict[str, Path]:
    """The same for driftlog, and what only driftlog is sent."""
    found = {name: folder / f"own-{name}" for name in ("named", "grpc")}
    name = {"event_id": UNNAMED.decode()}
    lines = [{"instances": [one | name]} for seed in range(512) for one in instances(seed, 1)]
    found["named"].write_text("".join(json.dumps(line) + "\n" for line in lines))
    messages = _messages()
    if messages is None:
        del found["grpc"]
    else:
        found["grpc"].write_text("".join(message.hex() + "\n" for message in messages))
    return bodies(folder, "plain") | found


def _messages() -> list[bytes] | None:
    """Serialised PredictRequests of one instance; None where the service has no gRPC."""
    try:
        stubs: Any = importlib.import_module("models.serving.grpc.driftlog_pb2")
    except ModuleNotFoundError:
        return None
    made = []
    for seed in range(512):
        request = stubs.PredictRequest(task=task.name)
        instance = request.instances.add()
        for name, value in instances(seed, 1)[0].items():
            setattr(instance.features[name], "text" if name in CATEGORIES else "number", value)
        made.append(request.SerializeToString())
    return made


def _body(kind: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    if kind != "v2":
        return {"instances": rows}
    matrix = [[row[name] if name in NUMBERS else 0.5 for name in task.vector] for row in rows]
    shape = [len(rows), len(task.vector)]
    flat = [value for row in matrix for value in row]
    return {"inputs": [{"name": "features", "shape": shape, "datatype": "FP32", "data": flat}]}


def started(settings: Settings, asked: Any, stack: ExitStack, notes: list[str]) -> Iterator[Server]:
    """Each server that is wanted and comes up; what does not is noted."""
    folder = settings.home / "model"
    port = settings.port(18500)
    plain, v2 = bodies(settings.home, "plain"), bodies(settings.home, "v2")
    mine = own_bodies(settings.home)
    if "grpc" not in mine:
        notes.append("gRPC: not run (this driftlog does not speak it)")
    own = f"/v1/tasks/{task.name}/predict"
    spool = {
        "DRIFTLOG_SERVING_DURABILITY": "spool",
        "DRIFTLOG_PORT_OFFSET": str(settings.port_offset + SPOOL_PORTS),
    }
    table: list[tuple[str, list[str] | None, dict[str, str], int, str, dict[str, Path], str]] = [
        (BARE, [sys.executable, "-m", "benchmarks.serving_arms", "bare", str(port), str(folder)], {}, port,
         "/predict", plain, "/openapi.json"),
        (DURABLE, _serving(), {}, settings.port(18000), own, mine, "/readyz"),
        (SPOOL, _serving(), spool, settings.port(18000) + SPOOL_PORTS, own, mine, "/readyz"),
        (MLSERVER, asked.mlserver and [str(asked.mlserver), *serving_arms.mlserver_files(folder, port + 10)],
         {}, port + 10, "/v2/models/bench/infer", v2, "/v2/models/bench/ready"),
        (BENTOML, asked.bentoml and [str(asked.bentoml), *serving_arms.bentoml_files(folder, port + 20)],
         {}, port + 20, "/predict", plain, "/readyz"),
    ]  # fmt: skip
    for name, argv, env, at, path, sent, ready in table:
        if asked.server and not any(word in name for word in asked.server):
            continue
        if argv is None:
            notes.append(f"{name}: not run (no interpreter named)")
            continue
        try:
            pid = stack.enter_context(
                process(settings, name, argv, env, f"http://127.0.0.1:{at}{ready}")
            )
        except NotRun as error:
            notes.append(f"{name}: not run: {error}")
            continue
        yield Server(name, at, pid, path, at + 1, sent)


def _serving() -> list[str]:
    files = [
        str(ROOT / "benchmarks" / name) for name in ("serving_task.py", "serving_online_task.py")
    ]
    return [
        sys.executable,
        "-m",
        "driftlog.services",
        "serving",
        "--task",
        files[0],
        "--task",
        files[1],
    ]


@contextmanager
def process(
    settings: Settings, name: str, argv: list[str], env: dict[str, str], ready: str
) -> Iterator[int]:
    """A server as a process; raises NotRun unless it is ready within a minute."""
    log = settings.logs / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    mine = {
        **settings.to_env(),
        "DRIFTLOG_KAFKA_BOOTSTRAP": settings.bootstrap,
        "DRIFTLOG_REGISTRY_URL": settings.registry,
        "DRIFTLOG_REDIS_URL": settings.redis,
        "OMP_NUM_THREADS": "2",
        "OPENBLAS_NUM_THREADS": "1",
    }
    with log.open("wb") as out:
        child = subprocess.Popen(
            argv,
            cwd=ROOT,
            env=os.environ | mine | env,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        give_up = time.monotonic() + 60
        while not answers(ready):
            if child.poll() is not None or time.monotonic() > give_up:
                raise NotRun(f"{ready} does not answer: {_last(log)}")
            time.sleep(0.1)
        yield child.pid
    finally:
        try:
            os.killpg(child.pid, signal.SIGTERM)
            child.wait(15)
        except ProcessLookupError:
            pass
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _last(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").strip().splitlines()
    return lines[-1][:160] if lines else "it said nothing"


def _round(
    settings: Settings, load: Load, server: Server, seconds: float, found: list[Measured]
) -> None:
    """One load on one server, kept in `found`."""
    path = server.path
    if load.body not in server.bodies or (load.task and server.name not in (DURABLE, SPOOL)):
        return
    if load.task:
        path = path.replace(task.name, load.task)
    job = Job(
        server.grpc_port if load.grpc else server.port,
        path,
        str(server.bodies[load.body]),
        seconds,
        load.connections,
        load.rate,
        min(1.0, seconds / 3),
        load.grpc and f"/driftlog.v1.Driftlog/{load.grpc}",
        load.grpc == "PredictStream",
    )
    file = settings.home / "job.json"
    job.write(file)
    before, brokers = harness.cpu_of_tree(server.pid), harness.broker_cpu_seconds(settings)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.serving_load", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=False,
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "Error" in line]
        raise NotRun(f"the load generator ended: {said[-1:]}")
    result = json.loads(done.stdout)
    answered = max(1, result["answered"] * (job.seconds + job.warm_s) / job.seconds)
    result["cpu_us"] = (harness.cpu_of_tree(server.pid) - before) * 1e6 / answered
    result["brokers_us"] = (harness.broker_cpu_seconds(settings) - brokers) * 1e6 / answered
    known = {(one.load, one.server): one for one in found}
    one = known.get((load.name, server.name)) or Measured(load.name, server.name)
    if not one.rounds:
        found.append(one)
    one.rounds.append(result)


def rows(found: list[Measured]) -> list[tuple[str, ...]]:
    bare = {one.load: one.median("rate") for one in found if one.server == BARE}
    order = {load.name: number for number, load in enumerate(LOADS)}
    table = []
    for one in sorted(found, key=lambda each: order[each.load]):
        base = bare.get(one.load)
        figures = [f"{one.median(name):.1f}" for name in ("p50_ms", "p99_ms", "p999_ms")]
        cpu = f"{one.median('cpu_us'):.0f}+{one.median('brokers_us'):.0f}"
        ratio = f"{one.median('rate') / base:.2f}" if base else "-"
        table.append(
            (
                one.load,
                one.server,
                f"{one.median('rate'):,.0f}",
                ratio,
                *figures,
                cpu,
                str(one.failed),
            )
        )
    return table


def goals(found: list[Measured]) -> list[Goal]:
    rate = {(one.load, one.server): one.median("rate") for one in found}
    made = []
    at = LOADS[2].name
    ours, bare = rate.get((at, DURABLE)), rate.get((at, BARE))
    if ours and bare:
        words = f"durable: {SHARE:.0%} or more of bare FastAPI's throughput at concurrency 64"
        made.append(Goal(words, f"{ours / bare:.2f}", ours >= SHARE * bare))
    for peer in (MLSERVER, BENTOML):
        theirs = rate.get((at, peer))
        if ours and theirs:
            made.append(Goal(f"durable: ahead of {peer}", f"{ours / theirs:.1f} x", ours > theirs))
    failed = sum(one.failed for one in found if one.server in (DURABLE, SPOOL))
    made.append(Goal("no request of driftlog's failed", str(failed), failed == 0))
    return made


if __name__ == "__main__":
    sys.exit(main())
