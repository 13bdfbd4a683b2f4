"""Apache Kafka's jars: a pinned list, fetched once in Maven's own layout, checked by SHA-256, then cached."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path

from infra.errors import InfraError
from infra.settings import Settings

KAFKA_VERSION = "4.1.2"
_PARALLEL_DOWNLOADS = 8

Progress = Callable[[int, int], None]
"""Called with (bytes that are in place, bytes in all)."""


@dataclass(frozen=True, slots=True)
class Jar:
    """One pinned artifact: `group:artifact:version`, the SHA-256 of its bytes (hex), and their number."""

    group: str
    artifact: str
    version: str
    sha256: str
    size: int

    @property
    def name(self) -> str:
        return f"{self.artifact}-{self.version}.jar"


def pinned_jars() -> tuple[Jar, ...]:
    """The jars of `kafka-jars.txt`, in class path order."""
    lines = files("infra").joinpath("kafka-jars.txt").read_text("utf-8").splitlines()
    return tuple(_parse(line) for line in lines if line and not line.startswith("#"))


def jar_folder(settings: Settings) -> Path:
    """Where the cache keeps the jars and what is made of them."""
    return settings.cache / "kafka" / KAFKA_VERSION


def class_path(
    settings: Settings, progress: Progress = lambda done, total: None
) -> tuple[Path, ...]:
    """The paths of all jars; those which the cache lacks are fetched first.

    Raises InfraError when a jar is neither cached nor to be had, or has other bytes than pinned.
    """
    jars = pinned_jars()
    folder = jar_folder(settings)
    total = sum(jar.size for jar in jars)
    present = {jar for jar in jars if _in_place(folder, jar)}
    if len(present) < len(jars):
        with locked(folder):
            _fetch_missing(folder, jars, progress)
    progress(total, total)
    return tuple(folder / jar.name for jar in jars)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time fill a cache folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _parse(line: str) -> Jar:
    coordinate, checksum, size = line.split()
    group, artifact, version = coordinate.split(":")
    return Jar(group, artifact, version, checksum.removeprefix("sha256:"), int(size))


def _in_place(folder: Path, jar: Jar) -> bool:
    """A jar is moved into the cache only after its checksum was right, so here its size is enough."""
    path = folder / jar.name
    return path.is_file() and path.stat().st_size == jar.size


def _fetch_missing(folder: Path, jars: tuple[Jar, ...], progress: Progress) -> None:
    missing = [jar for jar in jars if not _in_place(folder, jar)]
    total = sum(jar.size for jar in jars)
    done = total - sum(jar.size for jar in missing)
    progress(done, total)
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix="fetch-") as scratch,
        ThreadPoolExecutor(_PARALLEL_DOWNLOADS) as pool,
    ):
        for jar, path in zip(
            missing, pool.map(partial(_fetch, Path(scratch)), missing), strict=True
        ):
            os.replace(path, folder / jar.name)
            done += jar.size
            progress(done, total)


def _fetch(scratch: Path, jar: Jar) -> Path:
    """One jar with the right bytes in `scratch`: copied from the user's Maven folder, or downloaded."""
    from jgo.constants import default_maven_repo
    from jgo.maven import MavenContext

    context = MavenContext(repo_cache=scratch / "maven", timeout=30)
    artifact = context.project(jar.group, jar.artifact).at_version(jar.version).artifact()
    target = scratch / jar.name
    own = Path(default_maven_repo()) / artifact.component.path_prefix / jar.name
    if own.is_file() and _sha256(own) == jar.sha256:
        shutil.copyfile(own, target)
        return target
    try:
        fetched = artifact.resolve()
    except Exception as error:  # whatever the resolver meets (no network, no such file, bad sums)
        raise InfraError(
            f"cannot fetch {jar.name}, which Kafka needs ({type(error).__name__}); "
            "connect to a network and try again: it is fetched once and then cached"
        ) from error
    if _sha256(fetched) != jar.sha256:
        raise InfraError(f"{jar.name} was fetched but its SHA-256 is not the pinned one: not used")
    os.replace(fetched, target)
    return target


def _sha256(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
