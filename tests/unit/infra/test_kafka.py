"""The brokers' configuration and storage, without starting one."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from infra import kafka_storage
from infra.errors import InfraError
from infra.jvm import Jvm, find_jvm
from infra.kafka import DURABILITY, NODE_IDS, broker_name, properties
from infra.kafka_jars import KAFKA_VERSION, class_path, jar_folder, pinned_jars
from infra.kafka_storage import format_storage, storage_folder
from infra.settings import Settings
from tests.unit.infra.small import settings_in


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_in(tmp_path)


@pytest.fixture
def formatted(settings: Settings) -> Settings:
    """A cache that holds the first metadata records already, so that no JVM is needed."""
    folder = jar_folder(settings)
    folder.mkdir(parents=True)
    (folder / "bootstrap.checkpoint").write_bytes(b"first records")
    return settings


NO_JVM = Jvm(Path("/no/java"), 25, (), 256)


def read(path: Path) -> dict[str, str]:
    lines = path.read_text("utf-8").splitlines()
    return {key: value for key, _, value in (line.partition("=") for line in lines)}


def test_everything_listens_on_loopback_and_says_so(settings: Settings) -> None:
    for node_id in NODE_IDS:
        entries = properties(settings, node_id)
        addresses = ",".join(
            entries[key]
            for key in ("listeners", "advertised.listeners", "controller.quorum.voters")
        )
        assert set(re.findall(r"(?://|@)([^:]+):", addresses)) == {"127.0.0.1"}


def test_three_brokers_share_one_quorum_and_no_port(settings: Settings) -> None:
    made = [properties(settings, node_id) for node_id in NODE_IDS]
    assert len({entries["controller.quorum.voters"] for entries in made}) == 1
    ports = [port for entries in made for port in re.findall(r":(\d+)", entries["listeners"])]
    assert len(set(ports)) == 6
    assert len({entries["log.dirs"] for entries in made}) == 3
    for entries in made:
        controller = entries["listeners"].rpartition("://")[2]
        assert f"{entries['node.id']}@{controller}" in entries["controller.quorum.voters"]


def test_an_acknowledged_record_survives_any_one_broker() -> None:
    copies, in_sync = (
        int(DURABILITY[key]) for key in ("default.replication.factor", "min.insync.replicas")
    )
    assert copies - in_sync == 1 and in_sync >= 2, "one may die, and two have each record"
    assert DURABILITY["unclean.leader.election.enable"] == "false"
    for topic in ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic"):
        assert DURABILITY[f"{topic}.replication.factor"] == "3"


def test_the_log_is_kept_for_ever() -> None:
    assert DURABILITY["log.retention.ms"] == DURABILITY["log.retention.bytes"] == "-1"


def test_storage_gets_one_cluster_id_and_each_broker_its_own(formatted: Settings) -> None:
    for node_id in NODE_IDS:
        format_storage(formatted, NO_JVM, node_id, properties(formatted, node_id))
    identities = [read(storage_folder(formatted, node) / "meta.properties") for node in NODE_IDS]
    assert len({identity["cluster.id"] for identity in identities}) == 1
    assert len({identity["directory.id"] for identity in identities}) == 3
    assert [identity["node.id"] for identity in identities] == ["1", "2", "3"]
    for identity in identities:
        assert re.fullmatch(r"[\w-]{22}", identity["cluster.id"])


def test_formatting_again_keeps_the_data_and_renews_the_properties(formatted: Settings) -> None:
    format_storage(formatted, NO_JVM, 1, {"a": "1"})
    folder = storage_folder(formatted, 1)
    identity = (folder / "meta.properties").read_bytes()
    (folder / "bootstrap.checkpoint").write_bytes(b"by now Kafka's own")
    format_storage(formatted, NO_JVM, 1, {"a": "2"})
    assert (folder / "meta.properties").read_bytes() == identity
    assert (folder / "bootstrap.checkpoint").read_bytes() == b"by now Kafka's own"
    assert read(folder.with_suffix(".properties")) == {"a": "2"}


def test_two_homes_are_two_clusters(formatted: Settings, tmp_path: Path) -> None:
    other = Settings(home=tmp_path / "other", cache=formatted.cache)
    ids = set()
    for settings in (formatted, other):
        format_storage(settings, NO_JVM, 1, {})
        ids.add(read(storage_folder(settings, 1) / "meta.properties")["cluster.id"])
    assert len(ids) == 2


def test_a_storage_tool_that_fails_says_why(settings: Settings, tmp_path: Path) -> None:
    script = tmp_path / "java"
    script.write_text(f"#!{sys.executable}\nraise SystemExit('No space left on device')\n", "utf-8")
    os.chmod(script, 0o755)
    failing = Jvm(script, 25, (), 256)
    with pytest.raises(InfraError, match="storage tool failed: No space left on device"):
        format_storage(settings, failing, 1, {})
    assert not (storage_folder(settings, 1) / "meta.properties").exists(), "it is tried again"


def test_the_pinned_jars_are_whole() -> None:
    jars = pinned_jars()
    assert len({jar.name for jar in jars}) == len(jars) > 40
    assert all(re.fullmatch(r"[0-9a-f]{64}", jar.sha256) and jar.size > 0 for jar in jars)
    kafka = {jar.version for jar in jars if jar.group == "org.apache.kafka"}
    assert kafka == {KAFKA_VERSION}


def test_a_complete_cache_needs_no_network(settings: Settings) -> None:
    folder = jar_folder(settings)
    folder.mkdir(parents=True)
    for jar in pinned_jars():
        with (folder / jar.name).open("wb") as file:
            file.truncate(jar.size)
    heard: list[tuple[int, int]] = []
    paths = class_path(settings, lambda done, total: heard.append((done, total)))
    assert [path.name for path in paths] == [jar.name for jar in pinned_jars()]
    total = sum(jar.size for jar in pinned_jars())
    assert heard == [(total, total)]


def test_java_of_the_wheel_is_found_and_new_enough(settings: Settings) -> None:
    jvm = find_jvm(settings, (Path("a.jar"), Path("b.jar")))
    assert jvm.java.is_file() and jvm.release >= 17
    command = jvm.command("kafka.Kafka", "server.properties", options=("-Xshare:auto",))
    assert command[-2:] == ("kafka.Kafka", "server.properties")
    assert f"-Xmx{settings.broker_heap_mb}m" in command and "-Xshare:auto" in command
    assert command[command.index("-cp") + 1] == "a.jar:b.jar"


def test_names_of_brokers_are_those_that_chaos_takes() -> None:
    assert [broker_name(node) for node in NODE_IDS] == ["broker-1", "broker-2", "broker-3"]
    assert kafka_storage.BROKER_CLASS == "kafka.Kafka"
