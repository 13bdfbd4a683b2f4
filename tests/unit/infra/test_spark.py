"""Spark as an extra: what is said without it, and how its driver is started with it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from infra.errors import InfraError
from infra.jvm import Jvm
from infra.settings import Settings
from infra.spark import _command, _configuration, _gateway, require_spark, spark_session
from infra.spark import subprocess as processes


@pytest.fixture
def no_pyspark(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "pyspark" else find(name)
    )


@pytest.mark.usefixtures("no_pyspark")
def test_without_pyspark_one_line_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(InfraError, match=r"driftlog\[spark\]"):
        require_spark()
    with pytest.raises(InfraError, match="not installed"), spark_session(Settings(home=tmp_path)):
        raise AssertionError("there is no session")


def test_the_driver_listens_on_loopback_only_and_leaves_nothing_behind(tmp_path: Path) -> None:
    conf = _configuration(tmp_path, 2)
    assert conf["spark.master"] == "local[2]"
    assert conf["spark.driver.bindAddress"] == conf["spark.driver.host"] == "127.0.0.1"
    assert conf["spark.ui.enabled"] == "false"
    assert _configuration(tmp_path, 0)["spark.master"] == "local[*]"
    assert conf["spark.local.dir"] == str(tmp_path)


@pytest.mark.parametrize(("release", "has"), [(17, False), (25, True)])
def test_options_that_only_newer_java_knows(tmp_path: Path, release: int, has: bool) -> None:
    command = _command(Jvm(Path("java"), release, (), 384), tmp_path, 1)
    assert ("--sun-misc-unsafe-memory-access=allow" in command) is has
    assert "--add-modules=jdk.incubator.vector" not in command


def test_a_driver_that_dies_is_told_with_its_last_line(tmp_path: Path) -> None:
    log = tmp_path / "spark.log"
    with log.open("wb") as output:
        process = processes.Popen(
            [sys.executable, "-c", "raise SystemExit('no room on this machine')"], stderr=output
        )
    with pytest.raises(InfraError, match="no room on this machine"):
        _gateway(process, tmp_path / "told", log)
