"""Checkpoints: a projector on disk, so that a fold need not start at zero. Optional, and always re-derivable.

A file holds the states of the folds that one runner drives, with everything that says whether they may be
used: offsets, the code that made them, their fingerprints. Its name is the SHA-256 of its content. Whatever
does not fit is ignored: the log is the truth, a checkpoint only saves time.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import numpy as np
import structlog

from schemas.event import Event
from streams.canonical import fingerprint
from streams.code_version import code_version
from streams.fold import Fold, Projector, Seen
from streams.packing import pack, unpack

logger = structlog.get_logger()

FORMAT = 1
KEPT = 3
"""Files kept per set of folds: the newest may lie beyond what a crashed runner had committed."""
SUFFIX = ".checkpoint"
_MAGIC = b"driftlog checkpoint\n"
_LENGTH = struct.Struct(">I")
Partition = tuple[str, int]


class CheckpointRefused(Exception):
    """A projector that cannot be saved, or a file that does not fit; the message says why in one line."""


def warn(line: str) -> None:
    """The default for what is said about checkpoints."""
    logger.warning(line)


@dataclass
class CountingProjector(Projector):
    """A projector that knows its events by topic: any of its folds can be restored on its own."""

    counts: dict[str, int] = field(default_factory=dict)

    def fresh(self, event: Event) -> bool:
        new = super().fresh(event)
        if new:
            self.counts[event.topic] = self.counts.get(event.topic, 0) + 1
        return new


class FoldEntry(msgspec.Struct, frozen=True):
    """One fold of the file; `size`: bytes of its state."""

    name: str
    code: str
    fingerprint: str
    size: int


class SeenEntry(msgspec.Struct, frozen=True):
    """The ids of one topic: two generations of 64-bit hashes."""

    topic: str
    capacity: int
    young: int
    old: int


class Header(msgspec.Struct, frozen=True):
    """What a file says about itself, before the states (in the order of `folds`) and ids (of `seen`)."""

    format: int
    folds: list[FoldEntry]
    offsets: list[tuple[str, int, int]]
    counts: dict[str, int]
    seen: list[SeenEntry]
    log_ids: dict[str, str]
    """Kafka's id of each topic, where it was known: a topic that was made anew has another."""

    def offsets_of(self, topics: set[str]) -> dict[Partition, int]:
        return {(t, p): offset for t, p, offset in self.offsets if t in topics}


def save(projector: Projector, folder: Path, log_ids: Mapping[str, str] | None = None) -> Path:
    """Write the projector's states as they are now, and delete all but the newest files of its folds.

    Raises CheckpointRefused for a state that would not come back the same, OSError if the disk is full.
    """
    if not isinstance(projector, CountingProjector):
        raise CheckpointRefused("only a projector that counts by topic can be saved")
    states = [packed(projector.states[fold.name], fold) for fold in projector.folds]
    ids = dict(sorted(projector._seen.items()))
    header = Header(
        FORMAT,
        [
            FoldEntry(fold.name, code_version(fold), sha256, len(state))
            for fold, (sha256, state) in zip(projector.folds, states, strict=True)
        ],
        sorted(
            (topic, partition, offset) for (topic, partition), offset in projector.offsets.items()
        ),
        dict(sorted(projector.counts.items())),
        [SeenEntry(t, seen.capacity, len(seen.young), len(seen.old)) for t, seen in ids.items()],
        {topic: log_id for topic, log_id in (log_ids or {}).items() if topic in projector.topics},
    )
    head = msgspec.msgpack.encode(header)
    parts = [_MAGIC, _LENGTH.pack(len(head)), head, *(state for _, state in states)]
    parts += [_hashes(group) for seen in ids.values() for group in (seen.young, seen.old)]
    content = b"".join(parts)
    path = folder / (hashlib.sha256(content).hexdigest() + SUFFIX)
    _write(path, content)
    _prune(folder, path, {fold.name for fold in projector.folds})
    return path


def newest(
    folds: Sequence[Fold],
    folder: Path,
    upto: Mapping[Partition, int] | None = None,
    ends: Mapping[Partition, int] | None = None,
    log_ids: Mapping[str, str] | None = None,
    say: Callable[[str], None] = warn,
) -> CountingProjector | None:
    """The folds as the newest fitting checkpoint holds them; None if none does.

    It fits if it holds all of `folds`, made by this very code, at offsets no further than `upto`, of this
    log (`ends` and `log_ids`: its end offsets and topic ids). `say` gets a line about each file that ought
    to fit and does not.
    """
    topics = {topic for fold in folds for topic in fold.topics}
    names = {fold.name for fold in folds}
    found = []
    for path, header in _headers(folder, say):
        offsets = header.offsets_of(topics)
        inside = upto is None or all(o <= upto.get(key, 0) for key, o in offsets.items())
        if inside and names <= {entry.name for entry in header.folds}:
            found.append((sum(offsets.values()), path))
    for _, path in sorted(found, reverse=True):
        try:
            return _load(path, folds, topics, ends or {}, log_ids or {})
        except (CheckpointRefused, OSError) as error:
            say(f"checkpoint {path.name[:12]} ignored: {error}")
    return None


