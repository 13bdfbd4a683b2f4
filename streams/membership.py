"""Membership of a consumer group: which partitions this process owns, and how far each was worked on.

Kafka's group protocol through the official client, which reads nothing here: every partition is paused as
soon as it is assigned, and whoever owns it reads it with a client of its own.
"""

from __future__ import annotations

import atexit
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from infra import kafka_security
from streams.log import CLIENT_SETTINGS, ELECTING, LogUnavailable, Partition

logger = structlog.get_logger()
METADATA_BYTES = 4_096
"""What brokers keep of the text beside an offset (offset.metadata.max.bytes)."""
RETRY_SECONDS = 30.0

MEMBER_SETTINGS: dict[str, object] = {
    **CLIENT_SETTINGS,
    "partition.assignment.strategy": "cooperative-sticky",  # what stays is not taken away meanwhile
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "earliest",
    "session.timeout.ms": 6_000,  # the least that brokers allow: so long a killed member's work waits
    "heartbeat.interval.ms": 500,
    "max.poll.interval.ms": 60_000,
    "queued.min.messages": 1,
}

_FENCED = (
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError.FENCED_MEMBER_EPOCH,
    KafkaError.STALE_MEMBER_EPOCH,
    KafkaError._FENCED,
    KafkaError._ASSIGNMENT_LOST,
)
_PASSING = (
    *ELECTING,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.NOT_COORDINATOR,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.NOT_ENOUGH_REPLICAS,
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    KafkaError.UNSTABLE_OFFSET_COMMIT,
    KafkaError._WAIT_COORD,
    KafkaError._TRANSPORT,
    KafkaError._TIMED_OUT,
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError._ALL_BROKERS_DOWN,
)


class Fenced(Exception):
    """This member no longer owns the partitions: another one goes on from their last commit."""

    retriable = False


@dataclass(frozen=True, slots=True)
class Change:
    """What a rebalance does to this member; usually one of the three."""

    gained: frozenset[Partition] = frozenset()
    """Owned from now on: read on from what the group has committed."""
    revoked: frozenset[Partition] = frozenset()
    """Owned until the callback returns: the last moment to finish and commit."""
    lost: frozenset[Partition] = frozenset()
    """Somebody else's already: drop what is not committed."""


