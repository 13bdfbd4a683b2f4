"""The Kubernetes manifests are valid against the API's schemas, and name only what exists."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import kubernetes_validate
import pytest
from ruamel.yaml import YAML

from driftlog.services import METRICS_PORTS, OWN
from infra.settings import Settings, serving_port
from models.serving.app import FLUSH_S, GRACE_S
from models.serving.guards.settings import GuardSettings
from streams.app import WINDOWS_GROUP
from tests.unit.infra.project_files import ROOT, exported_metrics, read_yaml

FOLDER = ROOT / "infra/kubernetes"
VERSION = "1.37"
RESOURCES: list[dict[str, Any]] = [
    document
    for name in read_yaml("infra/kubernetes/kustomization.yaml")["resources"]
    for document in YAML(typ="safe").load_all((FOLDER / name).read_text("utf-8"))
]
RULES = read_yaml("infra/kubernetes/adapter-rules.yaml")["rules"]


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {
        item["metadata"]["name"]: item["spec"]
        for item in RESOURCES
        if item["kind"] == kind and "spec" in item
    }


DEPLOYMENTS = of_kind("Deployment")
CONFIG: dict[str, str] = next(item["data"] for item in RESOURCES if item["kind"] == "ConfigMap")


def container(name: str) -> dict[str, Any]:
    (found,) = DEPLOYMENTS[name]["template"]["spec"]["containers"]
    return dict(found)


@pytest.mark.parametrize("item", RESOURCES, ids=lambda i: f"{i['kind']}/{i['metadata']['name']}")
def test_a_manifest_is_valid(item: dict[str, Any]) -> None:
    kubernetes_validate.validate(item, VERSION, strict=True)


def test_a_misspelt_field_would_be_refused() -> None:
    deployment = next(item for item in RESOURCES if item["kind"] == "Deployment")
    wrong = {**deployment, "spec": {**deployment["spec"], "replica": 3}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


def test_every_file_is_in_the_kustomization() -> None:
    files = {path.name for path in FOLDER.glob("*.yaml")}
    listed = set(read_yaml("infra/kubernetes/kustomization.yaml")["resources"])
    assert files - listed == {"kustomization.yaml", "adapter-rules.yaml"}


def test_every_service_but_the_registry_has_a_deployment() -> None:
    assert set(DEPLOYMENTS) == set(OWN) - {"registry"}
    for name in DEPLOYMENTS:
        assert container(name)["args"][0] == name
        assert (ROOT / container(name)["args"][2]).exists()


def test_ports_are_the_services_own() -> None:
    ports = {"serving": serving_port(1), "history": 18005, **METRICS_PORTS}
    for name in DEPLOYMENTS:
        given = {port["name"]: port["containerPort"] for port in container(name)["ports"]}
        assert ports[name] in given.values(), name
        scraped = DEPLOYMENTS[name]["template"]["metadata"]["annotations"]["prometheus.io/port"]
        assert int(scraped) == ports[name]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if probe in container(name):
                assert container(name)[probe]["httpGet"]["port"] in given
    (service,) = of_kind("Service").values()
    named = {port["name"] for port in container("serving")["ports"]}
    assert {port["targetPort"] for port in service["ports"]} <= named


def test_settings_are_settings() -> None:
    fields = {f"DRIFTLOG_{field.name.upper()}" for field in dataclasses.fields(Settings)}
    serving = {f"DRIFTLOG_SERVING_{f.name.upper()}" for f in dataclasses.fields(GuardSettings)}
    assert set(CONFIG) <= fields | serving
    read = Settings.from_env(CONFIG)
    assert GuardSettings.from_env(CONFIG).host == "0.0.0.0"
    assert read.metrics_host == "0.0.0.0"
    for name in DEPLOYMENTS:
        mounts = [mount["mountPath"] for mount in container(name)["volumeMounts"]]
        assert str(read.home) in mounts
    assert str(read.artifacts) in [
        mount["mountPath"] for mount in container("trainer")["volumeMounts"]
    ]


def test_a_replica_has_time_to_leave() -> None:
    drain = int(CONFIG["DRIFTLOG_SERVING_DRAIN_S"])
    assert DEPLOYMENTS["serving"]["template"]["spec"]["terminationGracePeriodSeconds"] > (
        drain + GRACE_S + FLUSH_S
    )
    ready = container("serving")["readinessProbe"]
    assert drain > ready["periodSeconds"] * ready["failureThreshold"], "the balancer knows in time"


def test_autoscalers_and_budgets_find_their_deployments() -> None:
    for spec in of_kind("HorizontalPodAutoscaler").values():
        assert spec["scaleTargetRef"]["name"] in DEPLOYMENTS
        assert "replicas" not in DEPLOYMENTS[spec["scaleTargetRef"]["name"]], "both would set it"
    for name, budget in of_kind("PodDisruptionBudget").items():
        labels = DEPLOYMENTS[name]["template"]["metadata"]["labels"]
        assert budget["selector"]["matchLabels"].items() <= labels.items()
    scaler = of_kind("HorizontalPodAutoscaler")
    assert scaler["windows"]["maxReplicas"] <= Settings().partitions
    assert scaler["serving"]["minReplicas"] > 1


def test_metrics_that_scale_are_made_of_exported_ones() -> None:
    made = {rule["name"]["as"] for rules in RULES.values() for rule in rules}
    wanted = {
        metric[kind]["metric"]["name"]
        for spec in of_kind("HorizontalPodAutoscaler").values()
        for metric in spec["metrics"]
        for kind in ("pods", "external")
        if kind in metric
    }
    assert wanted == made
    exported = exported_metrics()
    for rules in RULES.values():
        for rule in rules:
            assert set(re.findall(r"\bdriftlog_\w+", rule["seriesQuery"])) <= exported
            if "group=" in rule["seriesQuery"]:
                assert f'group="{WINDOWS_GROUP}"' in rule["seriesQuery"]
