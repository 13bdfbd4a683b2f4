"""Several trees with one restore point: they stand at the same commit, and a note says at which offsets.

A group is a cache of what the log says. Whatever does not fit (other columns, another code, a crash of the
machine, damage) is deleted, and whoever opens it derives it from the log again.
"""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from streams.store import files
from streams.store.errors import StoreCorrupt, StoreError, StoreInUse
from streams.store.tree import MEMORY_BYTES, Tree

_POINT = "POINT"


@dataclass(frozen=True, slots=True)
class Table:
    """One tree of a group, see `Tree`."""

    dtype: np.dtype[Any]
    time: str | None = None
    memory_bytes: int = MEMORY_BYTES


class Group:
    """One folder, one process, one thread; `tag` says of what kind and for which code the contents are.

    `note` is what the last commit before the opening said, as plain data, None if there was none; `discarded`
    says why older contents were deleted, None if they were not. Raises StoreInUse.
    """

    def __init__(
        self, folder: Path, tables: Mapping[str, Table], tag: str, *, sync: bool = False
    ) -> None:
        """`sync=False` outlives the death of the process; what a power cut breaks is seen and deleted."""
        self.folder = folder
        self.discarded: str | None = None
        self.note: Any = None
        self._tables, self._tag, self._sync = dict(tables), tag, sync
        try:
            sequence = self._read()
            self.trees = self._open(sequence)
        except StoreInUse:
            raise
        except StoreError as error:
            self._discard(str(error))

    def commit(self, note: Any) -> None:
        """Make everything so far one step; `note`: whatever msgspec puts into JSON."""
        for tree in self.trees.values():
            tree.log_commit()
        sequence = max((tree.sequence for tree in self.trees.values()), default=0)
        body = msgspec.json.encode({"tag": self._tag, "sequence": sequence, "note": note})
        whole = b"%08x %s\n" % (zlib.crc32(body), body)
        files.replace_file(self.folder / _POINT, whole, sync=self._sync)
        for tree in self.trees.values():
            tree.settle()

    def discard(self, why: str) -> None:
        """Delete the contents and begin with nothing: the note does not fit what the caller needs."""
        self.close()
        self._discard(why)

    def close(self) -> None:
        """What was not committed is forgotten."""
        for tree in self.trees.values():
            tree.close()

    @property
    def disk_bytes(self) -> int:
        return sum(tree.disk_bytes for tree in self.trees.values())

    def _discard(self, why: str) -> None:
        self.discarded, self.note = why, None
        shutil.rmtree(self.folder, ignore_errors=True)
        self.trees = self._open(0)

    def _read(self) -> int:
        """The commit at which all trees stood together."""
        path = self.folder / _POINT
        if not path.exists():
            if self.folder.exists() and any(self.folder.iterdir()):
                raise StoreCorrupt(path, "there is no restore point yet")
            return 0
        checksum, _, body = path.read_bytes().rstrip(b"\n").partition(b" ")
        if checksum != b"%08x" % zlib.crc32(body):
            raise StoreCorrupt(path, "wrong checksum")
        found = msgspec.json.decode(body)
        if found["tag"] != self._tag:
            raise StoreError(f"{path} is of {found['tag']}, not of {self._tag}")
        self.note = found["note"]
        return int(found["sequence"])

    def _open(self, sequence: int) -> dict[str, Tree]:
        trees: dict[str, Tree] = {}
        try:
            for name, table in self._tables.items():
                folder = self.folder / name
                trees[name] = Tree(
                    folder,
                    table.dtype,
                    table.time,
                    memory_bytes=table.memory_bytes,
                    sync=self._sync,
                    upto=sequence,
                )
                if trees[name].sequence != sequence:
                    raise StoreCorrupt(
                        folder, f"stands at commit {trees[name].sequence}, not at {sequence}"
                    )
        except StoreError:
            for tree in trees.values():
                tree.close()
            raise
        return trees