def packed(state: Any, fold: Fold) -> tuple[str, bytes]:
    """Fingerprint and bytes of a state as it is; raises CheckpointRefused if it would come back another."""
    sha256 = fingerprint(state)
    try:
        content = pack(state)
        again = fingerprint(unpacked(fold, content))
    except (TypeError, ValueError, OverflowError) as error:
        raise CheckpointRefused(f"{fold.name}: its state cannot be saved: {error}") from error
    if again != sha256:
        raise CheckpointRefused(f"{fold.name}: its state does not come back the same")
    return sha256, content


def unpacked(fold: Fold, content: bytes) -> Any:
    """A state of `fold` from its bytes, by the type hints of the state; raises ValueError or TypeError."""
    hints = get_type_hints(type(fold).initial)
    return unpack(content, hints.get("return", Any))


def _hashes(ids: set[int]) -> bytes:
    return np.sort(np.fromiter(ids, np.dtype("<u8"), len(ids))).tobytes()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    fresh.write_bytes(content)
    os.replace(fresh, path)


def _prune(folder: Path, written: Path, names: set[str]) -> None:
    """Keep the newest files of this set of folds, by the time of writing: old code may have read further."""
    same = [
        (path.stat().st_mtime_ns, path)
        for path, header in _headers(folder, lambda line: None)
        if {entry.name for entry in header.folds} == names and path != written
    ]
    for _, path in sorted(same, reverse=True)[KEPT - 1 :]:
        path.unlink(missing_ok=True)


def _headers(folder: Path, say: Callable[[str], None]) -> Iterator[tuple[Path, Header]]:
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            with path.open("rb") as file:
                start = file.read(len(_MAGIC) + _LENGTH.size)
                yield path, _header(start, file.read)
        except (CheckpointRefused, OSError) as error:
            say(f"checkpoint {path.name[:12]} ignored: {error}")


def _header(start: bytes, read: Callable[[int], bytes]) -> Header:
    if not start.startswith(_MAGIC) or len(start) < len(_MAGIC) + _LENGTH.size:
        raise CheckpointRefused("it is damaged")
    (length,) = _LENGTH.unpack_from(start, len(_MAGIC))
    try:
        header = msgspec.msgpack.decode(read(length), type=Header)
    except (msgspec.DecodeError, ValueError) as error:
        raise CheckpointRefused("it is damaged, or of another version") from error
    if header.format != FORMAT:
        raise CheckpointRefused(f"it has format {header.format}, this is {FORMAT}")
    return header


def _load(
    path: Path,
    folds: Sequence[Fold],
    topics: set[str],
    ends: Mapping[Partition, int],
    log_ids: Mapping[str, str],
) -> CountingProjector:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() + SUFFIX != path.name:
        raise CheckpointRefused("it is damaged (its content is not what its name says)")
    place = len(_MAGIC) + _LENGTH.size
    header = _header(content[:place], lambda length: content[place : place + length])
    place += _LENGTH.unpack_from(content, len(_MAGIC))[0]
    offsets = header.offsets_of(topics)
    _check_log(header, offsets, ends, log_ids)
    wanted = {fold.name: fold for fold in folds}
    states = {}
    for entry in header.folds:
        state = content[place : place + entry.size]
        place += entry.size
        if entry.name in wanted:
            states[entry.name] = _restored(wanted[entry.name], entry, state)
    seen = {}
    for ids in header.seen:
        groups = np.frombuffer(content, "<u8", ids.young + ids.old, place)
        place += 8 * len(groups)
        if ids.topic in topics:
            young, old = groups[: ids.young].tolist(), groups[ids.young :].tolist()
            seen[ids.topic] = Seen(ids.capacity, set(young), set(old))
    counts = {topic: count for topic, count in header.counts.items() if topic in topics}
    return CountingProjector(folds, offsets, sum(counts.values()), states, seen, counts=counts)


def _restored(fold: Fold, entry: FoldEntry, content: bytes) -> Any:
    if entry.code != code_version(fold):
        raise CheckpointRefused(f"{fold.name} was folded by other code or another task")
    try:
        state = unpacked(fold, content)
    except (ValueError, TypeError) as error:
        raise CheckpointRefused(f"{fold.name}: {error}") from error
    if fingerprint(state) != entry.fingerprint:
        raise CheckpointRefused(f"{fold.name}: its fingerprint is not the one that was noted")
    return state


def _check_log(
    header: Header,
    offsets: Mapping[Partition, int],
    ends: Mapping[Partition, int],
    log_ids: Mapping[str, str],
) -> None:
    for (topic, partition), offset in offsets.items():
        if ends and offset > ends.get((topic, partition), 0):
            raise CheckpointRefused(f"{topic}[{partition}]@{offset} lies beyond the log's end")
        noted = header.log_ids.get(topic)
        if noted and log_ids.get(topic, noted) != noted:
            raise CheckpointRefused(f"topic {topic} was made anew since")
