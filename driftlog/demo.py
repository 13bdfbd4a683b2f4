"""The main job, end to end: a stream of real flights, the loop on the log, a broker killed, proof at the end.

Nothing is staged: what drifts, what is retrained and what it gains is read from the log afterwards.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from driftlog import faults, verify
from driftlog.counterfactual import Counterfactual, load_version, rescore
from driftlog.feeder import Feeder, Tally
from driftlog.settled import wait_settled
from driftlog.story import TOPICS, Story, tell
from driftlog.verify import Check
from infra.clickhouse import server_address
from infra.errors import InfraError
from infra.lifecycle import status
from infra.settings import Settings
from models.registry import Registry, RegistryState
from schemas.catalogue import labels_topic, predictions_topic
from schemas.codec import Codec
from streams import log, replay
from streams.task import HOUR_MS, Task

RESCORED = 1_000
Say = Callable[[str], None]


@dataclass
class Outcome:
    """What the run showed."""

    checks: list[Check] = field(default_factory=list)
    story: Story = field(default_factory=Story)
    tally: Tally = field(default_factory=Tally)
    frozen: Counterfactual | None = None
    frozen_version: str = ""
    broker_down_s: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


@dataclass
class BrokerKill:
    """SIGKILL of one broker at `at_ms` of event time, and its return `after_s` seconds later."""

    settings: Settings
    at_ms: int
    target: str = "broker-2"
    after_s: float = 8.0
    say: Say = lambda text: None
    down_s: float = 0.0
    error: str = ""
    _thread: threading.Thread | None = None

    def on_step(self, tally: Tally) -> None:
        if self._thread is None and tally.event_time >= self.at_ms:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            faults.inject(self.settings, "kill", self.target, actor="demo")
            killed = time.monotonic()
            self.say(f"kill -9 {self.target}: two of three brokers carry on")
            time.sleep(self.after_s)
            faults.inject(self.settings, "restart", self.target, actor="demo")
            while not self._ready():
                time.sleep(0.2)
            self.down_s = time.monotonic() - killed
            self.say(f"{self.target} is back after {self.down_s:.0f} s")
        except InfraError as error:
            self.error = str(error)

    def _ready(self) -> bool:
        states = {item.name: item.state for item in status(self.settings)}
        return states.get(self.target) == "ready"

    def join(self) -> Check:
        """Wait for the broker's return; the claim that it was killed and came back."""
        if self._thread is None:
            return Check("broker killed on the way", False, "killed", "the stream ended before")
        self._thread.join(timeout=120)
        found = self.error or f"away for {self.down_s:.0f} s"
        return Check("broker killed with SIGKILL, back", self.down_s > 0, found, found)


def play(
    settings: Settings,
    task: Task,
    until_ms: int,
    kill_at_ms: int,
    speed: float | None,
    say: Say,
    on_step: Callable[[Tally], None],
) -> tuple[Tally, BrokerKill]:
    """Feed the stream up to `until_ms`, with the broker's death on the way; raises FeedFailed."""
    kill = BrokerKill(settings, kill_at_ms, say=say)

    def step(tally: Tally) -> None:
        kill.on_step(tally)
        on_step(tally)

    feeder = Feeder(settings, task, speed, max_lag_ms=2 * HOUR_MS, on_step=step)
    return feeder.run(0, until_ms), kill


def wait_for_decisions(settings: Settings, codec: Codec, timeout_s: float = 120.0) -> None:
    """Until every retrain request has come to its end; raises InfraError."""
    deadline = time.monotonic() + timeout_s
    while True:
        registry: RegistryState = replay.rebuild(settings.bootstrap, codec, [Registry()]).states[
            "registry"
        ]
        waiting = [r for r in registry.requests.values() if r.asked and not r.ended]
        if not waiting:
            return
        if time.monotonic() > deadline:
            raise InfraError(
                f"{len(waiting)} retrain requests without an answer: see the trainer's log"
            )
        time.sleep(0.5)


