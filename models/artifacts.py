"""The content store: files named by the SHA-256 of their bytes, whole or not there at all."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MAX_MODEL_BYTES = 256 * 1024 * 1024
MAX_SNAPSHOT_BYTES = 4 * 1024 * 1024 * 1024
_NAME = re.compile(r"(models|snapshots)/[0-9a-f]{64}\.(onnx|parquet)")


class ArtifactRefused(Exception):
    """The file is not what the log says it is; the message says in which way. Nothing of it was used."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored file: the hash of its bytes, its path relative to the store, its size."""

    sha256: str
    path: str
    bytes: int


class ArtifactStore:
    """`models/<sha256>.onnx` and `snapshots/<sha256>.parquet` under one folder, and unfinished trainings."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put_model(self, data: bytes) -> Stored:
        return self._put("models", "onnx", data)

    def put_snapshot(self, data: bytes) -> Stored:
        return self._put("snapshots", "parquet", data)

    def path(self, name: str) -> Path:
        """Where `name` (as in the log) lies; raises ArtifactRefused for a name that leads elsewhere."""
        if not _NAME.fullmatch(name):
            raise ArtifactRefused(f"{name!r} is no name of an artifact")
        return self._root / name

    def read(self, name: str, sha256: str) -> bytes:
        """The verified bytes of a file; raises ArtifactRefused if it is absent or differs."""
        limit = MAX_MODEL_BYTES if name.startswith("models/") else MAX_SNAPSHOT_BYTES
        return read_verified(self.path(name), sha256, limit)

    def snapshots(self) -> dict[str, Path]:
        """SHA-256 -> file, of every snapshot that is there."""
        return {path.stem: path for path in sorted(self._root.glob("snapshots/*.parquet"))}

    def checkpoints(self, version: str) -> Path:
        """The folder for what a training of `version` leaves while it lasts; its owner removes it."""
        return self._root / "checkpoints" / version

    def _put(self, folder: str, suffix: str, data: bytes) -> Stored:
        sha256 = hashlib.sha256(data).hexdigest()
        name = f"{folder}/{sha256}.{suffix}"
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(path, data)
        return Stored(sha256, name, len(data))


def read_verified(path: Path, sha256: str, limit: int = MAX_MODEL_BYTES) -> bytes:
    """Read once and check the bytes that were read; raises ArtifactRefused."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > limit:
                raise ArtifactRefused(f"{path.name}: more than {limit} bytes")
            data = file.read(limit + 1)
    except OSError as error:
        raise ArtifactRefused(f"{path.name}: {error.strerror}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise ArtifactRefused(f"{path.name}: its SHA-256 is {found}, the log says {sha256}")
    return data


def _write_whole(path: Path, data: bytes) -> None:
    """Write beside, flush to disk, rename: a reader sees the whole file or none, whenever power fails."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".partial-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
