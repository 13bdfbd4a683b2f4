"""What can be wrong with a store on disk."""

from __future__ import annotations

from pathlib import Path


class StoreError(Exception):
    """A local store that cannot be used."""


class StoreCorrupt(StoreError):
    """Bytes on disk are not what was written, or a file is missing."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(
            f"{path}: {what}; stop whoever uses the folder {path.parent} and delete it: "
            "it is derived from the log again"
        )


class StoreInUse(StoreError):
    """Another process has the folder open."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} is in use by another process: stop that one, or choose another folder"
        )