def prove(settings: Settings, task: Task, tally: Tally, say: Say) -> Outcome:
    """Wait until the system is quiet, then check every claim against the log."""
    outcome = Outcome(tally=tally)
    codec = log.connect_codec(settings, [task])
    say("waiting for the readers to finish the log")
    wait_for_decisions(settings, codec)
    wait_settled(settings, [task])
    say("looking up every answered id in the log and in ClickHouse")
    outcome.checks += check_delivery(settings, codec, task, tally)
    outcome.story = tell(log.read(settings.bootstrap, codec, TOPICS), task.name)
    outcome.checks += check_loop(outcome.story)
    say("replaying the log and comparing every fold, ClickHouse and Redis")
    began = time.monotonic()
    outcome.checks += verify.check_folds(settings, codec, verify.all_folds(settings, [task]))
    outcome.checks += verify.check_windows(settings, codec, [task])
    stores = verify.check_stores(settings, codec, [task])
    tables = [check for check in stores if check.name.startswith("history")]
    outcome.checks.append(_together("every topic in ClickHouse, id by id", tables))
    outcome.checks += [check for check in stores if check not in tables]
    outcome.seconds["replay and compare"] = time.monotonic() - began
    say("scoring history again with the first model, as if it had never been replaced")
    _what_it_gained(settings, codec, task, outcome)
    return outcome


def _together(name: str, checks: Sequence[Check]) -> Check:
    """Many alike claims as one; what failed is told."""
    failed = [f"{check.name}: {check.found}" for check in checks if not check.passed]
    told = f"{len(checks)} tables equal the log"
    return Check(name, not failed, told, "; ".join(failed) or told)


def check_delivery(settings: Settings, codec: Codec, task: Task, tally: Tally) -> list[Check]:
    """Every id that the service acknowledged: in the log, and once in ClickHouse."""
    import clickhouse_connect

    from infra.clickhouse import table_of

    client = clickhouse_connect.get_client(**server_address(settings.clickhouse))
    checks = [
        Check(
            "requests answered at the first try",
            tally.failed_requests == 0,
            f"{tally.requests:,}",
            f"{tally.requests - tally.failed_requests:,} ({tally.failures})",
            f"slowest {tally.slowest_s:.1f} s",
        )
    ]
    for topic, ids in (
        (predictions_topic(task.name), tally.answered_ids),
        (labels_topic(task.name), tally.label_ids),
    ):
        logged = Counter(event.id for event in log.read(settings.bootstrap, codec, [topic]))
        table = table_of(topic)
        columns = client.query(f"SELECT event_id FROM {table} FINAL").result_columns  # noqa: S608
        stored = Counter(columns[0] if columns else ())
        checks.append(_each_once(f"answered ids in the log, {topic}", ids, logged))
        checks.append(_each_once(f"answered ids in ClickHouse, {topic}", ids, stored))
    return checks


def _each_once(name: str, ids: Sequence[str], found: Counter[str]) -> Check:
    missing = sum(1 for each in ids if not found[each])
    double = sum(1 for each in ids if found[each] > 1)
    expected = f"{len(ids):,} each once"
    passed = not missing and not double and bool(ids)
    return Check(name, passed, expected, f"{missing:,} missing, {double:,} double")


def check_loop(story: Story) -> list[Check]:
    """Drift or a loss of performance led to a retrain, and a model was promoted for it."""
    own = [
        r for r in story.retrains.values() if r.request.get("trigger") in ("drift", "performance")
    ]
    promoted = [r for r in own if r.decision == "promoted"]
    said = f"{len(own)} asked for, {len(promoted)} promoted"
    return [
        Check("windows scored for drift", story.windows > 0, "some", f"{story.windows:,}"),
        Check("retrain by drift or performance", bool(own), "at least one", said),
        Check("promotion that followed from it", bool(promoted), "at least one", said),
    ]


def _what_it_gained(settings: Settings, codec: Codec, task: Task, outcome: Outcome) -> None:
    registry = replay.rebuild(settings.bootstrap, codec, [Registry()]).states["registry"]
    trained = [v for v in outcome.story.promoted if registry.versions[v].snapshot]
    if not trained:
        outcome.checks.append(Check("a first trained model", False, "promoted", "none"))
        return
    first = outcome.frozen_version = trained[0]
    later = list(dict.fromkeys(trained[1:]))
    scorer = load_version(settings, registry, first)
    same = rescore(settings, codec, task, first, scorer, only=[first], limit=RESCORED)
    count = sum(tally.count for tally in same.by_version.values())
    equal = sum(tally.identical for tally in same.by_version.values())
    outcome.checks.append(
        Check(
            f"logged scores of {first}, made again",
            count == equal > 0,
            f"{count:,} bit for bit",
            f"{equal:,} of {count:,}",
        )
    )
    if later:
        outcome.frozen = rescore(settings, codec, task, first, scorer, only=later)
