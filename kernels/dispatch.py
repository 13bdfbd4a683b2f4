"""One call, the right device: the GPU for large batches where one is in use, else the compiled loops.

Counts are integers and distances are settled by the reference (see `kernels.scores`), so the device shows in
no result. Which one is in use is for the program to say, once (`use`, see `kernels.gpu`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kernels import counting as cpu
from kernels import scores
from kernels.counting import Counts, Floats, Slots
from kernels.scores import Distances

logger = logging.getLogger(__name__)


class DeviceFailed(RuntimeError):
    """A device could not do what it was asked for; the message says why."""


class Device(Protocol):
    """Something faster than this processor from a certain size on. Its methods raise DeviceFailed."""

    name: str
    least_values: float
    """Values (rows times columns) from which on it counts faster."""
    least_rows: float
    """Pairs of histograms from which on it compares faster."""

    def histograms(
        self, x: Sequence[Floats], edges: Sequence[Floats], slot: Slots, slots: int
    ) -> tuple[Counts, Counts]:
        """As `kernels.counting.histograms`."""

    def distances(self, p: Counts, q: Counts, sizes: Counts) -> Floats:
        """(3, m): PSI, KS and JS before rounding, within the tolerances of `kernels.scores`."""


@dataclass(slots=True)
class _InUse:
    device: Device | None = None


_in_use = _InUse()


def use(device: Device | None) -> None:
    """From now on large batches go to `device`; None: to this processor."""
    _in_use.device = device


def accumulate(x: Floats, edges: Floats, slot: Slots, counts: Counts, missing: Counts) -> None:
    """Add a column's histogram to `counts`, in place: see `kernels.counting.accumulate`."""
    device = _in_use.device
    if device is not None and len(x) >= device.least_values:
        cpu.check_shapes("edges", len(edges) + 1, len(x), slot, counts, missing)
        cpu.check_slots(slot, len(missing))
        try:
            more, absent = device.histograms([x], [edges], slot, len(missing))
        except DeviceFailed as error:
            _give_up(device, error)
        else:
            counts += more[:, 0]
            missing += absent[:, 0]
            return
    cpu.accumulate(x, edges, slot, counts, missing)


def histograms(
    x: Floats | Sequence[Floats], edges: Sequence[Floats], slot: Slots, slots: int
) -> tuple[Counts, Counts]:
    """Histograms of many columns at once: see `kernels.counting.histograms`."""
    device = _in_use.device
    if device is not None and len(slot) * len(x) >= device.least_values:
        cpu.check_columns(x, edges)
        cpu.check_slots(slot, slots)
        try:
            return device.histograms(list(x), edges, slot, slots)
        except DeviceFailed as error:
            _give_up(device, error)
    return cpu.histograms(x, edges, slot, slots)


def distances(p: Counts, q: Counts, sizes: Counts) -> Distances:
    """PSI, KS and JS of each pair of rows: see `kernels.scores.distances`."""
    device = _in_use.device
    if device is not None and len(p) >= device.least_rows:
        scores.check_shapes(p, q, sizes)
        try:
            return scores.settled(device.distances(p, q, sizes), p, q, sizes)
        except DeviceFailed as error:
            _give_up(device, error)
    return scores.distances(p, q, sizes)


def load() -> None:
    """Load what `distances` runs (a second, once a process): for services, before they have to answer."""
    pair = np.ones((1, 2), np.int64)
    scores.distances(pair, pair, np.array([2]))


def psi_rows(p: Counts, q: Counts, sizes: Counts) -> Floats:
    """Population stability index of each pair of rows, shape (m,): see `distances`."""
    return distances(p, q, sizes).psi


def ks_rows(p: Counts, q: Counts, sizes: Counts) -> Floats:
    """Kolmogorov-Smirnov distance of each pair of rows, shape (m,): see `distances`."""
    return distances(p, q, sizes).ks


def js_rows(p: Counts, q: Counts, sizes: Counts) -> Floats:
    """Jensen-Shannon distance of each pair of rows, shape (m,): see `distances`."""
    return distances(p, q, sizes).js


def _give_up(device: Device, error: DeviceFailed) -> None:
    logger.warning("%s failed, going on with the processor: %s", device.name, error)
    if _in_use.device is device:
        _in_use.device = None
