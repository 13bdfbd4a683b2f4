"""Kafka's classes, loaded and linked beforehand: a broker then starts with a third of the processor time.

Java 24 and later can save what a program loaded (an AOT cache, JEP 483 and 514) and map it at the next start.
It is made once on a machine, by one broker that runs alone for a moment, and named after what it depends on.
Without it, or when the JVM finds that it does not fit, brokers start as they always did.
"""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from infra.jvm import Jvm
from infra.kafka_jars import jar_folder, locked
from infra.kafka_storage import BROKER_CLASS, run_storage_tool
from infra.ports import listening
from infra.settings import HOST, Settings

FIRST_JAVA = 25
_SILENT = ("-Xlog:aot*=off", "-Xlog:cds*=off")
_START_LIMIT_S = 60.0
_WRITE_LIMIT_S = 120.0


def archive_options(settings: Settings, jvm: Jvm) -> tuple[str, ...]:
    """The JVM options that use the archive; it is made now if there is none. Empty on an older Java."""
    if jvm.release < FIRST_JAVA:
        return ()
    folder = jar_folder(settings)
    archive = folder / f"broker-{_fingerprint(jvm)}.aot"
    with locked(folder):
        if not archive.exists():
            _make(jvm, folder, archive)
    return (f"-XX:AOTCache={archive}", *_SILENT) if archive.exists() else ()


def _fingerprint(jvm: Jvm) -> str:
    """What the archive depends on: this Java and these jars, where they lie and when they were put there."""
    parts = [(str(path), path.stat().st_mtime_ns) for path in (jvm.java, *jvm.jars)]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _make(jvm: Jvm, folder: Path, archive: Path) -> None:
    """Run a lone broker until it listens, end it, and keep what its JVM writes at exit."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="archive-") as scratch:
        port, controller = _free_ports()
        config = run_storage_tool(jvm, Path(scratch), _lone_broker(port, controller))
        written = Path(scratch) / archive.name
        command = jvm.command(
            BROKER_CLASS, str(config), options=(f"-XX:AOTCacheOutput={written}", *_SILENT)
        )
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            deadline = time.monotonic() + _START_LIMIT_S
            while not listening(port) and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            process.terminate()
            process.wait(_WRITE_LIMIT_S)
        except subprocess.TimeoutExpired:
            return  # it helps, but nothing depends on it
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if written.exists():
            os.replace(written, archive)


def _lone_broker(port: int, controller: int) -> dict[str, str]:
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{HOST}:{controller}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller}",
        "offsets.topic.replication.factor": "1",
        "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
    }


def _free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        first.bind((HOST, 0))
        second.bind((HOST, 0))
        return first.getsockname()[1], second.getsockname()[1]
