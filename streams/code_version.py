"""Which code and which settings a fold's state came from: a hash that changes when either does."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib.util
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from streams.canonical import fingerprint
from streams.fold import Fold

PACKAGES = frozenset(("driftlog", "models", "consumers", "streams", "schemas", "kernels", "infra"))


def code_version(fold: Fold) -> str:
    """SHA-256 over the sources of the fold's module and all of ours that it imports, and its settings."""
    kind = type(fold)
    settings = {name: _plain(value) for name, value in _attributes(fold)}
    return fingerprint([kind.__qualname__, module_version(kind.__module__), settings])


@cache
def module_version(name: str) -> str:
    """SHA-256 over the sources of a module and all modules of driftlog that it needs."""
    sources: dict[str, str] = {}
    waiting = [name]
    while waiting:
        module = waiting.pop()
        if module not in sources:
            sources[module] = source = _source(module)
            waiting += [each for each in _imports(module, source) if each not in sources]
    digest = hashlib.sha256()
    for module in sorted(sources):
        digest.update(f"{module}\0{sources[module]}\0".encode())
    return digest.hexdigest()


def _source(module: str) -> str:
    """Empty for what is no Python source (an extension module, an interactive session)."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return ""
    source = getattr(spec.loader, "get_source", None) if spec else None
    return (source(module) or "") if source else ""


def _imports(module: str, source: str) -> Iterator[str]:
    """Modules of ours that are imported anywhere in the source; `from a import b` may mean module a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            if name.partition(".")[0] in PACKAGES and name != module and _is_module(name):
                yield name


@cache
def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _attributes(value: object) -> Iterator[tuple[str, Any]]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for spec in dataclasses.fields(value):
            yield spec.name, getattr(value, spec.name)
    else:
        yield from sorted(getattr(value, "__dict__", {}).items())


def _plain(value: Any) -> Any:
    """What has a canonical encoding; a function or an object not of ours stands for its type alone."""
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(fingerprint(_plain(item)) for item in value)
    kind = type(value)
    if kind.__module__.partition(".")[0] in PACKAGES:
        return [kind.__qualname__, {name: _plain(item) for name, item in _attributes(value)}]
    return kind.__qualname__
