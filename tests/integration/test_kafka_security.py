"""Every client against a real broker that asks for TLS and SCRAM."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from driftlog.services import service_table
from infra.jvm import find_jvm
from infra.kafka import properties
from infra.kafka_jars import class_path
from infra.kafka_security import KafkaSecurity
from infra.kafka_storage import BROKER_CLASS, run_storage_tool
from infra.settings import BROKER_PORTS, CONTROLLER_PORTS, HOST, Settings
from infra.supervisor import Supervisor
from models.serving.eventlog import KafkaLog
from schemas.catalogue import ACCESS, system_topics
from schemas.event import Event
from streams.app import CONTROL_GROUP
from streams.log import (
    LogUnavailable,
    LogWriter,
    committed_offsets,
    connect_codec,
    make_consumer,
    read,
)
from streams.reader import RecordReader
from streams.topics import ensure_topics
from tests.certificates import Authority
from tests.integration.clusters import eventually, fresh_settings, ready
from tests.unit.models.guard_parts import issue
from tests.unit.models.serving_parts import codec

FLIGHTS_FILE = Path(__file__).parents[2] / "examples" / "flights.py"
pytestmark = pytest.mark.integration

USER, PASSWORD = "driftlog", "correct-horse-battery"
ONE = {
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
}


def broker_properties(settings: Settings, keystore: Path) -> dict[str, str]:
    """One broker: SASL_SSL for clients, plain connections for itself."""
    client, inner = (settings.port(base) for base in BROKER_PORTS[:2])
    controller = settings.port(CONTROLLER_PORTS[0])
    login = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    return {
        **properties(settings, 1),
        **ONE,
        "controller.quorum.voters": f"1@{HOST}:{controller}",
        "listeners": f"CLIENTS://{HOST}:{client},INNER://{HOST}:{inner},CONTROLLER://{HOST}:{controller}",
        "advertised.listeners": f"CLIENTS://{HOST}:{client},INNER://{HOST}:{inner}",
        "listener.security.protocol.map": "CLIENTS:SASL_SSL,INNER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "INNER",
        "listener.name.clients.sasl.enabled.mechanisms": "SCRAM-SHA-512,SCRAM-SHA-256",
        "listener.name.clients.scram-sha-512.sasl.jaas.config": login,
        "listener.name.clients.scram-sha-256.sasl.jaas.config": login,
        "listener.name.clients.ssl.keystore.type": "PEM",
        "listener.name.clients.ssl.keystore.location": str(keystore),
    }


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, dict[str, str]]]:
    """A broker, the settings that lead to it, and the environment that opens it."""
    home = tmp_path_factory.mktemp("secured")
    authority = Authority(home)
    pair = authority.pair("broker")
    keystore = home / "keystore.pem"
    keystore.write_bytes(pair.key.read_bytes() + pair.cert.read_bytes())
    at = fresh_settings(home)
    jvm = find_jvm(at, class_path(at, lambda done, total: None))
    users = [
        word
        for hashed in ("SCRAM-SHA-512", "SCRAM-SHA-256")
        for word in ("--add-scram", f"{hashed}=[name={USER},password={PASSWORD}]")
    ]
    config = run_storage_tool(jvm, home, broker_properties(at, keystore), users)
    broker = subprocess.Popen(
        jvm.command(BROKER_CLASS, str(config)),
        stdout=(home / "broker.log").open("wb"),
        stderr=subprocess.STDOUT,
    )
    secret = home / "password"
    secret.write_text(PASSWORD + "\n")
    env = {
        "DRIFTLOG_KAFKA_SECURITY": "SASL_SSL",
        "DRIFTLOG_KAFKA_USERNAME": USER,
        "DRIFTLOG_KAFKA_PASSWORD_FILE": str(secret),
        "DRIFTLOG_KAFKA_CA": str(authority.ca),
    }
    settings = Settings(
        home=home,
        port_offset=at.port_offset,
        cache=at.cache,
        kafka_bootstrap=f"{HOST}:{at.port(BROKER_PORTS[0])}",
    )
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in env.items():
                patch.setenv(name, value)
            eventually(lambda: answers(settings), 60)
        yield settings, env
    finally:
        broker.terminate()
        broker.wait(30)


def answers(settings: Settings) -> bool:
    with suppress(LogUnavailable):
        ensure_topics(settings.bootstrap, system_topics(), 1, timeout_s=5)
        return True
    return False


@pytest.fixture
def settings(secured: tuple[Settings, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> Settings:
    found, env = secured
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return found


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "SCRAM-SHA-256"])
async def test_writers_and_readers_of_all_libraries_prove_themselves(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, mechanism: str
) -> None:
    monkeypatch.setenv("DRIFTLOG_KAFKA_SASL_MECHANISM", mechanism)
    schemas = codec()
    numbers = (1, 2) if mechanism.endswith("512") else (3, 4)
    first, second = (issue(number, "flights:predict") for number in numbers)
    LogWriter(settings.bootstrap, schemas).append([first])
    log = KafkaLog(settings.bootstrap, schemas)
    await log.connect()
    await log.append([second], 30)
    await log.close()
    found = [event.id for event in read(settings.bootstrap, schemas, [ACCESS])]
    assert found[-2:] == [first.id, second.id]
    with RecordReader(settings.bootstrap) as reader:
        reader.assign(ACCESS, 0, len(found) - 2)
        fetched: list[Any] = []

        def came() -> bool:
            records = reader.poll(ACCESS, 0)
            fetched.extend([] if records is None else [records])
            return sum(map(len, fetched)) == 2

        eventually(came, 30)


def test_a_wrong_password_is_refused_and_stands_in_no_message(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DRIFTLOG_KAFKA_PASSWORD", "wrong-staple")
    with pytest.raises(LogUnavailable) as caught:
        LogWriter(settings.bootstrap, codec(), timeout_s=3).append([issue(9, "*:read")])
    assert "wrong-staple" not in str(caught.value)
    with RecordReader(settings.bootstrap) as reader:
        reader.assign(ACCESS, 0, 0)
        with pytest.raises(LogUnavailable, match="Authentication failed") as caught:
            eventually(lambda: reader.poll(ACCESS, 0) is not None, 30)
    assert "wrong-staple" not in str(caught.value)
    said = capfd.readouterr()
    assert "wrong-staple" not in said.out + said.err


def test_the_services_run_on_it_faust_and_all(settings: Settings) -> None:
    names = ("redis", "registry", "control", "worker")
    table = [
        service for service in service_table(settings, [FLIGHTS_FILE]) if service.name in names
    ]
    stop = threading.Event()
    supervisor = Supervisor(settings, table, lambda *_: None)
    thread = threading.Thread(target=supervisor.run, args=(stop,))
    thread.start()
    try:
        eventually(lambda: ready(settings, names), 120)
        schemas = connect_codec(settings)
        event: Event = issue(7, "flights:predict")
        LogWriter(settings.bootstrap, schemas).append([event])
        consumer = make_consumer(settings.bootstrap, CONTROL_GROUP)

        def committed() -> bool:
            return committed_offsets(consumer, [(ACCESS, 0)])[ACCESS, 0] > 0

        eventually(committed, 90)
        consumer.close()
        for file in settings.logs.glob("*.log"):
            assert PASSWORD not in file.read_text("utf-8", "replace"), file
        for file in (settings.home / "run").rglob("*"):
            assert not file.is_file() or PASSWORD not in file.read_text("utf-8", "replace"), file
        assert PASSWORD not in str(settings.to_env()) + repr(KafkaSecurity(password=PASSWORD))
    finally:
        stop.set()
        thread.join(60)
