"""The device of this process's kernels, as the settings have it, and the metric of what ran where."""

from __future__ import annotations

import os
from collections.abc import Iterator

import structlog
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.registry import Collector

import kernels
from infra.errors import InfraError
from infra.settings import Settings
from kernels import devices

logger = structlog.get_logger()


def use_device(settings: Settings, *, say: bool = True) -> str:
    """Large batches of kernels go to the device of DRIFTLOG_DEVICE from now on; its name.

    `say`: log it, as services do; commands keep their output to themselves. Raises InfraError if it asks
    for a GPU or the emulator and there is none. A process that is forked later works on its processor: a
    GPU's context is its parent's alone.
    """
    try:
        device = devices.chosen(settings.device)
    except (kernels.NoGpu, kernels.DeviceFailed) as error:
        raise InfraError(str(error)) from error
    kernels.use(device)
    if device is not None:
        os.register_at_fork(after_in_child=lambda: kernels.use(None))
    name = kernels.CPU if device is None else device.name
    if say:
        logger.info("kernels", device=name, setting=settings.device)
    return name


class KernelCalls(Collector):
    """`driftlog_kernel_calls_total`: how often each kernel ran on each device in this process."""

    def collect(self) -> Iterator[CounterMetricFamily]:
        calls = CounterMetricFamily(
            "driftlog_kernel_calls", "Calls of kernels.", labels=["kernel", "device"]
        )
        for kernel, by_device in kernels.used().items():
            for device, count in by_device.items():
                calls.add_metric([kernel, device], count)
        yield calls


def export_calls(registry: CollectorRegistry = REGISTRY) -> None:
    """Offer the metric to whoever asks this process for its metrics."""
    registry.register(KernelCalls())
