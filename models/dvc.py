"""A snapshot's `.dvc` metafile, so that DVC (dvc.org) tracks the exported file as its own.

The format is that of DVC's user guide, "`.dvc` files": YAML with `outs`, of each the MD5 and the size of the
file, and `meta`, which DVC leaves alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

META = ("task", "snapshot", "event_id", "purpose", "rows", "positives", "from_time", "to_time")


def metafile(name: str, data: bytes, taken: Mapping[str, Any]) -> str:
    """The text of `<name>.dvc` for the file `name` with these bytes; `taken`: its SnapshotTaken."""
    digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
    meta = "".join(f"    {key}: {json.dumps(taken[key])}\n" for key in META)
    return (
        "outs:\n"
        f"- md5: {digest}\n"
        f"  size: {len(data)}\n"
        "  hash: md5\n"
        f"  path: {json.dumps(name)}\n"
        "meta:\n"
        "  driftlog:\n"
        f"{meta}"
    )
