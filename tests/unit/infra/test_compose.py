"""docker-compose.yml: valid, on loopback, pinned, and with the same settings as the embedded system."""

from __future__ import annotations

import json
import re
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from driftlog.services import METRICS_PORTS
from infra.kafka import DURABILITY, QUICK_FAILOVER, SMALL_FOOTPRINT, properties
from infra.kafka_jars import KAFKA_VERSION
from infra.redis import redis_service
from infra.settings import BROKER_PORTS, GRPC_PORT, Settings
from tests.unit.infra.project_files import ROOT, read_yaml

COMPOSE = read_yaml("docker-compose.yml")
SERVICES: dict[str, Any] = COMPOSE["services"]
BROKERS = ("broker-1", "broker-2", "broker-3")


def published(service: str) -> list[tuple[str, int, int]]:
    """(address, host port, container port) of each published port."""
    ports = (text.split(":") for text in SERVICES[service].get("ports", []))
    return [(address, int(host), int(inner)) for address, host, inner in ports]


def variables(name: str) -> str:
    """How compose's Kafka image is told a property."""
    return "KAFKA_" + name.upper().replace(".", "_")


def test_it_is_valid_compose() -> None:
    vendored = Path(
        str(distribution("check-jsonschema").locate_file("check_jsonschema/builtin_schemas/vendor"))
    ).joinpath("compose-spec.json")
    schema = json.loads(vendored.read_text("utf-8"))
    jsonschema.validators.validator_for(schema)(schema).validate(COMPOSE)


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_pinned_checked_and_on_loopback(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+(\.\d+)?(-alpine)?", service["image"])
    assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
    assert all(address == "127.0.0.1" for address, _, _ in published(name))
    mounted = {mount.split(":")[0] for mount in service.get("volumes", [])}
    for source in mounted:
        assert source in COMPOSE["volumes"] or (ROOT / source).is_dir(), source
    for needed in service.get("depends_on", {}):
        assert needed in SERVICES


def test_what_shares_the_hosts_network_listens_on_its_loopback_only() -> None:
    on_host = {name for name, item in SERVICES.items() if item.get("network_mode") == "host"}
    assert on_host == {"prometheus", "grafana"}
    assert "--web.listen-address=127.0.0.1:19090" in SERVICES["prometheus"]["command"]
    assert SERVICES["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"


def test_ports_are_those_of_the_embedded_system() -> None:
    settings = Settings()
    assert [published(name)[0][1] for name in BROKERS] == list(BROKER_PORTS)
    assert f":{published('registry')[0][1]}" in settings.registry
    assert f":{published('clickhouse')[0][1]}" in settings.clickhouse
    assert f":{published('redis')[0][1]}/" in settings.redis


def test_no_server_takes_a_port_that_driftlog_needs_beside_it() -> None:
    beside = Settings(clickhouse_url="http://127.0.0.1:18123")
    own = {18000, GRPC_PORT, 18080, beside.history_base, *METRICS_PORTS.values()}
    taken = {host for name in SERVICES for _, host, _ in published(name)} | {19090, 13000}
    assert not own & taken


def test_the_variables_in_its_head_point_to_its_ports() -> None:
    head = (ROOT / "docker-compose.yml").read_text("utf-8").partition("\nname:")[0]
    env = dict(re.findall(r"export (DRIFTLOG_\w+)=(\S+)", head))
    settings = Settings.from_env(env)
    brokers = ",".join(f"127.0.0.1:{published(name)[0][1]}" for name in BROKERS)
    assert settings.kafka_bootstrap == brokers
    clickhouse = SERVICES["clickhouse"]["environment"]
    user = f"{clickhouse['CLICKHOUSE_USER']}:{clickhouse['CLICKHOUSE_PASSWORD']}"
    assert settings.clickhouse_url == f"http://{user}@127.0.0.1:{published('clickhouse')[0][1]}"
    assert settings.registry_url.endswith(f":{published('registry')[0][1]}")
    assert settings.redis_url.endswith(f":{published('redis')[0][1]}/0")
    assert settings.qdrant_url.endswith(f":{published('qdrant')[0][1]}")


@pytest.mark.parametrize("name", BROKERS)
def test_brokers_have_the_settings_of_the_embedded_ones(name: str) -> None:
    environment = SERVICES[name]["environment"]
    wanted = {**DURABILITY, **QUICK_FAILOVER, **SMALL_FOOTPRINT}
    assert {key: environment[variables(key)] for key in wanted} == wanted
    embedded = properties(Settings(), int(name[-1]))
    for key in ("node.id", "process.roles", "num.partitions"):
        assert environment[variables(key)] == embedded[key]
    assert environment["KAFKA_HEAP_OPTS"] == f"-Xmx{Settings().broker_heap_mb}m"
    assert SERVICES[name]["image"] == f"apache/kafka:{KAFKA_VERSION}"


@pytest.mark.parametrize("name", BROKERS)
def test_brokers_are_reached_from_the_host_and_from_inside(name: str) -> None:
    environment = SERVICES[name]["environment"]
    address, host, inner = published(name)[0]
    listeners = dict(part.split("://") for part in environment["KAFKA_LISTENERS"].split(","))
    advertised = dict(
        part.split("://") for part in environment["KAFKA_ADVERTISED_LISTENERS"].split(",")
    )
    assert listeners["HOST"] == f":{inner}"
    assert advertised == {"HOST": f"{address}:{host}", "INSIDE": f"{name}{listeners['INSIDE']}"}
    assert SERVICES[name]["hostname"] == name
    voter = f"{environment['KAFKA_NODE_ID']}@{name}{listeners['CONTROLLER']}"
    assert voter in environment["KAFKA_CONTROLLER_QUORUM_VOTERS"].split(",")
    assert listeners["INSIDE"].removeprefix(":") in SERVICES[name]["healthcheck"]["test"][1]


def test_brokers_are_one_cluster_with_a_disk_each() -> None:
    environments = [SERVICES[name]["environment"] for name in BROKERS]
    assert len({item["CLUSTER_ID"] for item in environments}) == 1
    assert len({item["KAFKA_CONTROLLER_QUORUM_VOTERS"] for item in environments}) == 1
    mounts = [SERVICES[name]["volumes"][0].split(":") for name in BROKERS]
    assert [volume for volume, _ in mounts] == list(BROKERS)
    assert {path for _, path in mounts} == {environments[0]["KAFKA_LOG_DIRS"]}


def test_the_registry_starts_as_the_embedded_one_does() -> None:
    environment = SERVICES["registry"]["environment"]
    assert environment["KARAPACE_COMPATIBILITY"] == "FULL_TRANSITIVE"
    assert environment["KARAPACE_REPLICATION_FACTOR"] == DURABILITY["default.replication.factor"]
    inside = [f"{name}:9092" for name in BROKERS]
    assert environment["KARAPACE_BOOTSTRAP_URI"].split(",") == inside


def test_redis_has_the_embedded_ones_limits() -> None:
    command = SERVICES["redis"]["command"]
    embedded = redis_service(Settings()).argv
    for option in ("--save", "--appendonly", "--maxmemory", "--maxmemory-policy"):
        assert command[command.index(option) + 1] == embedded[embedded.index(option) + 1]
