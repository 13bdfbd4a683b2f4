"""The kernels against their peers: `python -m benchmarks.kernels [--quick] [--device DEVICE] [--json FILE]`.

One core, the best of several runs of each contender, taken in turn; all results are checked for equality.
With a GPU (`--device cuda`, or `auto` where there is one) a row for each step of each kernel, and for torch
and CuPy where they can be imported; only there its goals are judged. The emulator shows equal results alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import kernels
from benchmarks import kernel_table
from benchmarks.harness import Goal, console, finish, show_table
from benchmarks.kernel_cases import CASES
from infra.settings import DEVICES
from kernels import reference
from kernels.cpu.projection import cosine_distance, reconstruction_error
from kernels.devices import chosen
from kernels.dispatch import Device
from kernels.tuner.roofline import plot
from schemas.catalogue import MODEL_VERSIONS, SKETCHES
from schemas.event import Event, derive
from streams.reference import DECIMALS
from streams.scoring import Scoring
from streams.task import HOUR_MS, DriftPolicy, Numeric, Task

BINS = 20
COLUMNS = 9
PARTITIONS = 4
TIMES_NUMPY = 10
"""A histogram is so many times as fast as NumPy's fastest way, at least."""
TIMES_DISTANCES = 1
"""A window is merged, checked, measured and said in so much of what NumPy takes for its distances alone."""

