"""Opening a device by its name in the settings, `DRIFTLOG_DEVICE`, and finding out what it is good for."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from infra.settings import DEVICES
from kernels.dispatch import Device
from kernels.gpu.cache import cache_folder
from kernels.gpu.emulator import Emulator
from kernels.gpu.pycuda import PyCuda
from kernels.gpu.runtime import DeviceFailed, NoGpu
from kernels.tuner.probes import SIZES, faster_from
from kernels.tuner.search import Cache
from kernels.tuner.tunables import TUNABLES

AT_ONCE = "histogram", "distances"
"""What services run: found out when the device is opened, not at their first batch."""


def chosen(choice: str) -> Device | None:
    """The device for a setting: None for 'cpu', and for 'auto' where there is no GPU.

    Raises NoGpu for 'cuda' without one and for 'emulator' without g++, ValueError for an unknown choice.
    Opening a GPU takes seconds: kernels are compiled, and it is measured against the processor.
    """
    if choice not in DEVICES:
        raise ValueError(f"DRIFTLOG_DEVICE={choice!r}: one of {', '.join(DEVICES)}")
    if choice == "cpu":
        return None
    if choice == "emulator":
        return Device(Emulator(), "emulator", otherwise=1)
    try:
        runtime = PyCuda()
        Cache(tuned_file()).load(runtime, TUNABLES)
        device = Device(
            runtime, "cuda", find_out=partial(faster_from, runtime), tried_from=SIZES[0]
        )
        for kernel in AT_ONCE:
            device.least_of(kernel)
        return device
    except (NoGpu, DeviceFailed):
        if choice == "cuda":
            raise
        return None


def tuned_file() -> Path:
    """Where launch parameters that were found on this machine are kept."""
    return cache_folder() / "tuned.json"
