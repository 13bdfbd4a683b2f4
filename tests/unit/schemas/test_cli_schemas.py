from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from driftlog.cli.errors import CliError
from driftlog.cli.schemas import schemas_app
from schemas.catalogue import load_schema, system_topics
from schemas.errors import RegistryUnavailable
from schemas.markdown import events_page
from schemas.registry.client import RegistryClient
from tests.unit.schemas.build import bomb, field
from tests.unit.schemas.serving import Served

Run = Callable[..., Result]


@pytest.fixture
def run(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("DRIFTLOG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DRIFTLOG_REGISTRY_URL", served.url)
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *words: CliRunner().invoke(schemas_app, [str(word) for word in words])


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def register_all(served: Served) -> None:
    with RegistryClient(served.url) as client:
        for topic in system_topics():
            client.schema_id(topic.subject, topic.value_schema)


def alert_file(folder: Path, **changed: Any) -> Path:
    file = folder / "AlertRaised.avsc"
    file.write_text(json.dumps({**load_schema("AlertRaised"), **changed}))
    return file


def removed_message() -> list[Any]:
    return [part for part in load_schema("AlertRaised")["fields"] if part["name"] != "message"]


def added(**more: Any) -> list[Any]:
    return [*load_schema("AlertRaised")["fields"], field("hint", "string", **more)]


def test_list(run: Run, served: Served) -> None:
    assert "no schema yet" in run("list").stdout
    register_all(served)
    found = {row["subject"]: row for row in lines(run("list", "--json"))}
    assert len(found) == len(system_topics())
    assert found["driftlog.alerts-value"]["events"] == ["AlertRaised", "AlertResolved"]
    assert found["driftlog.alerts-value"]["compatibility"] == "FULL_TRANSITIVE"
    assert [one["version"] for one in found["driftlog.alerts-value"]["versions"]] == [1]
    table = run("list").stdout
    assert "driftlog.performance_scores-value" in table and "AlertResolved" in table


def test_check_all(run: Run, served: Served) -> None:
    assert {row["state"] for row in lines(run("check", "--json"))} == {"new"}
    register_all(served)
    result = run("check")
    assert result.exit_code == 0
    assert result.stdout.count("unchanged") == len(system_topics())
    assert len(lines(run("check", "--topic", "driftlog.alerts", "--json"))) == 1


def test_a_file_that_may_follow(run: Run, served: Served, tmp_path: Path) -> None:
    register_all(served)
    file = alert_file(tmp_path, fields=added(default=""))
    assert lines(run("check", file, "--json")) == [
        {"subject": "driftlog.alerts-value", "state": "compatible", "problems": []}
    ]
    assert run("check", file).exit_code == 0


def test_a_file_that_may_not_follow(run: Run, served: Served, tmp_path: Path) -> None:
    register_all(served)
    file = alert_file(tmp_path, fields=removed_message())
    for words in ((file,), (file, "--topic", "driftlog.alerts"), (file, "--json")):
        result = run("check", *words)
        assert result.exit_code == 1 and isinstance(result.exception, CliError)
        assert "field 'message' was removed and has no default (FORWARD)" in result.stdout
        assert "driftlog.alerts-value: field 'message'" in str(result.exception)
    assert len(served.log.records) == len(system_topics())  # nothing was registered


def test_offline_against_another_file(run: Run, served: Served, tmp_path: Path) -> None:
    old = tmp_path / "old.avsc"
    old.write_text(json.dumps(load_schema("AlertRaised")))
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.mkdir()
    bad.mkdir()
    assert run("check", alert_file(good, fields=added(default="")), "--against", old).exit_code == 0
    result = run("check", alert_file(bad, fields=added()), "--against", old, "--json")
    assert lines(result)[0]["problems"] == ["field 'hint' was added and has no default (BACKWARD)"]
    assert result.exit_code == 1
    assert served.requests == []


def test_the_topics_of_a_task(run: Run, served: Served, tmp_path: Path) -> None:
    def task(kind: str) -> Path:
        file = tmp_path / f"demo_{kind.lower()}.py"
        file.write_text(
            f"from streams.task import {kind}, Task\n"
            f'task = Task(name="demo", features=({kind}("distance"),), label="late")\n'
        )
        return file

    numeric, category = task("Numeric"), task("Category")
    rows = lines(run("check", "--task", numeric, "--json"))
    assert {(row["subject"], row["state"]) for row in rows} == {
        (f"demo.{name}-value", "new") for name in ("predictions", "labels", "features", "shadows")
    }
    with RegistryClient(served.url) as client:
        from streams.task_file import load_task

        for topic in load_task(numeric).topics():
            client.schema_id(topic.subject, topic.value_schema)
    result = run("check", "--task", category)
    assert result.exit_code == 1
    assert "field 'features.distance'" in str(result.exception)


@pytest.mark.parametrize(
    ("content", "words", "why"),
    [
        (None, (), "cannot be read"),
        ("{half", (), "not JSON"),
        ('"string"', (), "a record with a name"),
        ('{"type": "record", "name": "Other", "fields": []}', (), "no topic carries Other"),
        (json.dumps(bomb()), ("--topic", "driftlog.alerts"), "contains itself"),
        (json.dumps(bomb()), ("--topic", "nowhere"), "no topic 'nowhere'"),
    ],
)
def test_files_that_cannot_be_used(
    run: Run, tmp_path: Path, content: str | None, words: tuple[str, ...], why: str
) -> None:
    file = tmp_path / "Some.avsc"
    if content is not None:
        file.write_text(content)
    result = run("check", file, *words)
    assert isinstance(result.exception, CliError) and why in str(result.exception)


def test_options_that_do_not_fit_together(run: Run, tmp_path: Path) -> None:
    assert "FILE" in str(run("check", "--against", tmp_path / "x").exception)
    result = run("check", tmp_path / "x", "--task", tmp_path / "y")
    assert isinstance(result.exception, CliError)


def test_a_registry_that_is_down(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLOG_REGISTRY_URL", "http://127.0.0.1:9")
    for words in (("list",), ("check",)):
        result = run(*words)
        assert isinstance(result.exception, RegistryUnavailable)
        assert "is it up" in str(result.exception)


def test_docs(run: Run, tmp_path: Path) -> None:
    page = tmp_path / "docs" / "events.md"
    assert lines(run("docs", "--path", page, "--json")) == [{"path": str(page), "changed": True}]
    assert page.read_text() == events_page()
    assert "up to date" in run("docs", "--path", page).stdout
    result = run("docs", "--path", page / "below")
    assert isinstance(result.exception, CliError) and "cannot be written" in str(result.exception)
