"""The roofline: how near kernels come to what memory and arithmetic allow, from measured times.

A kernel of intensity I (operations per byte moved) can do no more than min(peak, I * bandwidth).
Source: Williams, Waterman & Patterson, "Roofline: an insightful visual performance model" (2009).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Roof:
    """What a device can do, measured or as its maker states it; `how` says which."""

    device: str
    bandwidth: float
    """Bytes per second."""
    peak: float
    """Operations per second."""
    how: str


@dataclass(frozen=True, slots=True)
class Point:
    """A kernel's run. Comparisons and integer additions count as operations where a kernel has no others."""

    name: str
    operations: float
    bytes: float
    """That have to move at least: inputs read once, outputs written once."""
    seconds: float

    @property
    def intensity(self) -> float:
        return self.operations / self.bytes

    @property
    def rate(self) -> float:
        """Operations per second."""
        return self.operations / self.seconds

    def share(self, roof: Roof) -> float:
        """Of what the roof allows at this intensity, 0..1."""
        return self.rate / min(roof.peak, self.intensity * roof.bandwidth)


def plot(points: Sequence[Point], roof: Roof, file: Path) -> None:
    """Write the picture (PNG). Raises RuntimeError if matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise RuntimeError("the plot needs matplotlib: install driftlog[plots]") from error
    intensities = [point.intensity for point in points]
    ridge = roof.peak / roof.bandwidth
    low, high = min([*intensities, ridge]) / 3, max([*intensities, ridge]) * 3
    figure = Figure(figsize=(10, 6.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.loglog(
        [low, ridge, high],
        [low * roof.bandwidth / 1e9, roof.peak / 1e9, roof.peak / 1e9],
        color="#333333",
        linewidth=1.5,
    )
    dark: dict[str, Any] = {"color": "#333333", "fontsize": 9}
    dark |= {"textcoords": "offset points"}
    axes.annotate(
        f"{roof.bandwidth / 1e9:,.1f} GB/s",
        (low * 1.5, low * 1.5 * roof.bandwidth / 1e9),
        xytext=(10, -4),
        **dark,
    )
    axes.annotate(
        f"{roof.peak / 1e9:,.0f} G operations/s",
        (high, roof.peak / 1e9),
        xytext=(-6, 5),
        ha="right",
        **dark,
    )
    ordered = sorted(points, key=lambda point: (point.intensity, -point.rate))
    for number, point in enumerate(ordered, 1):
        axes.plot(
            point.intensity,
            point.rate / 1e9,
            "o",
            markersize=7,
            color=f"C{number % 10}",
            label=f"{number}  {point.name} ({100 * point.share(roof):.0f} %)",
        )
        axes.annotate(
            str(number),
            (point.intensity, point.rate / 1e9),
            textcoords="offset points",
            xytext=(6, 4),
            fontsize=8,
        )
    axes.set_xlim(low, high)
    axes.set_xlabel("operations per byte moved")
    axes.set_ylabel("G operations per second")
    axes.set_title(f"{roof.device}: {roof.how}", fontsize=10)
    axes.grid(visible=True, which="both", linewidth=0.3)
    axes.legend(
        fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), title="of what the roof allows"
    )
    figure.savefig(file, format="png")
