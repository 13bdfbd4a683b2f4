"""Weights that somebody else has trained: where they lie, told by a path or by the name of a package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from models.recipes.errors import CannotTrain

PACKAGE = "package:"


def found(parameter: str, given: str) -> Path:
    """`given`: a path, or 'package:NAME/path/in/it' of an installed package. It may not be there.

    Raises CannotTrain, which names `parameter`, for a package that is not installed.
    """
    if not given.startswith(PACKAGE):
        return Path(given).expanduser()
    name, _, inside = given.removeprefix(PACKAGE).partition("/")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise CannotTrain(f"{parameter}={given!r}: no package {name!r} is installed")
    return Path(next(iter(spec.submodule_search_locations)), inside)
