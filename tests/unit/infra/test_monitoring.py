"""Prometheus and Grafana ask only for what exists."""

from __future__ import annotations

import re
from typing import Any

import pytest
import sqlglot
from sqlglot import exp

from consumers.history.tables import event_table
from consumers.sql_guard import check
from driftlog.services import METRICS_PORTS
from infra.settings import Settings
from schemas.catalogue import system_topics
from tests.unit.infra.project_files import (
    ROOT,
    dashboards,
    exported_metrics,
    read_json,
    read_yaml,
)

PROMETHEUS = read_yaml("infra/prometheus/prometheus.yml")
RULES: list[dict[str, Any]] = [
    rule for group in read_yaml("infra/prometheus/alerts.yml")["groups"] for rule in group["rules"]
]
PANELS: list[tuple[str, dict[str, Any]]] = [
    (path, panel) for path in dashboards() for panel in read_json(path)["panels"]
]
TARGETS = [(panel["title"], target) for _, panel in PANELS for target in panel["targets"]]
PROMQL = [(title, target["expr"]) for title, target in TARGETS if "expr" in target]
SQL = [(title, target["rawSql"]) for title, target in TARGETS if "rawSql" in target]


def metrics_of(expression: str) -> set[str]:
    return set(re.findall(r"\bdriftlog_\w+", expression))


def test_the_code_exports_metrics_of_each_service() -> None:
    """Else the tests below would compare with nothing."""
    assert exported_metrics() >= {
        "driftlog_worker_events_total",
        "driftlog_registry_loaded",
        "driftlog_history_lag_events",
        "driftlog_serving_request_seconds_bucket",
        "driftlog_trainer_requests_total",
    }


@pytest.mark.parametrize(("title", "expression"), PROMQL, ids=[title for title, _ in PROMQL])
def test_a_dashboard_shows_metrics_that_exist(title: str, expression: str) -> None:
    asked = metrics_of(expression)
    assert asked or "up{" in expression, "a panel about nothing"
    assert asked <= exported_metrics()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_is_about_metrics_that_exist_and_says_what_to_do(rule: dict[str, Any]) -> None:
    asked = metrics_of(rule["expr"])
    assert asked or "up{" in rule["expr"]
    assert asked <= exported_metrics()
    assert rule["labels"]["severity"] in {"page", "warn"}
    assert rule["annotations"]["summary"] and rule["annotations"]["action"]


@pytest.mark.parametrize(
    "expression",
    [expression for _, expression in PROMQL] + [rule["expr"] for rule in RULES],
)
def test_counters_are_asked_for_by_rate_and_histograms_by_quantile(expression: str) -> None:
    assert expression.count("(") == expression.count(")")
    for name in metrics_of(expression):
        if name.endswith("_bucket"):
            assert "histogram_quantile(" in expression and "by (le" in expression
            assert f"rate({name}" in expression
        elif name.endswith("_total") and "or vector(0)" not in expression:
            assert re.search(rf"(rate|increase)\({name}[{{\[]", expression)


def test_prometheus_scrapes_each_service_where_it_answers() -> None:
    job = next(item for item in PROMETHEUS["scrape_configs"] if item["job_name"] == "driftlog")
    scraped = {
        (group["labels"]["service"], target)
        for group in job["static_configs"]
        for target in group["targets"]
    }
    beside = Settings(clickhouse_url="http://127.0.0.1:18123")
    ports = {
        ("serving", 18000),
        ("registry", 18081),
        ("history", Settings().history_base),
        ("history", beside.history_base),
        *METRICS_PORTS.items(),
    }
    assert scraped == {(service, f"127.0.0.1:{port}") for service, port in ports}


def test_prometheus_reads_rules_that_are_mounted() -> None:
    (rules,) = PROMETHEUS["rule_files"]
    assert (ROOT / "infra/prometheus" / rules.rpartition("/")[2]).is_file()


def test_dashboards_use_the_data_sources_that_are_provisioned() -> None:
    provisioned = read_yaml("infra/grafana/provisioning/datasources/driftlog.yml")["datasources"]
    known = {(source["type"], source["uid"]) for source in provisioned}
    used = {(item["datasource"]["type"], item["datasource"]["uid"]) for _, item in PANELS}
    used |= {(t["datasource"]["type"], t["datasource"]["uid"]) for _, t in TARGETS}
    assert used == known
    clickhouse = next(item for item in provisioned if "clickhouse" in item["type"])["jsonData"]
    assert f"http://{clickhouse['host']}:{clickhouse['port']}" == Settings().clickhouse


@pytest.mark.parametrize("path", dashboards())
def test_panels_of_a_dashboard_stand_side_by_side(path: str) -> None:
    board = read_json(path)
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    cells = [
        (x, y)
        for panel in board["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells) and max(x for x, _ in cells) < 24


@pytest.mark.parametrize(("title", "query"), SQL, ids=[title for title, _ in SQL])
def test_queries_name_columns_that_exist_and_pass_the_guard(title: str, query: str) -> None:
    plain = re.sub(r"\$__timeFilter\((\w+)\)", r"(\1 >= toDateTime(0))", query)
    plain = plain.replace("${task:singlequote}", "'flights'")
    assert "$" not in plain
    check(plain)  # as the embedded ClickHouse does; raises what it would refuse

    tables = {f"{made.qualified}": made for made in map(event_table, system_topics())}
    tree = sqlglot.parse_one(plain, read="clickhouse")
    table = tree.find(exp.Table)
    assert table is not None and f"{table.db}.{table.name}" in tables
    assert "FINAL" in plain, "each event once"
    columns = {column.name for column in tables[f"{table.db}.{table.name}"].columns}
    aliases = {alias.alias for alias in tree.find_all(exp.Alias)}
    assert {column.name for column in tree.find_all(exp.Column)} <= columns | aliases | {"*"}
