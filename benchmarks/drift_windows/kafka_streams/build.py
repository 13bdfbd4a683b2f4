"""Kafka Streams from Maven, and the contender in Java compiled against it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.harness import NotRun
from infra.kafka_jars import KAFKA_VERSION

SOURCE = Path(__file__).with_name("DriftWindows.java")
ENDPOINT = f"org.apache.kafka:kafka-streams:{KAFKA_VERSION}"
HEAP = "1g"


def command(folder: Path, threads: int, install: bool) -> list[str]:
    """The command that runs it with so many stream threads; raises NotRun.

    Jars and classes are kept in `folder`; what is missing there is fetched only if `install`.
    """
    java, javac = shutil.which("java"), shutil.which("javac")
    if java is None or javac is None:
        raise NotRun("no JDK")
    jars = _jars(folder, install)
    class_path = os.pathsep.join([*map(str, jars), str(_classes(folder, javac, jars))])
    options = [f"-Xmx{HEAP}", "-XX:+UseParallelGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=off"]
    return [java, *options, "-cp", class_path, "DriftWindows", str(threads)]


def _jars(folder: Path, install: bool) -> list[Path]:
    listed = folder / f"{KAFKA_VERSION}.txt"
    if listed.exists():
        return [Path(line) for line in listed.read_text("utf-8").splitlines()]
    if not install:
        raise NotRun("not fetched: add --peers")
    import jgo

    try:
        jars = [str(artifact.resolve()) for artifact in jgo.resolve(ENDPOINT)]
    except Exception as error:  # whatever the resolver meets: no network, no such file
        raise NotRun(f"not fetched: {type(error).__name__}: {error}"[:120]) from error
    folder.mkdir(parents=True, exist_ok=True)
    listed.write_text("\n".join(jars), encoding="utf-8")
    return [Path(jar) for jar in jars]


def _classes(folder: Path, javac: str, jars: list[Path]) -> Path:
    """Compiled anew when the source has changed."""
    mark = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    classes = folder / f"classes-{mark}"
    if not classes.exists():
        scratch = folder / f"classes-{mark}-{os.getpid()}"
        paths = os.pathsep.join(map(str, jars))
        made = subprocess.run(
            [javac, "-d", str(scratch), "-cp", paths, str(SOURCE)],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            raise NotRun(f"does not compile: {made.stderr.strip().splitlines()[0]}")
        scratch.rename(classes)
    return classes
