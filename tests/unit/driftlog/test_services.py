"""A service that starts without what it needs waits for it, and then ends with one line."""

from __future__ import annotations

import socket
from functools import partial
from pathlib import Path

import pytest

from driftlog import services
from infra.settings import HOST
from streams import topics

TASK_FILE = "from tests.unit.models.serving_parts import FLIGHTS as task\n"


@pytest.fixture
def nobody() -> str:
    """An address where connections are refused."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return f"{HOST}:{probe.getsockname()[1]}"


@pytest.mark.parametrize("gone", ["Kafka", "registry"])
def test_serving_without_its_log_or_registry_ends_with_a_line(
    gone: str,
    nobody: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if gone == "Kafka":
        monkeypatch.setattr(topics, "ensure_topics", partial(topics.ensure_topics, timeout_s=0.1))
    else:
        monkeypatch.setattr(topics, "ensure_topics", lambda *_: [])
        short = partial(topics.register_schemas, timeout_s=0.1)
        monkeypatch.setattr(topics, "register_schemas", short)
    monkeypatch.setenv("DRIFTLOG_HOME", str(tmp_path))
    monkeypatch.setenv("DRIFTLOG_KAFKA_BOOTSTRAP", nobody)
    monkeypatch.setenv("DRIFTLOG_REGISTRY_URL", f"http://{nobody}")
    task = tmp_path / "task.py"
    task.write_text(TASK_FILE)
    assert services.main(["serving", "--task", str(task)]) == 1
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("serving: ")]
    assert len(said) == 1
    expected = "topics not created" if gone == "Kafka" else f"schema registry http://{nobody}"
    assert expected in said[0]
