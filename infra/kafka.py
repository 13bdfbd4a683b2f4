"""The embedded Kafka cluster: three KRaft brokers, each also a controller, all on loopback."""

from __future__ import annotations

from functools import partial
from typing import Any

from infra.jvm import Jvm, find_jvm
from infra.kafka_archive import archive_options
from infra.kafka_jars import Progress, class_path
from infra.kafka_storage import BROKER_CLASS, broker_name, format_storage, storage_folder
from infra.ports import listening
from infra.processes import Service
from infra.settings import BROKER_PORTS, CONTROLLER_PORTS, HOST, Settings

__all__ = ["DURABILITY", "NODE_IDS", "broker_name", "broker_services", "properties"]

NODE_IDS = (1, 2, 3)
STOP_TIMEOUT_S = 5.0
"""When all are stopped at once, the last one asks a quorum that is gone to let it go, and would do so
for long; killing it loses nothing, as it writes nothing any more."""

QUICK_FAILOVER = {
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "controller.quorum.fetch.timeout.ms": "1000",
    "controller.quorum.election.timeout.ms": "500",
}
"""A killed leader is replaced in about 5 s instead of about 11 s with Kafka's own figures."""

DURABILITY = {
    "auto.create.topics.enable": "false",
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "unclean.leader.election.enable": "false",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
    "log.retention.ms": "-1",
    "log.retention.bytes": "-1",
    "log.message.timestamp.after.max.ms": str(2**63 - 1),
}
"""The log is kept for ever; a record's time is its event's, which no broker's clock may judge."""

SMALL_FOOTPRINT = {
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "4",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
    "log.segment.bytes": str(256 * 1024 * 1024),
    # Enough for such a segment. The kernel reads ahead in an index that is written to for the first time,
    # and zeroes what it reads: up to 8 MiB, of each of two files of a partition, with Kafka's own 10 MiB.
    "log.index.size.max.bytes": str(1024 * 1024),
    "group.initial.rebalance.delay.ms": "0",
    "leader.imbalance.check.interval.seconds": "30",
}


def broker_services(
    settings: Settings, progress: Progress = lambda done, total: None
) -> list[Service]:
    """Prepare jars, archive and storage of the cluster, and return its three services.

    `progress` hears of the download of jars, which happens once on a machine; after it, also once,
    some seconds go into the archive of `infra.kafka_archive`. Raises InfraError when a jar or Java is
    missing, or the storage cannot be formatted.
    """
    jvm = find_jvm(settings, class_path(settings, progress))
    for node_id in NODE_IDS:
        format_storage(settings, jvm, node_id, properties(settings, node_id))
    options = archive_options(settings, jvm)
    return [_service(settings, node_id, jvm, options) for node_id in NODE_IDS]


def properties(settings: Settings, node_id: int) -> dict[str, str]:
    """`server.properties` of one broker."""
    port = settings.port(BROKER_PORTS[node_id - 1])
    voters = zip(NODE_IDS, CONTROLLER_PORTS, strict=True)
    return {
        "process.roles": "broker,controller",
        "node.id": str(node_id),
        "controller.quorum.voters": ",".join(
            f"{voter}@{HOST}:{settings.port(base)}" for voter, base in voters
        ),
        "controller.listener.names": "CONTROLLER",
        "listeners": (
            f"PLAINTEXT://{HOST}:{port},"
            f"CONTROLLER://{HOST}:{settings.port(CONTROLLER_PORTS[node_id - 1])}"
        ),
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(storage_folder(settings, node_id)),
        "num.partitions": str(settings.partitions),
        **QUICK_FAILOVER,
        **DURABILITY,
        **SMALL_FOOTPRINT,
    }


def broker_ready(settings: Settings, node_id: int) -> bool:
    """True once the broker answers a metadata request in which it and a controller are known."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    port = settings.port(BROKER_PORTS[node_id - 1])
    if not listening(port):
        return False
    quiet: dict[str, Any] = {"log_level": 0, "error_cb": lambda error: None}
    client = AdminClient({"bootstrap.servers": f"{HOST}:{port}", **quiet})
    try:
        metadata = client.list_topics(timeout=2)
    except KafkaException:
        return False
    return node_id in metadata.brokers and metadata.controller_id in metadata.brokers


def _service(settings: Settings, node_id: int, jvm: Jvm, options: tuple[str, ...]) -> Service:
    config = storage_folder(settings, node_id).with_suffix(".properties")
    return Service(
        name=broker_name(node_id),
        argv=jvm.command(BROKER_CLASS, str(config), options=options),
        ready=partial(broker_ready, settings, node_id),
        ports=(
            settings.port(BROKER_PORTS[node_id - 1]),
            settings.port(CONTROLLER_PORTS[node_id - 1]),
        ),
        stop_timeout_s=STOP_TIMEOUT_S,
    )
