"""Where nvcc is: on the PATH, or in the wheels `nvidia-cuda-nvcc` and its companions."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path


def find() -> Path | None:
    """The compiler, or None."""
    on_path = shutil.which("nvcc")
    if on_path is not None:
        return Path(on_path)
    try:
        spec = importlib.util.find_spec("nvidia")
    except ModuleNotFoundError:
        return None
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for nvcc in sorted(Path(place).glob("*/bin/nvcc"), reverse=True):
            return nvcc
    return None
