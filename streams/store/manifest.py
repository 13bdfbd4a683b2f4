"""The manifest: which files make up a store. It is replaced as a whole: the moment when a change counts."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from streams.store import files
from streams.store.errors import StoreCorrupt

FORMAT = 1
NAME = "MANIFEST"


@dataclass
class Manifest:
    """`runs`: number and version of their alive bits, oldest first; `log`: number of the write-ahead log."""

    value: str
    """The dtype of a value, as text."""
    time: str | None
    log: int = 1
    sequence: int = 0
    """The last commit when the log began."""
    runs: list[tuple[int, int]] = field(default_factory=list)
    format: int = FORMAT

    def write(self, folder: Path) -> int:
        body = json.dumps(asdict(self))
        return files.replace_file(
            folder / NAME, f"{zlib.crc32(body.encode()):08x} {body}\n".encode()
        )


def read(folder: Path) -> Manifest | None:
    """None if there is none; raises StoreCorrupt."""
    path = folder / NAME
    if not path.exists():
        return None
    checksum, _, body = path.read_bytes().rstrip(b"\n").partition(b" ")
    try:
        if int(checksum, 16) != zlib.crc32(body):
            raise ValueError("wrong checksum")
        found: dict[str, Any] = json.loads(body)
        manifest = Manifest(**{**found, "runs": [(number, v) for number, v in found["runs"]]})
    except (ValueError, KeyError, TypeError) as error:
        raise StoreCorrupt(path, str(error)) from error
    if manifest.format != FORMAT:
        raise StoreCorrupt(path, f"format {manifest.format} instead of {FORMAT}")
    return manifest
