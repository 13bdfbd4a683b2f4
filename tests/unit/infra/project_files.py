"""The files in infra/ and at the root that other programs read, parsed."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML

from consumers.history.metrics import HistoryMetrics
from models.serving.metrics import Metrics
from models.trainer_metrics import TrainerMetrics
from schemas.registry.metrics import RegistryMetrics

ROOT = Path(__file__).parents[3]
PACKAGES = ("consumers", "driftlog", "models", "schemas", "streams")
SUFFIXES = {
    "counter": ("_total", "_created"),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count", "_created"),
}


def read_yaml(path: str) -> Any:
    return YAML(typ="safe").load((ROOT / path).read_text("utf-8"))


def read_json(path: str) -> Any:
    return json.loads((ROOT / path).read_text("utf-8"))


def dashboards() -> list[str]:
    folder = ROOT / "infra/grafana/dashboards"
    return sorted(str(path.relative_to(ROOT)) for path in folder.glob("*.json"))


@cache
def exported_metrics() -> frozenset[str]:
    """Names under which the code's metrics appear in `/metrics`.

    Those of the services' metrics classes are asked for. Others are read from the code: a constant name
    given to one of prometheus_client's classes, or to `gauge` of the registry's metrics.
    """
    made = (RegistryMetrics().registry, Metrics().registry, TrainerMetrics().registry)
    families = [family for registry in made for family in registry.collect()]
    families += list(text_string_to_metric_families(HistoryMetrics().exposition().decode()))
    names = {
        family.name + suffix
        for family in families
        if family.type in SUFFIXES
        for suffix in SUFFIXES[family.type]
    }
    for call in _calls():
        called = call.func.attr if isinstance(call.func, ast.Attribute) else _name(call.func)
        first = call.args[0] if call.args else None
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            if called.lower() in SUFFIXES and first.value.startswith("driftlog_"):
                names |= {first.value + suffix for suffix in SUFFIXES[called.lower()]}
            elif called == "gauge":
                names.add(f"driftlog_registry_{first.value}")
    return frozenset(names)


def _calls() -> Iterator[ast.Call]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call):
                    yield node


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""
