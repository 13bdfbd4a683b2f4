"""Where what was compiled and tuned is kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """DRIFTLOG_CACHE or ~/.cache/driftlog, then `kernels`."""
    base = os.environ.get("DRIFTLOG_CACHE") or "~/.cache/driftlog"
    return Path(base).expanduser() / "kernels"
