"""Which device runs a call: the GPU for large batches where one is in use, else this processor.

Which one is in use is for the program to say, once (`use`, see `kernels.devices`). A call that a device
cannot do goes on with the processor; how often each did what is counted (`used`).
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TypeVar

from kernels.gpu.runtime import DeviceFailed, OutOfMemory, Runtime, TooLarge

logger = logging.getLogger(__name__)
R = TypeVar("R")
CPU = "cpu"


@dataclass(frozen=True)
class Device:
    """A runtime with what dispatch wants to know of it."""

    runtime: Runtime
    kind: str
    """`cuda` or `emulator`: the name under which its calls are counted."""
    least: dict[str, float] = field(default_factory=dict)
    """Values from which on a kernel is faster there than on the processor, copies included."""
    otherwise: float = 1 << 20
    """The same for a kernel of which that cannot be found out."""
    find_out: Callable[[str], float | None] = lambda kernel: None
    """Tries a kernel (see `kernels.tuner.probes`), once; None: it cannot."""
    tried_from: int = 0
    """Values below which it is not tried: they stay on the processor."""
    lock: AbstractContextManager[object] = field(default_factory=threading.RLock)

    @property
    def name(self) -> str:
        return f"{self.kind} ({self.runtime.properties.name})"

    def wants(self, kernel: str, values: int) -> bool:
        """Whether a call with so many values in the processor's memory should go there."""
        if values <= 0 or (values < self.tried_from and kernel not in self.least):
            return False
        return values >= self.least_of(kernel)

    def least_of(self, kernel: str) -> float:
        """Values from which on a kernel goes there; inf if trying it failed."""
        if kernel not in self.least:
            try:
                with self.lock:
                    found = self.find_out(kernel)
            except DeviceFailed as error:
                logger.warning(
                    "%s: %s failed, it stays on the processor: %s", kernel, self.name, error
                )
                found = float("inf")
            self.least[kernel] = self.otherwise if found is None else found
        return self.least[kernel]


@dataclass
class _State:
    device: Device | None = None
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    did_not_fit: set[tuple[str, str]] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)


_state = _State()


def use(device: Device | None) -> None:
    """From now on large batches go to `device`; None: to this processor."""
    with _state.lock:
        _state.device = device
        _state.did_not_fit.clear()


def in_use() -> Device | None:
    """The device that large batches go to; None: this processor."""
    return _state.device


def used() -> dict[str, dict[str, int]]:
    """How often each kernel ran on each device in this process: {"histogram": {"cpu": 12, "cuda": 3}}."""
    with _state.lock:
        calls = dict(_state.calls)
    found: dict[str, dict[str, int]] = {}
    for (kernel, device), count in sorted(calls.items()):
        found.setdefault(kernel, {})[device] = count
    return found


def count(kernel: str, device: str = CPU) -> None:
    """Note a call that had no choice."""
    with _state.lock:
        _state.calls[kernel, device] += 1


def run(
    kernel: str,
    values: int,
    on_device: Callable[[Runtime], R],
    on_cpu: Callable[[], R],
    *,
    resident: bool = False,
) -> R:
    """What `on_device` or `on_cpu` returns; both have to give the same.

    `resident`: the input lies in the device's memory, so that it goes there whatever its size; raises
    RuntimeError if no device is in use, and what the device raised: there is nothing to go on with.
    """
    device = _state.device
    if device is None and resident:
        raise RuntimeError(
            f"{kernel}: the input lies on a GPU and none is in use (DRIFTLOG_DEVICE)"
        )
    if device is not None and (resident or device.wants(kernel, values)):
        try:
            with device.lock:
                result = on_device(device.runtime)
        except DeviceFailed as error:
            if resident:
                raise
            _go_on(device, kernel, error)
        else:
            count(kernel, device.kind)
            return result
    count(kernel)
    return on_cpu()


def in_chunks(n: int, work: Callable[[int, int], None], least: int = 1) -> None:
    """Call work(start, stop) over 0..n, all at once if memory allows, else in ever smaller chunks.

    `work` leaves no trace if it raises OutOfMemory, which is raised on if not even `least` fit.
    """
    start, size = 0, n
    while start < n:
        stop = min(n, start + size)
        try:
            work(start, stop)
        except TooLarge:
            raise
        except OutOfMemory:
            if size <= least:
                raise
            size = max(least, -(-size // 2))
        else:
            start = stop


def _go_on(device: Device, kernel: str, error: DeviceFailed) -> None:
    """A call that does not fit is only that call; any other failure ends the use of the device.

    Either is said once: of each kernel that did not fit, and of the device.
    """
    fits_not = isinstance(error, OutOfMemory)
    with _state.lock:
        told = fits_not and (kernel, device.kind) in _state.did_not_fit
        if fits_not:
            _state.did_not_fit.add((kernel, device.kind))
        elif _state.device is device:
            _state.device = None
    if not told:
        logger.warning("%s: %s failed, going on with the processor: %s", kernel, device.name, error)
