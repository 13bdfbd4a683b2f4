"""Launch parameters that a search found on this very device; see `kernels.tuner`."""

from __future__ import annotations

from collections.abc import Mapping

from kernels.gpu.runtime import Runtime

Parameters = Mapping[str, int]
_found: dict[str, dict[tuple[str, str], Parameters]] = {}


def shape(n: int) -> str:
    """Sizes that share their parameters: up to the same power of two."""
    return f"2^{max(0, n - 1).bit_length()}"


def remember(device: str, kernel: str, shape: str, parameters: Parameters) -> None:
    """From now on launchers use them on devices of this name."""
    _found.setdefault(device, {})[kernel, shape] = parameters


def forget(device: str) -> None:
    """Launchers use their own parameters again."""
    _found.pop(device, None)


def parameter(runtime: Runtime, kernel: str, n: int, name: str, default: int) -> int:
    """What was found for n elements; else the default."""
    found = _found.get(runtime.properties.name)
    return found.get((kernel, shape(n)), {}).get(name, default) if found else default
