"""What a case is: one piece of work, everybody who can do it, and what it has to move and compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kernels.gpu.runtime import Runtime

Work = Callable[[], Any]
"""Done again and again; returns its result (an array, a buffer, or anything with `get` or `cpu`)."""
Maker = Callable[[int], "Case"]
"""A case of about so many elements."""


@dataclass(frozen=True)
class Measured:
    """Seconds of each contender on a device, beside those of the processor."""

    seconds: Mapping[str, float]
    cpu: float
    numpy: float
    bytes: float
    copy_bandwidth: float
    """Bytes read and written per second by the device's own copy."""

    def bandwidth_share(self, name: str) -> float:
        """Of what a copy reaches."""
        return self.bytes / self.seconds[name] / self.copy_bandwidth


@dataclass(frozen=True)
class DeviceGoal:
    """Judged on a GPU alone. `figure` may raise KeyError: the peer is not there."""

    words: str
    figure: Callable[[Measured], float]
    at_least: float


@dataclass(frozen=True)
class Case:
    """`device` and `device_peers` prepare once (they may raise ImportError) and give the work."""

    name: str
    shape: str
    values: int
    operations: float
    bytes: float
    """Moved at least: inputs read once, results written once."""
    cpu: Work
    peers: Mapping[str, Work] = field(default_factory=dict)
    """On the processor."""
    device: Mapping[str, Callable[[Runtime], Work]] = field(default_factory=dict)
    """Steps of the kernel; the last is the one in use."""
    device_peers: Mapping[str, Callable[[], Work]] = field(default_factory=dict)
    same: Callable[[Any, Any], bool] = np.array_equal
    goals: tuple[DeviceGoal, ...] = ()

    @property
    def kernel(self) -> str:
        """The step in use."""
        return list(self.device)[-1]


def result(made: Any) -> Any:
    """As NumPy: of a buffer, a CuPy array, or a torch tensor."""
    if hasattr(made, "get"):
        return made.get()
    return made.cpu().numpy() if hasattr(made, "cpu") else np.asarray(made)


def close(mine: Any, theirs: Any) -> bool:
    """Float32 results of sums in another order."""
    return bool(np.allclose(mine, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max(initial=1e-30)))


def on_torch(*arrays: np.ndarray) -> tuple[Any, ...]:
    """Torch's own copies on the GPU; raises ImportError without torch or without a GPU in it."""
    import torch  # type: ignore[import-not-found,unused-ignore]

    if not torch.cuda.is_available():
        raise ImportError("this torch sees no GPU")
    return tuple(torch.from_numpy(array).cuda() for array in arrays)