Work = Callable[[], Any]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the data")
    parser.add_argument("--device", choices=DEVICES, default="auto", help="beside the processor")
    parser.add_argument(
        "--only", metavar="NAME", help="cases whose name has this, and nothing else"
    )
    parser.add_argument("--size", type=int, help="elements of a case, here and on a GPU")
    parser.add_argument("--roofline", type=Path, help="draw the kernels under their roof (PNG)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    out = console()
    device = chosen(arguments.device)
    report: dict[str, Any] = {}
    goals: list[Goal] = []
    if arguments.only is None:
        report, goals = _streams(out, arguments.quick)
    report["kernels"], more_goals = _all_kernels(out, device, arguments)
    return finish(out, goals + more_goals, report, arguments.json)


def _streams(out: Console, quick: bool) -> tuple[dict[str, Any], list[Goal]]:
    """What windows and scoring run, on the processor, and a judged window as a whole."""
    rows = 200_000 if quick else 2_000_000
    figures = {
        "histogram": _histogram(rows),
        "histogram, rows of 4 windows mixed": _mixed(rows),
        "categories": _categories(rows),
        "moments": _moments(rows),
        "reconstruction error, 8 features": _errors(rows // 4, 8, 4),
        "reconstruction error, 384": _errors(rows // 200, 384, 16),
        "cosine distance, 384": _cosines(rows // 200, 384),
        "PSI + KS + JS, pairs": _distances(rows // 200),
    }
    table = [
        [name, f"{units / mine:,.0f}", f"{peer / mine:.1f}", against]
        for name, (units, mine, peer, against) in figures.items()
    ]
    show_table(out, "Kernels, one core", ["kernel", "values/s", "x NumPy", "NumPy"], table)
    per_window, distances = _scoring(60 if quick else 300)
    out.print(
        f"scoring: {per_window:.3f} ms CPU per judged window of {COLUMNS} columns in {PARTITIONS} sketches;"
        f" NumPy takes {distances:.3f} ms for its PSI, KS and JS alone"
    )
    _, mine, peer, against = figures["histogram"]
    goals = [
        Goal(
            f"a histogram of {BINS} bins {TIMES_NUMPY}x as fast as {against} or more",
            f"{peer / mine:.1f}x",
            peer >= TIMES_NUMPY * mine,
        ),
        Goal(
            f"a window judged in {TIMES_DISTANCES}x of what NumPy takes for its distances or less",
            f"{per_window / distances:.2f}x",
            per_window <= TIMES_DISTANCES * distances,
        ),
    ]
    report: dict[str, Any] = {
        name: {"values_per_s": units / mine, "times_numpy": peer / mine}
        for name, (units, mine, peer, _) in figures.items()
    }
    return report | {"ms_per_window": per_window, "ms_of_distances_by_numpy": distances}, goals


def _all_kernels(
    out: Console, device: Device | None, arguments: argparse.Namespace
) -> tuple[list[dict[str, Any]], list[Goal]]:
    """The table of every kernel, here and on a device; the roofline of what was timed last."""
    makers = [make for make in CASES if (arguments.only or "") in make.__name__]
    n = arguments.size or kernel_table.SIZES["quick" if arguments.quick else "cpu"]
    rows = kernel_table.on_processor(n, makers)
    goals: list[Goal] = []
    where, roof = "cpu", kernel_table.processor_roof()
    if device is not None:
        timed = device.kind == "cuda"
        n = (timed and arguments.size) or kernel_table.SIZES[device.kind]
        on_device, goals, device_roof = kernel_table.on_device(device, n, makers)
        rows += on_device
        if timed:
            where, roof = "cuda", device_roof
    else:
        out.print("no GPU: the table has the processor's rows alone", highlight=False)
    title = f"All kernels, {datetime.now(UTC):%Y-%m-%d}"
    if device is not None:
        title += f", {device.name} {device.runtime.properties.driver}".rstrip()
    show_table(out, title, kernel_table.HEADER, [row.cells for row in rows])
    out.print(
        f"{roof.device}: {roof.bandwidth / 1e9:.1f} GB/s, {roof.peak / 1e9:,.0f} G operations/s"
        f" ({roof.how})",
        highlight=False,
    )
    if arguments.roofline is not None:
        plot(kernel_table.points(rows, where), roof, arguments.roofline)
    said = [
        {"kernel": r.case.name, "shape": r.case.shape, "on": r.where, "by": r.name}
        | {"seconds": r.seconds, "bytes": r.case.bytes, "operations": r.case.operations}
        for r in rows
    ]
    return said, goals


Figures = tuple[int, float, float, str]
"""Values, seconds of the kernel, seconds of NumPy, and what NumPy was asked for."""


def _histogram(rows: int) -> Figures:
    x, edges = _column(rows)
    slot = np.zeros(rows, np.int32)
    peers = {
        "np.histogram": lambda: np.histogram(x, np.concatenate(([-np.inf], edges, [np.inf])))[0],
        "searchsorted + bincount": lambda: np.bincount(
            np.searchsorted(edges, x, side="right"), minlength=BINS
        ),
    }
    best: tuple[float, float, str] | None = None
    for name, peer in peers.items():
        _same(_counted(x, edges, slot, 1)[0], peer())
        mine, theirs = _in_turn(lambda: _counted(x, edges, slot, 1), peer)
        if best is None or theirs < best[1]:
            best = mine, theirs, name
    assert best is not None
    return rows, *best


def _mixed(rows: int) -> Figures:
    x, edges = _column(rows)
    slot = np.random.default_rng(2).integers(0, 4, rows).astype(np.int32)

    def peer() -> Any:
        index = np.searchsorted(edges, x, side="right") + slot * BINS
        return np.bincount(index, minlength=4 * BINS).reshape(4, BINS)

    _same(_counted(x, edges, slot, 4), peer())
    return rows, *_in_turn(lambda: _counted(x, edges, slot, 4), peer), "searchsorted + bincount"


def _categories(rows: int) -> Figures:
    code = np.random.default_rng(3).integers(-1, 16, rows).astype(np.int32)
    lut, slot = np.arange(16, dtype=np.int32), np.zeros(rows, np.int32)

    def mine() -> Any:
        counts, missing = np.zeros((1, 17), np.int64), np.zeros(1, np.int64)
        kernels.tally(code, lut, slot, counts, missing)
        return counts[0]

    def peer() -> Any:
        return np.bincount(lut[code[code >= 0]], minlength=17)

    _same(mine(), peer())
    return rows, *_in_turn(mine, peer), "bincount of a look-up"


def _moments(rows: int) -> Figures:
    x, sizes = _column(rows)[0], np.array([rows])

    def mine() -> Any:
        sums, ranges = np.zeros((1, 4), np.int64), kernels.no_ranges(1)
        kernels.add_moments(x, sizes, 0.0, 1.0, sums, ranges)
        return np.array([*(kernels.mean_and_variance(sums[0], 0.0, 1.0) or ()), *ranges[0]])

    def peer() -> Any:
        return np.array([x.mean(), x.var(), x.min(), x.max()])

    _same(mine().round(3), peer().round(3))
    return rows, *_in_turn(mine, peer), "mean, variance, min, max"


def _errors(rows: int, features: int, components: int) -> Figures:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(features, rows))
    w = np.linalg.qr(rng.normal(size=(features, components)))[0].T.copy()
    center, scale = rng.normal(size=features), rng.random(features) + 0.5

    def mine() -> Any:
        return reconstruction_error(x, center, scale, w, impute=True)

    def peer() -> Any:
        z = (x - center[:, None]) / scale[:, None]
        return np.linalg.norm(z - w.T @ (w @ z), axis=0)

    _same(mine().round(6), peer().round(6))
    return rows, *_in_turn(mine, peer), "BLAS, whose bits depend on the batch"


def _cosines(rows: int, features: int) -> Figures:
    rng = np.random.default_rng(5)
    x, centroid = rng.normal(size=(features, rows)), rng.normal(size=features)
    centroid /= np.linalg.norm(centroid)

    def mine() -> Any:
        return cosine_distance(x, centroid)

    def peer() -> Any:
        return 1 - (centroid @ x) / np.linalg.norm(x, axis=0)

    _same(mine().round(9), peer().round(9))
    return rows, *_in_turn(mine, peer), "BLAS, whose bits depend on the batch"


def _distances(pairs: int) -> Figures:
    rng = np.random.default_rng(6)
    p = rng.multinomial(1000, np.ones(BINS) / BINS, pairs)
    q = rng.multinomial(20_000, np.ones(BINS) / BINS, pairs)
    sizes = np.full(pairs, BINS)
    few = range(min(pairs, 300))

    def peer() -> Any:
        return [
            [round(statistic(p[i], q[i]), DECIMALS) for i in few]
            for statistic in (reference.psi, reference.ks, reference.js)
        ]

    found = kernels.distances(p, q, sizes)
    _same(np.array([found.psi, found.ks, found.js])[:, : len(few)], np.array(peer()))
    mine, theirs = _in_turn(lambda: kernels.distances(p, q, sizes), peer)
    return pairs, mine, theirs / len(few) * pairs, "kernels.reference, pair by pair"


def _scoring(windows: int) -> tuple[float, float]:
    """CPU milliseconds per judged window, events fed one by one as the live runner does; and of its
    distances alone by NumPy, column by column.
    """
    task = Task(
        "kernels",
        tuple(Numeric(f"f{i}") for i in range(COLUMNS - 1)),
        "late",
        drift=DriftPolicy(window_hours=1),
    )
    model, sketches = _sketches(task, windows)
    wholes = [column["counts"] for column in model.data["reference"]]
    counts = [[column["counts"] for column in event.data["columns"]] for event in sketches]
    best = alone = float("inf")
    for _ in range(3):
        scoring = Scoring(task, PARTITIONS)
        state, said = scoring.apply(scoring.initial(), [model]), 0
        begin = time.thread_time()
        for event in sketches:
            state = scoring.apply(state, [event])
            said += len(scoring.react(state, event))
        best = min(best, time.thread_time() - begin)
        assert said == windows * (COLUMNS + 1), said
        begin = time.thread_time()
        for columns in counts[::PARTITIONS]:
            for count, whole in zip(columns, wholes, strict=True):
                for statistic in (reference.psi, reference.ks, reference.js):
                    statistic(count, whole)
        alone = min(alone, time.thread_time() - begin)
    return 1000 * best / windows, 1000 * alone / windows


def _sketches(task: Task, windows: int) -> tuple[Event, list[Event]]:
    rng = np.random.default_rng(7)
    names = [*task.vector, "score"]
    version = f"{task.name}-1"
    whole = [
        {"name": name, "edges": list(map(float, range(BINS - 1))), "categories": [], "swing": 0.0}
        | {"counts": rng.multinomial(20_000, np.ones(BINS) / BINS).tolist(), "missing": 2}
        for name in names
    ]
    about: dict[str, Any] = {"caused_by": None, "task": task.name, "model_version": version}
    model = derive(
        MODEL_VERSIONS,
        "ModelRegistered",
        *(version,),
        time=0,
        reference=whole,
        reference_count=20_000,
        metrics={},
        **about,
    )
    sketches = []
    for window in range(windows):
        for partition in range(PARTITIONS):
            columns = [
                {"name": name, "missing": int(rng.integers(0, 2)), "unseen": 0}
                | {"counts": rng.multinomial(250, np.ones(BINS) / BINS).tolist()}
                for name in names
            ]
            sketches.append(
                derive(
                    SKETCHES,
                    "SketchTaken",
                    *(version, window, partition),
                    time=(window + 1) * HOUR_MS,
                    kind="inputs",
                    window_start=window * HOUR_MS,
                    window_end=(window + 1) * HOUR_MS,
                    partition=partition,
                    revision=0,
                    count=250,
                    columns=columns,
                    totals={},
                    **about,
                )
            )
    return model, sketches


def _column(rows: int) -> tuple[Any, Any]:
    x = np.random.default_rng(1).normal(size=rows)
    return x, np.quantile(x, np.arange(1, BINS) / BINS, method="inverted_cdf")


def _counted(x: Any, edges: Any, slot: Any, slots: int) -> Any:
    return kernels.histograms([x], [edges], slot, slots)[0][:, 0]


def _same(mine: Any, theirs: Any) -> None:
    assert np.array_equal(mine, theirs), "the contenders' results differ"


def _in_turn(mine: Work, peer: Work, runs: int = 7) -> tuple[float, float]:
    """The best CPU seconds of each, in turn: what disturbs one disturbs the other."""
    best = [float("inf")] * 2
    for _ in range(runs):
        for which, work in enumerate((mine, peer)):
            begin = time.thread_time()
            work()
            best[which] = min(best[which], time.thread_time() - begin)
    return best[0], best[1]


if __name__ == "__main__":
    raise SystemExit(main())
