"""The master key: 64 hex digits in a file that nobody else may read; made at first use."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from models.personal.cipher import SECRET_BYTES
from models.personal.errors import KeysUnavailable


def load(path: Path, create: bool) -> bytes:
    """The 32 bytes; with `create`, made if there is no file. Raises KeysUnavailable.

    Of processes that make it at once, all get the one that was there first.
    """
    try:
        if create and not path.exists():
            _make(path)
        mode = path.stat().st_mode
        if mode & 0o077:
            raise KeysUnavailable(f"others may read the master key {path}: chmod 600 it")
        return _parsed(path)
    except FileNotFoundError:
        raise KeysUnavailable(
            f"the master key {path} is gone: without it nothing personal can be read;"
            " restore it, or point DRIFTLOG_KEYRING to it"
        ) from None
    except OSError as error:
        raise KeysUnavailable(f"the master key {path}: {error.strerror or error}") from error


def _parsed(path: Path) -> bytes:
    try:
        secret = bytes.fromhex(path.read_text("ascii").strip())
    except ValueError:  # its bytes do not belong into a message
        secret = b""
    if len(secret) != SECRET_BYTES:
        raise KeysUnavailable(
            f"{path} holds no master key: {2 * SECRET_BYTES} hex digits are wanted"
        )
    return secret


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        try:
            os.write(handle, os.urandom(SECRET_BYTES).hex().encode() + b"\n")
            os.fsync(handle)
        finally:
            os.close(handle)
        try:
            os.link(draft, path)
        except FileExistsError:
            return
    finally:
        draft.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