class Membership:
    """A member of `group`, from the construction to `close()`.

    For one thread: the client does one call at a time, so while `poll` or `close` is in `on_change`, a call
    from another thread waits, and an `on_change` that waits for that one waits forever. What `on_change`
    raises comes out of `poll` or `close`, after the change was answered.
    """

    def __init__(
        self,
        bootstrap: str,
        group: str,
        topics: Sequence[str],
        on_change: Callable[[Change], None] = lambda change: None,
        *,
        name: str = "",
        **settings: object,
    ) -> None:
        """`settings` are librdkafka's, over MEMBER_SETTINGS.

        `name` is a member's across restarts (static membership, KIP-345): one that comes back within the
        session timeout has its partitions again at once, and one of the same name that hangs is shut out.
        """
        self._group = group
        self._on_change = on_change
        self._owned: dict[Partition, str] = {}  # with the member id under which it was gained
        self._raised: Exception | None = None
        self._consumer = Consumer(
            {
                **MEMBER_SETTINGS,
                **kafka_security.librdkafka(bootstrap),
                "group.id": group,
                **({"group.instance.id": _instance(name, topics)} if name else {}),
                **settings,
            }
        )
        # librdkafka would end a client that is left behind, too, but may spin for minutes over it.
        atexit.register(self._leave)
        self._consumer.subscribe(
            list(topics), on_assign=self._gain, on_revoke=self._revoke, on_lost=self._lose
        )

    def __enter__(self) -> Membership:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def poll(self, timeout_s: float = 0.0) -> None:
        """Take part in the group; without it for max.poll.interval.ms, others take the partitions over.

        Raises LogUnavailable if the client is beyond repair, and what `on_change` raised.
        """
        message = self._consumer.poll(timeout_s)
        error = message.error() if message is not None else None
        if error is not None and error.fatal():
            raise LogUnavailable(f"member of {self._group}: {error.str()}")
        if error is not None:
            logger.warning("consumer group", group=self._group, problem=error.str())
        self._raise()

    def owned(self) -> set[Partition]:
        """The partitions that this member owns, as of the last poll."""
        return set(self._owned)

    def committed(self, partitions: Iterable[Partition]) -> dict[Partition, tuple[int, str]]:
        """The group's committed (offset, metadata); 0 and "" where nothing is. Raises LogUnavailable."""
        wanted = [TopicPartition(*key) for key in sorted(partitions)]
        if not wanted:
            return {}
        found = self._persistently(lambda: self._consumer.committed(wanted, timeout=10))
        return {
            (tp.topic, tp.partition): (
                max(0, tp.offset),
                (tp.metadata or "") if tp.offset >= 0 else "",
            )
            for tp in found
        }

    def commit(self, offsets: Mapping[Partition, tuple[int, str]]) -> None:
        """Commit (offset, metadata) of owned partitions; returns when the brokers have it.

        `metadata` has at most METADATA_BYTES bytes of UTF-8. Raises Fenced if this member does not own
        one of them any more (nothing is committed then), LogUnavailable if no broker answers.
        """
        for key, (_, metadata) in offsets.items():
            if len(metadata.encode()) > METADATA_BYTES:
                size = len(metadata.encode())
                raise ValueError(f"metadata of {key}: {size} bytes, brokers keep {METADATA_BYTES}")
        if offsets:
            self._persistently(lambda: self._commit_once(offsets))

    def close(self) -> None:
        """Leave the group: `on_change` is told of the last revocation first. Once is enough."""
        # The client's own callback comes after it has left: too late to commit.
        self._give_up(self.owned())
        self._leave()
        self._raise()

    def _leave(self) -> None:
        atexit.unregister(self._leave)
        self._drop(self.owned())
        self._consumer.close()

    def _commit_once(self, offsets: Mapping[Partition, tuple[int, str]]) -> list[TopicPartition]:
        # Brokers know generations, not partitions; and a client that was thrown out of the group sends
        # no generation at all, which an empty group takes. Both are answered here.
        member = self._consumer.memberid()
        mine = {key for key, gained_as in self._owned.items() if gained_as == member}
        foreign = offsets.keys() - mine
        if foreign:
            raise Fenced(f"this member of {self._group} does not own {sorted(foreign)} any more")
        sent = [
            TopicPartition(topic, partition, offset, metadata)
            for (topic, partition), (offset, metadata) in sorted(offsets.items())
        ]
        answered: list[TopicPartition] = self._consumer.commit(offsets=sent, asynchronous=False)
        return answered

    def _persistently(self, ask: Callable[[], list[TopicPartition]]) -> list[TopicPartition]:
        """Ask until the group's coordinator answers, for RETRY_SECONDS."""
        deadline = time.monotonic() + RETRY_SECONDS
        while True:
            try:
                answer = ask()
                for tp in answer:
                    if tp.error is not None:
                        raise KafkaException(tp.error)
                return answer
            except KafkaException as error:
                code, why = error.args[0].code(), error.args[0].str()
                if code in _FENCED:
                    raise Fenced(f"this member of {self._group} was replaced: {why}") from error
                if code not in _PASSING or time.monotonic() > deadline:
                    raise LogUnavailable(f"offsets of {self._group}: {why}") from error
                time.sleep(0.05)

    def _gain(self, consumer: Consumer, given: list[TopicPartition]) -> None:
        consumer.incremental_assign(given)
        consumer.pause(given)
        keys = _keys(given)
        member = consumer.memberid()
        self._owned.update(dict.fromkeys(keys, member))
        self._tell(Change(gained=keys))

    def _revoke(self, consumer: Consumer, taken: list[TopicPartition]) -> None:
        self._give_up(_keys(taken) & self.owned())
        consumer.incremental_unassign(taken)

    def _lose(self, consumer: Consumer, taken: list[TopicPartition]) -> None:
        keys = _keys(taken) & self.owned()
        self._drop(keys)
        self._tell(Change(lost=keys))
        consumer.incremental_unassign(taken)

    def _give_up(self, keys: Set[Partition]) -> None:
        self._tell(Change(revoked=frozenset(keys)))
        self._drop(keys)

    def _drop(self, keys: Set[Partition]) -> None:
        for key in keys:
            self._owned.pop(key, None)

    def _tell(self, change: Change) -> None:
        # An exception would leave the client's callback half done: it is raised from poll or close.
        try:
            if change != Change():
                self._on_change(change)
        except Exception as error:
            self._raised = self._raised or error

    def _raise(self) -> None:
        raised, self._raised = self._raised, None
        if raised is not None:
            raise raised


def _instance(name: str, topics: Sequence[str]) -> str:
    """Brokers give a member that comes back what it had, whatever it subscribes to now: with other topics
    it has to be another member."""
    return f"{name}-{hashlib.sha256(' '.join(sorted(topics)).encode()).hexdigest()[:8]}"


def _keys(partitions: Sequence[TopicPartition]) -> frozenset[Partition]:
    return frozenset((tp.topic, tp.partition) for tp in partitions)
