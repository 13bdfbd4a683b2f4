"""How soon a planted shift is found: driftlog, river, evidently and NannyML over the same windows.

Each stream is a reference of calm windows, then calm windows, then the shift. A monitor's delay is counted in
rows from the shift to its first alarm at or after it. What each alarms at without a shift stands beside it: a
short delay of a monitor that often cries is worth little.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.monitors.false_alarms import outcomes
from models.gates import log_loss
from streams.drift import Yardstick, compare
from streams.performance import change_detected, measure
from streams.reference import build_reference, histogram_with_missing, label_column
from streams.task import DriftPolicy, Numeric, Task
from streams.window_bins import ModelBins

Array = np.ndarray[Any, Any]

WINDOW = 250
KNOWN, CALM, SHIFTED = 20, 8, 12
"""Windows of the reference, without a shift, and with it."""
SPREAD = 4
"""Windows that a gradual shift takes."""
NUMBERS = ("x0", "x1", "x2", "x3")
CATEGORY = "group"
GROUPS = np.array(["a", "b", "c", "d", "e"], object)
SHARES = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
KINDS: dict[str, str] = {**dict.fromkeys(NUMBERS, "double"), CATEGORY: "string"}
TASK = Task(
    "shifted",
    tuple(Numeric(name) for name in NUMBERS),
    "y",
    drift=DriftPolicy(window_hours=1, min_psi=0.0, multivariate=True),
)
SHIFTS = (
    "mean + 0.25 sigma",
    "mean + 0.5 sigma",
    "mean + 1 sigma",
    "scale x 1.5",
    "one category grows",
    "20 % missing",
    "correlation flips",
    "label share + 15 %",
    "concept, same inputs",
)
NONE = "none"
PEERS = Path(__file__).parent / "peers"
NEVER = SHIFTED * WINDOW + 1.0
"""Rows that stand for a shift that was not found."""
PACES = ("abrupt", "gradual")
Say = Callable[[str], None]


def rows(rng: np.random.Generator, shift: str, reached: Array) -> dict[str, Array]:
    """Columns, 'score' and 'label' of rows, the shift having `reached` some of them (bool)."""
    n = len(reached)
    x = rng.normal(size=(4, n))
    x[1] = 0.8 * x[0] + 0.6 * x[1]
    group = np.searchsorted(np.cumsum(SHARES), rng.random(n)).clip(max=4)
    if shift.startswith("mean"):
        x[2] += reached * float(shift.split()[2])
    elif shift.startswith("scale"):
        x[2] *= np.where(reached, 1.5, 1.0)
    elif shift.startswith("one category"):
        group = np.where(reached & (rng.random(n) < 0.2), 3, group)
    elif shift.startswith("correlation"):
        x[1] = np.where(reached, x[1] - 1.6 * x[0], x[1])  # 0.8 x0 becomes -0.8 x0
    logit = 1.2 * x[0] - 0.8 * x[3]
    score = 1 / (1 + np.exp(-logit))
    truth = score
    if shift.startswith("label"):
        truth = np.where(reached, np.minimum(score + 0.15, 1), score)
    elif shift.startswith("concept"):
        truth = np.where(reached, 1 / (1 + np.exp(-(1.2 * x[0] + 0.8 * x[3]))), score)
    label = (rng.random(n) < truth).astype(np.int64)
    if shift.startswith("20 %"):
        x[2] = np.where(reached & (rng.random(n) < 0.2), np.nan, x[2])
    return {**dict(zip(NUMBERS, x, strict=True)), CATEGORY: group, "score": score, "label": label}


def stream(seed: int, shift: str, gradual: bool) -> dict[str, Array]:
    """All windows of one stream, one after the other."""
    rng = np.random.default_rng([seed, len(shift), gradual])
    n = (KNOWN + CALM + SHIFTED) * WINDOW
    since = (np.arange(n) - (KNOWN + CALM) * WINDOW) / (SPREAD * WINDOW)
    reached = since >= 0
    if gradual:
        reached &= rng.random(n) < since
    return rows(rng, shift, reached)


def measured(
    streams: int,
    peers: Mapping[str, Path | None],
    say: Say,
    *,
    paces: Sequence[str] = PACES,
    kswin: bool = False,
    at_once: int = 1,
) -> list[dict[str, Any]]:
    """A row for each monitor, shift and pace; the calm windows of all streams are the shift 'none'.

    `kswin`: river's KSWIN too, which tests anew at each of 10,000 rows of each column and takes minutes.
    `at_once`: so many shifts side by side, as the peers are processes of their own.
    """
    runners: dict[str, Callable[[list[dict[str, Array]]], list[Array]]] = {
        "driftlog": lambda made: [driftlog_alarms(one) for one in made],
        **{
            name: (lambda made, name=name: [river_alarms(one, name) for one in made])
            for name in ("river ADWIN", "river PageHinkley", *(("river KSWIN",) if kswin else ()))
        },
    }
    for name, python in peers.items():
        if python is None:
            say(f"{name}: no Python was named that has it (--{name}); left out")
        else:
            runners[name] = lambda made, name=name, python=python: peer_alarms(made, name, python)
    found = []
    calm: dict[str, list[Array]] = {name: [] for name in runners}
    jobs = [(shift, pace) for pace in paces for shift in SHIFTS]

    def one(job: tuple[str, str]) -> dict[str, list[Array]]:
        shift, pace = job
        made = [stream(seed, shift, pace == "gradual") for seed in range(streams)]
        alarms = {name: run(made) for name, run in runners.items()}
        say(f"{shift}, {pace}")
        return alarms

    with ThreadPoolExecutor(at_once) as pool:
        for (shift, pace), by_name in zip(jobs, pool.map(one, jobs), strict=True):
            for name, alarms in by_name.items():
                calm[name] += [each[:CALM] for each in alarms]
                about = {"monitor": name, "shift": shift, "gradual": pace == "gradual"}
                found.append({**_summary(alarms), **about})
    for name, alarms in calm.items():
        share = float(np.concatenate(alarms).mean())
        found.insert(
            0, {"monitor": name, "shift": NONE, "gradual": False, "false_alarms": share, "score": 0}
        )
    return found


def _summary(alarms: Sequence[Array]) -> dict[str, Any]:
    """A row for each monitor, shift and pace; the calm windows of all streams are the shift 'none'."""
    delays = [
        float((np.flatnonzero(one[CALM:])[0] + 1) * WINDOW) if one[CALM:].any() else NEVER
        for one in alarms
    ]
    found = [delay for delay in delays if delay < NEVER]
    return {
        "found": len(found) / len(delays),
        "median_rows": float(np.median(found)) if found else None,
        "score": float(np.median(delays)),
    }


def driftlog_alarms(data: Mapping[str, Array]) -> Array:
    """(CALM + SHIFTED,) bool: drift of any column, label or derived column, or a vote of the loss."""
    window = np.arange(len(data["score"])) // WINDOW
    known = window < KNOWN
    columns = {n: (GROUPS[data[n]] if n == CATEGORY else data[n]) for n in KINDS}
    reference = build_reference(
        {n: v[known] for n, v in columns.items()},
        KINDS,
        data["score"][known],
        window[known].tolist(),
        TASK.drift,
        data["label"][known],
    )
    label = label_column(reference)
    inputs = [column for column in reference if column is not label]
    yardstick = Yardstick(inputs, len(reference), TASK.drift)
    truth = Yardstick([label], len(reference), TASK.drift)
    bins = ModelBins(reference)
    count = CALM + SHIFTED
    later = {f"features.{n}": data[n][~known] for n in KINDS} | {"score": data["score"][~known]}
    later[f"features.{CATEGORY}"] = data[CATEGORY][~known].astype(np.int32)
    tallies = [bins.tallies() for _ in range(count)]
    texts = {f"features.{CATEGORY}": list(GROUPS)}
    bins.add(tallies, later, texts, (window[~known] - KNOWN).astype(np.int32))
    windows = [[histogram_with_missing(c) for c in bins.describe(tally)] for tally in tallies]
    drifts = compare([(yardstick, columns) for columns in windows], TASK.drift)
    expected = log_loss(data["label"][known], data["score"][known])
    alarms, pressures = np.zeros(count, np.bool_), []
    for at in range(count):
        mine = window == KNOWN + at
        labels = [*np.bincount(data["label"][mine], minlength=2).tolist(), 0]
        of_label = compare([(truth, [labels])], TASK.drift)[0]
        loss = measure(
            outcomes(data["score"][mine], data["label"][mine]), expected, TASK, known.sum()
        )
        pressures.append(loss.pressure)
        drifted = any(drift.drifted for drift in [*drifts[at], *of_label])
        alarms[at] = drifted or loss.degraded or change_detected(pressures)
    return alarms


def river_alarms(data: Mapping[str, Array], name: str) -> Array:
    """One detector a numeric column and one on the error, with river's defaults; an alarm of any of them."""
    from river import drift

    kind = getattr(drift, name.split()[1])
    seed = {"seed": 1} if name.endswith("KSWIN") else {}
    error = (data["score"] >= 0.5) != data["label"].astype(bool)
    windows = np.zeros(KNOWN + CALM + SHIFTED, np.bool_)
    for values in (*(data[n] for n in NUMBERS), data[CATEGORY].astype(float), error.astype(float)):
        detector = kind(**seed)
        for row, value in enumerate(values.tolist()):
            if value != value:
                continue  # river's detectors take no missing values
            detector.update(value)
            if detector.drift_detected:
                windows[row // WINDOW] = True
    return windows[KNOWN:]


def peer_alarms(made: Sequence[Mapping[str, Array]], name: str, python: Path) -> list[Array]:
    """The peer's alarms, by its own Python: it reads the streams from files and writes a JSON list."""
    with tempfile.TemporaryDirectory() as folder:
        for place, data in enumerate(made):
            columns = {n: (GROUPS[v] if n == CATEGORY else v) for n, v in data.items()}
            pq.write_table(pa.table(columns), Path(folder) / f"{place:04d}.parquet")
        told = {"window": WINDOW, "known": KNOWN, "columns": list(KINDS)}
        (Path(folder) / "about.json").write_text(json.dumps(told))
        done = subprocess.run(
            [str(python), str(PEERS / f"{name}_arm.py"), folder],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{name}: its arm failed: {done.stderr.strip().splitlines()[-1]}")
        alarms = json.loads((Path(folder) / "alarms.json").read_text())
    return [np.array(one, np.bool_) for one in alarms]
