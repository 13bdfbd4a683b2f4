"""The picture of a simulation: loss over event time, and when each policy asked for a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from driftlog.simulate.history import History
from driftlog.simulate.loop import Run
from driftlog.simulate.measures import daily_loss, judged_rows


def draw(
    path: Path, title: str, history: History, runs: Sequence[Run], changes: Sequence[int]
) -> None:
    """Write it to `path` (.png, .svg, ...). Raises ImportError without matplotlib (extra `plots`)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = judged_rows(history, runs)
    height = 4.2 + 0.32 * len(runs)
    figure, (top, strip) = plt.subplots(
        *(2, 1),
        figsize=(11, height),
        sharex=True,
        gridspec_kw={"height_ratios": [3.4, 0.32 * len(runs) + 0.2]},
        layout="constrained",
    )
    for place, run in enumerate(runs):
        color = f"C{place % 10}"
        days, losses = daily_loss(history, run, rows)
        top.plot(_time(days), losses, color=color, linewidth=1.4, label=run.name)
        for promoted, marker, size in ((True, "o", 34), (False, "x", 26)):
            times = [retrain.time for retrain in run.retrains if retrain.promoted == promoted]
            strip.scatter(
                _time(times),
                [place] * len(times),
                color=color,
                marker=marker,
                s=size,
                linewidths=1.4,
            )
    for axis in (top, strip):
        for change in changes:
            axis.axvline(_time([change])[0], color="0.45", linestyle="--", linewidth=1, zorder=0)
        axis.spines[["top", "right"]].set_visible(False)
    top.set_ylabel("log-loss of the day")
    top.set_title(title, loc="left", fontsize=11)
    top.legend(frameon=False, ncols=min(4, len(runs)), fontsize=9)
    strip.set_yticks(range(len(runs)), [run.name for run in runs], fontsize=9)
    strip.set_ylim(len(runs) - 0.5, -0.5)
    strip.set_xlabel(
        "event time; o a new model took over, x it stayed out, dashed: the world changes"
    )
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _time(ms: object) -> np.ndarray:
    return np.asarray(ms, np.int64).astype("datetime64[ms]")
