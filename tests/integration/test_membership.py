"""Members of a consumer group on real brokers: partitions pass on with their progress, zombies are fenced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from infra.settings import Settings
from streams.membership import METADATA_BYTES, Change, Fenced, Membership
from tests.integration.clusters import eventually

pytestmark = pytest.mark.integration

MEMBER = """
import sys
from streams.membership import Change, Fenced, Membership

bootstrap, group, topic = sys.argv[1:]


def on_change(change: Change) -> None:
    print("changed", flush=True)


with Membership(bootstrap, group, [topic], on_change) as member:
    while not member.owned():
        member.poll(0.1)
    mine = sorted(member.owned())
    member.commit({key: (100 + key[1], f"progress of {key[1]}") for key in mine})
    print("owns", *[partition for _, partition in mine], flush=True)
    sys.stdin.readline()
    try:
        member.commit({key: (7, "late") for key in mine})
        print("committed", flush=True)
    except Fenced:
        print("fenced", flush=True)
"""
"""Joins, commits, says what it owns, and commits again when it is told to."""


def topic_of_four(settings: Settings, name: str) -> str:
    client = AdminClient({"bootstrap.servers": settings.bootstrap, "log_level": 0})
    client.create_topics([NewTopic(name, 4)], request_timeout=20)[name].result(20)
    return name


@contextmanager
def other_member(settings: Settings, group: str, topic: str) -> Iterator[subprocess.Popen[str]]:
    """In a process of its own, that can be killed or frozen; continued and killed on leaving."""
    child = subprocess.Popen(
        [sys.executable, "-c", MEMBER, settings.bootstrap, group, topic],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait(30)


def line_of(child: subprocess.Popen[str], beginning: str) -> list[str]:
    """The words of its next line that begins so."""
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith(beginning):
            return line.split()
    raise AssertionError(f"it ended without saying {beginning!r}")


def owns(member: Membership, count: int) -> bool:
    member.poll(0.05)
    return len(member.owned()) == count


@pytest.mark.parametrize("end", ["killed", "frozen"])
def test_partitions_pass_on_with_what_was_committed(cluster: Settings, end: str) -> None:
    topic, group = topic_of_four(cluster, f"members-{end}"), f"members-{end}"
    changes: list[Change] = []
    with Membership(cluster.bootstrap, group, [topic], changes.append) as member:
        eventually(lambda: owns(member, 4))
        member.commit({(topic, p): (10 + p, "ü" * (METADATA_BYTES // 2)) for p in range(4)})
        with other_member(cluster, group, topic) as other:
            eventually(lambda: owns(member, 2))
            theirs = {(topic, int(word)) for word in line_of(other, "owns")[1:]}
            assert changes[-1].revoked == theirs == {(topic, p) for p in range(4)} - member.owned()
            with pytest.raises(Fenced, match="does not own"):
                member.commit(dict.fromkeys(theirs, (5, "")))
            os.kill(other.pid, signal.SIGKILL if end == "killed" else signal.SIGSTOP)
            eventually(lambda: owns(member, 4))
            assert changes[-1].gained == theirs
            expected = {
                (topic, p): (100 + p, f"progress of {p}")
                if (topic, p) in theirs
                else (10 + p, "ü" * (METADATA_BYTES // 2))
                for p in range(4)
            }
            assert member.committed(member.owned()) == expected
            if end == "frozen":
                assert other.stdin is not None
                other.stdin.write("go\n")
                other.stdin.flush()
                os.kill(other.pid, signal.SIGCONT)
                assert line_of(other, "") == ["fenced"]
                assert member.committed(theirs) == {key: expected[key] for key in theirs}


def test_the_last_moment_to_commit_comes_before_another_takes_over(cluster: Settings) -> None:
    topic = group = topic_of_four(cluster, "members-handover")
    found: dict[tuple[str, int], tuple[int, str]] = {}

    def finish(change: Change) -> None:
        first.commit({key: (key[1] + 1, "finished") for key in change.revoked})

    def take_over(change: Change) -> None:
        found.update(second.committed(change.gained))

    first = Membership(cluster.bootstrap, group, [topic], finish)
    eventually(lambda: owns(first, 4))
    second = Membership(cluster.bootstrap, group, [topic], take_over)
    eventually(lambda: owns(second, 2) or (first.poll(0.05) is not None))
    assert found == {key: (key[1] + 1, "finished") for key in second.owned()}
    first.close()
    eventually(lambda: owns(second, 4))
    assert found == {(topic, p): (p + 1, "finished") for p in range(4)}
    second.close()
    assert second.owned() == set()


def test_a_member_that_does_not_poll_loses_its_partitions(cluster: Settings) -> None:
    topic = group = topic_of_four(cluster, "members-idle")
    changes: list[Change] = []
    idle = Membership(
        cluster.bootstrap, group, [topic], changes.append, **{"max.poll.interval.ms": 6_000}
    )
    eventually(lambda: owns(idle, 4))
    with Membership(cluster.bootstrap, group, [topic]) as other:
        eventually(lambda: owns(other, 4))
        with pytest.raises(Fenced):
            idle.commit({(topic, 0): (1, "late")})

        def told() -> bool:
            idle.poll(0.05)
            gone = frozenset[tuple[str, int]]().union(*(c.lost | c.revoked for c in changes))
            return any(c.lost for c in changes) and gone == {(topic, p) for p in range(4)}

        eventually(told)
        assert other.committed([(topic, 0)]) == {(topic, 0): (0, "")}
    idle.close()


def test_what_the_callback_raises_comes_out_of_poll(cluster: Settings) -> None:
    topic = group = topic_of_four(cluster, "members-raises")

    def refuse(change: Change) -> None:
        if change.gained:
            raise LookupError("no room")

    member = Membership(cluster.bootstrap, group, [topic], refuse)
    with pytest.raises(LookupError, match="no room"):
        eventually(lambda: owns(member, 4))
    assert len(member.owned()) == 4
    with pytest.raises(ValueError, match="4097 bytes"):
        member.commit({(topic, 0): (1, "x" * (METADATA_BYTES + 1))})
    member.close()


@pytest.mark.parametrize("kept", [True, False])
def test_a_member_that_comes_back_with_other_topics_has_those_and_no_others(
    cluster: Settings, kept: bool
) -> None:
    before = topic_of_four(cluster, f"membership.before.{kept}")
    after = topic_of_four(cluster, f"membership.after.{kept}")
    group = f"membership-topics-{kept}"
    with Membership(cluster.bootstrap, group, [before], name="one") as member:
        eventually(lambda: owns(member, 4))
    topics = [before, after] if kept else [after]
    gained: set[tuple[str, int]] = set()
    with Membership(
        cluster.bootstrap, group, topics, lambda change: gained.update(change.gained), name="one"
    ) as member:
        eventually(lambda: owns(member, 4 * len(topics)), 30)
    assert gained == {(topic, partition) for topic in topics for partition in range(4)}


def test_a_member_that_comes_back_in_time_has_its_partitions_at_once(cluster: Settings) -> None:
    topic, group = topic_of_four(cluster, "membership.named"), "membership-named"
    with Membership(cluster.bootstrap, group, [topic], name="other") as other:
        with Membership(cluster.bootstrap, group, [topic], name="one") as member:
            eventually(lambda: owns(other, 2) and owns(member, 2))
            mine = member.owned()
        changes: list[Change] = []
        with Membership(cluster.bootstrap, group, [topic], changes.append, name="one") as member:
            eventually(lambda: owns(member, 2))
            assert member.owned() == mine
            assert changes == [Change(gained=frozenset(mine))]
        assert owns(other, 2)
