"""A chaos campaign: seeded faults, one after the other, under load; then every invariant is checked.

The same seed gives the same faults in the same order. The load is labels of predictions that nobody made,
in a task's own topic: they count as events and change no model.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from driftlog import faults, instance, verify
from driftlog.settled import wait_settled
from driftlog.verify import Check
from infra.errors import InfraError
from infra.lifecycle import is_up, status, wait_ready
from infra.settings import Settings
from schemas.catalogue import labels_topic
from schemas.errors import RegistryUnavailable
from schemas.event import Event
from streams import log
from streams.log import LogUnavailable
from streams.task import Task

KINDS = ("kill", "kill", "pause", "restart")
SHORTEST_S, LONGEST_S = 2.0, 8.0
BATCH = 20
RECOVERY_S = 120.0


@dataclass
class Load:
    """Writes labels until stopped; remembers which ids the log acknowledged."""

    settings: Settings
    task: Task
    acknowledged: list[str] = field(default_factory=list)
    longest_gap_s: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        assert self._thread is not None
        self._thread.join(timeout=90)

    def _run(self) -> None:
        codec = log.connect_codec(self.settings, [self.task])
        writer = log.LogWriter(self.settings.bootstrap, codec)
        last = time.monotonic()
        while not self._stop.is_set():
            events = [self._label() for _ in range(BATCH)]
            while True:
                try:
                    writer.append(events)
                    break
                except (LogUnavailable, RegistryUnavailable):
                    time.sleep(0.2)  # the same ids again
            self.longest_gap_s = max(self.longest_gap_s, time.monotonic() - last)
            last = time.monotonic()
            self.acknowledged += [event.id for event in events]
            self._stop.wait(0.05)

    def _label(self) -> Event:
        data = {
            "event_id": str(uuid.uuid4()),
            "event_time": 0,  # long before any window: it closes none
            "caused_by": None,
            "prediction_id": str(uuid.uuid4()),
            "label": 0,
        }
        return Event(labels_topic(self.task.name), "LabelObserved", data)


def run(seed: int, count: int, say: Callable[[str], None]) -> list[Check]:
    """Inject `count` faults and check the invariants; raises InfraError if the system is not up."""
    settings = instance.settings()
    if not is_up(settings):
        raise InfraError(f"nothing is up in {settings.home}: start it with `driftlog up`")
    tasks = instance.tasks(settings)
    chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
    targets = sorted(item.name for item in status(settings) if item.name != "supervisor")
    load = Load(settings, tasks[0])
    load.start()
    recoveries = []
    for number in range(1, count + 1):
        kind, target = chance.choice(KINDS), chance.choice(targets)
        drawn = chance.uniform(SHORTEST_S, LONGEST_S)
        lasts = None if kind == "restart" else drawn
        told = "" if lasts is None else f" for {lasts:.1f} s"
        say(f"{number}/{count}  {kind} {target}{told}")
        fault = faults.inject(settings, kind, target, lasts, "campaign")
        time.sleep(max(0.0, (fault.until or 0) - time.time()))
        began = time.monotonic()
        wait_ready(settings, timeout_s=RECOVERY_S)
        recoveries.append(time.monotonic() - began)
        say(f"     all services ready {recoveries[-1]:.1f} s after its end")
    load.stop()
    say("waiting for the readers, then comparing everything with the log")
    wait_settled(settings, tasks, RECOVERY_S)
    codec = log.connect_codec(settings, tasks)
    return [
        _nothing_lost(settings, load),
        *verify.check_folds(settings, codec, verify.all_folds(settings, tasks)),
        *verify.check_windows(settings, codec, tasks),
        *verify.check_stores(settings, codec, tasks),
    ]


def _nothing_lost(settings: Settings, load: Load) -> Check:
    topic = labels_topic(load.task.name)
    codec = log.connect_codec(settings, [load.task])
    logged = Counter(event.id for event in log.read(settings.bootstrap, codec, [topic]))
    missing = sum(1 for each in load.acknowledged if not logged[each])
    return Check(
        "acknowledged events in the log",
        not missing and bool(load.acknowledged),
        f"{len(load.acknowledged):,}",
        f"{missing:,} missing",
        f"longest gap between acknowledgements {load.longest_gap_s:.1f} s",
    )
