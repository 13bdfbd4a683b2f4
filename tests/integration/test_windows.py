"""Window workers against real Kafka: killed, joined, given away, and the scores are those of NumPy."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.settings import Settings
from schemas.catalogue import predictions_topic
from streams import log, replay
from streams.canonical import fingerprint
from streams.log import end_offsets, make_consumer, partitions_of
from streams.references import References
from streams.window_replay import replay_windows, verify_windows
from tests.integration.clusters import CLUSTER, eventually, running
from tests.integration.windows_parts import Load, Services, Stream, task_named

pytestmark = pytest.mark.integration
KILLS = int(os.environ.get("DRIFTLOG_KILLS", "4"))


@pytest.fixture
def services(own: Settings, tmp_path: Path) -> Iterator[Callable[[str], Services]]:
    made: list[Services] = []

    def make(name: str) -> Services:
        made.append(Services(own, task_named(name), tmp_path))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A cluster for these tests: services use fixed groups and ports."""
    with running(tmp_path_factory.mktemp("windows"), CLUSTER) as settings:
        yield settings


def assert_scores_come(stream: Stream, parts: Services, timeout_s: float = 120) -> None:
    """The newest scores in the log are those of what was sent: none is missing, none counts twice."""
    truth = stream.truth()

    def counts_off() -> dict[tuple[str, int, str], tuple[object, object]]:
        found = stream.scores()
        return {
            key: (found.get(key, {}).get("count"), score["count"])
            for key, score in truth.items()
            if found.get(key, {}).get("count") != score["count"]
        }

    try:
        eventually(lambda: not counts_off(), timeout_s)
    except AssertionError as error:
        off = counts_off()
        few = dict(sorted(off.items())[:12])
        raise AssertionError(
            f"{len(off)} of {len(truth)} counts are off (found, sent): {few}\n{parts.told()}"
        ) from error
    found = stream.scores()
    for key, score in truth.items():
        assert found[key] == pytest.approx(score, abs=1e-9), key


def test_killed_at_random_points_under_load_the_scores_stay_the_same(
    own: Settings, services: Callable[[str], Services]
) -> None:
    stream = Stream(own, task_named("killed"))
    parts = services("killed")
    parts.start("control")
    parts.start("windows")
    load = Load(stream)
    load.start()
    rng = random.Random(KILLS)
    for _ in range(KILLS):
        time.sleep(rng.uniform(1.0, 6.0))  # anywhere: while it starts, recovers, states, commits
        parts.kill("windows")
        parts.start("windows")
    load.stop()
    stream.close()
    assert_scores_come(stream, parts)
    said = stream.statements()
    repeated = sum(said.values()) - len(said)
    print(f"{KILLS} kills: {len(stream.sent)} events and {stream.repeats} repeats,"
          f" {len(said)} statements, {repeated} said twice")  # fmt: skip


def test_workers_that_join_and_die_change_no_score(
    own: Settings, services: Callable[[str], Services]
) -> None:
    stream = Stream(own, task_named("shared"), seed=2)
    parts = services("shared")
    for name in ("control", "windows", "windows-2"):
        parts.start(name)
    load = Load(stream)
    load.start()
    eventually(lambda: bool(parts.gained("windows-2")), 40)  # less than members are waited for
    before = parts.gained("windows")
    parts.kill("windows-2")  # its partitions are taken over after the session timeout
    eventually(lambda: parts.gained("windows") > before, 40)
    parts.start("windows-3")
    eventually(lambda: bool(parts.gained("windows-3")), 40)
    load.stop()
    stream.close()
    assert_scores_come(stream, parts)


def test_a_replay_of_the_windows_has_the_fingerprints_that_the_worker_stated(
    own: Settings, services: Callable[[str], Services]
) -> None:
    task = task_named("stated")
    stream = Stream(own, task, seed=3)
    stream.send(4_000, per_second=200)
    stream.close()
    parts = services("stated")
    parts.start("windows")
    codec = log.connect_codec(own, [task])
    consumer = make_consumer(own.bootstrap)
    ends = end_offsets(consumer, partitions_of(consumer, [predictions_topic(task.name)]))
    consumer.close()

    def stated() -> bool:
        offsets = {
            key: offset
            for event in replay.stated_hashes(own.bootstrap, codec).values()
            for key, offset in replay.stated_offsets(event).items()
        }
        return offsets.items() >= ends.items()

    eventually(stated, 60)
    verdicts = verify_windows(
        own.bootstrap, codec, [task], replay.stated_hashes(own.bootstrap, codec)
    )
    assert len(verdicts) == own.partitions
    assert all(verdict.equal for verdict in verdicts)

    references = References(own.bootstrap, codec)
    references.refresh()
    runs = replay_windows(own.bootstrap, codec, task, ends, references.by_version)
    half = {key: end // 2 for key, end in ends.items()}
    fewer = replay_windows(own.bootstrap, codec, task, half, references.by_version)
    assert {p: fingerprint(run.state) for p, run in runs.items()} != {
        p: fingerprint(run.state) for p, run in fewer.items()
    }
