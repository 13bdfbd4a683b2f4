"""Settings come from the environment and go back to it unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.settings import BROKER_PORTS, CONTROLLER_PORTS, Settings, SettingsError


def test_nothing_set_means_the_documented_addresses() -> None:
    settings = Settings.from_env({})
    assert settings.bootstrap == "127.0.0.1:19092,127.0.0.1:29092,127.0.0.1:39092"
    assert settings.registry == "http://127.0.0.1:18081"
    assert settings.clickhouse == "http://127.0.0.1:18123"
    assert settings.redis == "redis://127.0.0.1:16379/0"
    assert settings.rest == "http://127.0.0.1:18000"
    assert (settings.history_base, settings.replication) == (18123, 3)


def test_an_offset_moves_every_port() -> None:
    moved = Settings.from_env({"DRIFTLOG_PORT_OFFSET": "70"})
    assert moved.broker_ports == (19162, 29162, 39162)
    assert moved.registry.endswith(":18151") and moved.rest.endswith(":18070")


def test_given_addresses_win() -> None:
    settings = Settings.from_env(
        {
            "DRIFTLOG_KAFKA_BOOTSTRAP": "kafka-a:9092,kafka-b:9092",
            "DRIFTLOG_REGISTRY_URL": "http://karapace:8081",
            "DRIFTLOG_CLICKHOUSE_URL": "http://me:secret@clickhouse:8123",
            "DRIFTLOG_REDIS_URL": "redis://cache:6379/1",
            "DRIFTLOG_PORT_OFFSET": "5",
        }
    )
    assert settings.bootstrap == "kafka-a:9092,kafka-b:9092"
    assert settings.replication == 2, "no more replicas than brokers are known"
    assert settings.registry == "http://karapace:8081"
    assert settings.redis == "redis://cache:6379/1"
    assert settings.history_base != 18123, "a server may have that port on this machine"


def test_an_empty_variable_is_not_set() -> None:
    assert Settings.from_env({"DRIFTLOG_PORT_OFFSET": ""}).port_offset == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DRIFTLOG_PORT_OFFSET", "ten"),
        ("DRIFTLOG_PORT_OFFSET", "-1"),
        ("DRIFTLOG_PORT_OFFSET", "20001"),
        ("DRIFTLOG_BROKER_HEAP_MB", "1.5"),
        ("DRIFTLOG_DEVICE", "gpu"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name) as caught:
        Settings.from_env({name: value})
    assert value in str(caught.value)


def test_folders_are_absolute_so_that_children_find_them() -> None:
    settings = Settings.from_env({"DRIFTLOG_HOME": "here", "DRIFTLOG_CACHE": "~/jars"})
    assert settings.home == Path.cwd() / "here"
    assert settings.cache == Path.home() / "jars"


@given(
    st.builds(
        Settings,
        home=st.just(Path("/srv/driftlog")),
        port_offset=st.integers(0, 20_000),
        kafka_bootstrap=st.sampled_from(["", "a:1,b:2"]),
        registry_url=st.sampled_from(["", "http://r:1"]),
        clickhouse_url=st.sampled_from(["", "http://c:1"]),
        redis_url=st.sampled_from(["", "redis://d:1/2"]),
        qdrant_url=st.sampled_from(["", "http://q:1"]),
        cache=st.just(Path("/var/cache/driftlog")),
        broker_heap_mb=st.integers(128, 4096),
        partitions=st.integers(1, 64),
    )
)
def test_a_child_process_reads_the_same_settings(settings: Settings) -> None:
    assert Settings.from_env(settings.to_env()) == settings


@given(st.integers(0, 20_000))
def test_no_two_kafka_ports_of_an_instance_meet(offset: int) -> None:
    settings = Settings(port_offset=offset)
    ports = [settings.port(base) for base in (*BROKER_PORTS, *CONTROLLER_PORTS)]
    assert len(set(ports)) == 6 and max(ports) < 65_536


def test_the_master_key_lies_in_the_data_folder_or_where_it_is_said(tmp_path: Path) -> None:
    env = {"DRIFTLOG_HOME": str(tmp_path)}
    assert Settings.from_env(env).master_key == tmp_path / "keys" / "master.key"
    made = Settings.from_env({**env, "DRIFTLOG_KEYRING": "ring"})
    assert made.master_key == Path("ring").absolute()
    assert Settings.from_env(made.to_env()).master_key == made.master_key
    assert made.key_store.parent == tmp_path / "keys"
