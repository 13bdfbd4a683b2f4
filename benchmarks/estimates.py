"""Performance without labels beside NannyML's CBPE, on streams where the truth is known.

    python -m benchmarks.estimates --nannyml PYTHON [--quick] [--json FILE]

PYTHON is an interpreter of an environment of its own that has nannyml (its dependencies do not fit ours).
Each stream has a reference and windows whose scores shift ('calm': they do not; 'uncalibrated': they are too
sure, in the reference as well). In 'concept' their meaning turns, which nobody can see without labels. Both
estimate AUC and accuracy of each window; the error is the mean distance to what the labels say. Exit status 0
if every goal was met, 1 if not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.metrics import accuracy_score, roc_auc_score

from kernels.reference import bin_index
from streams.estimate import calibration_map, estimate

ROWS = 1_000
REFERENCE = 20_000
STREAMS = ("calm", "shift", "uncalibrated", "concept")
WITHIN = 0.002
"""Mean error that may be more than the peer's: both estimate from finite references."""
COVERED = 0.9
"""Share of windows whose truth must lie in our 95 % band where scores mean what they used to."""
PEER = r"""
import sys, json, warnings, time
warnings.filterwarnings("ignore")
import pandas as pd, nannyml as nml
folder, rows = sys.argv[1], int(sys.argv[2])
frame = pd.read_csv(folder + "/stream.csv")
reference, analysis = frame[frame.window < 0].copy(), frame[frame.window >= 0].copy()
began = time.perf_counter()
peer = nml.CBPE(y_pred_proba="score", y_pred="decided", y_true="label", problem_type="classification_binary",
                metrics=["roc_auc", "accuracy"], chunk_size=rows)
peer.fit(reference)
found = peer.estimate(analysis.drop(columns=["label"])).filter(period="analysis").to_df()
seconds = time.perf_counter() - began
values = {name: found[(theirs, "value")].tolist() for name, theirs in
          (("auc", "roc_auc"), ("accuracy", "accuracy"))}
print(json.dumps({**values, "seconds": seconds, "version": nml.__version__}))
"""


def stream(name: str, windows: int, seed: int) -> tuple[Any, Any, Any]:
    """Scores, labels and windows (-1: reference)."""
    rng = np.random.default_rng(seed)
    parts = []
    for window in range(-1, windows):
        count = REFERENCE if window < 0 else ROWS
        late = 0.0 if window < 0 else window / max(1, windows - 1)
        a = 2.0 + (2.0 * late if name != "calm" else 0.0)
        chance = rng.beta(a, 4.0, count)
        scores = chance**2 / (chance**2 + (1 - chance) ** 2) if name == "uncalibrated" else chance
        if name == "concept":
            chance = (1 - late) * chance + late * (1 - chance)
        labels = (rng.random(count) < chance).astype(np.int8)
        parts.append((scores, labels, np.full(count, window)))
    scores, labels, index = (np.concatenate(each) for each in zip(*parts, strict=True))
    return scores, labels, index


def ours(scores: Any, labels: Any, index: Any, windows: int) -> dict[str, Any]:
    began = time.perf_counter()
    reference = index < 0
    edges = np.unique(np.quantile(scores[reference], np.arange(1, 10) / 10)).tolist()
    bins = calibration_map(scores[reference], labels[reference], edges, 0.5)
    found = []
    for window in range(windows):
        counts = np.bincount(bin_index(scores[index == window], edges), minlength=len(bins))
        found.append(estimate(bins, counts.tolist(), {}))
    return {"estimates": found, "seconds": time.perf_counter() - began}


def theirs(python: str, scores: Any, labels: Any, index: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        rows = np.column_stack([scores, labels, scores >= 0.5, index])
        np.savetxt(
            Path(folder, "stream.csv"), rows, delimiter=",", comments="",
            header="score,label,decided,window", fmt=["%.9f", "%d", "%d", "%d"],
        )  # fmt: skip
        done = subprocess.run(
            [python, "-c", PEER, folder, str(ROWS)], capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise SystemExit(f"estimates: nannyml did not run: {done.stderr.strip().splitlines()[-1]}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def measure(python: str, name: str, windows: int) -> dict[str, Any]:
    scores, labels, index = stream(name, windows, seed=STREAMS.index(name) + 1)
    mine, peer = ours(scores, labels, index, windows), theirs(python, scores, labels, index)
    truth = {
        "auc": [roc_auc_score(labels[index == w], scores[index == w]) for w in range(windows)],
        "accuracy": [
            accuracy_score(labels[index == w], scores[index == w] >= 0.5) for w in range(windows)
        ],
    }
    row: dict[str, Any] = {"stream": name, "windows": windows, "peer": peer["version"]}
    for what, real in truth.items():
        found = [getattr(each, what) for each in mine["estimates"]]
        said = np.array([each.value for each in found])
        row[f"{what}_error"] = float(np.abs(said - real).mean())
        row[f"{what}_error_peer"] = float(np.abs(np.array(peer[what]) - real).mean())
        row[f"{what}_difference"] = float(np.abs(said - peer[what]).max())
        inside = [each.low <= value <= each.high for each, value in zip(found, real, strict=True)]
        row[f"{what}_covered"] = float(np.mean(inside))
    row["seconds"], row["seconds_peer"] = mine["seconds"], peer["seconds"]
    return row


def goals(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    honest = [row for row in rows if row["stream"] != "concept"]
    for what in ("auc", "accuracy"):
        behind = max(row[f"{what}_error"] - row[f"{what}_error_peer"] for row in honest)
        covered = min(row[f"{what}_covered"] for row in honest)
        found += [
            {
                "goal": f"mean error of {what} at most {WITHIN} above NannyML's on every such stream",
                "figures": f"{behind:+.4f} at worst",
                "met": behind <= WITHIN,
            },
            {
                "goal": f"the 95 % band of {what} holds the truth in {COVERED:.0%} of the windows",
                "figures": f"{covered:.0%} at worst",
                "met": covered >= COVERED,
            },
        ]
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="estimates", description=__doc__)
    parser.add_argument("--nannyml", required=True, metavar="PYTHON", help="its interpreter")
    parser.add_argument("--quick", action="store_true", help="20 windows a stream instead of 100")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the same figures there")
    asked = parser.parse_args(arguments)
    windows = 20 if asked.quick else 100
    rows = [measure(asked.nannyml, name, windows) for name in STREAMS]
    told = goals(rows)
    table = Table("stream", "measure", "error", "NannyML", "largest difference", "in our band")
    for row in rows:
        for what in ("auc", "accuracy"):
            table.add_row(
                row["stream"],
                what,
                f"{row[f'{what}_error']:.4f}",
                f"{row[f'{what}_error_peer']:.4f}",
                f"{row[f'{what}_difference']:.4f}",
                f"{row[f'{what}_covered']:.0%}",
            )
    console = Console(highlight=False)
    console.print(table)
    seconds, peers = (sum(row[name] for row in rows) for name in ("seconds", "seconds_peer"))
    console.print(f"{seconds:.2f} s; NannyML {rows[0]['peer']} {peers:.2f} s, without its import")
    for goal in told:
        console.print(f"{'met   ' if goal['met'] else 'missed'} {goal['goal']}: {goal['figures']}")
    missed = sum(not goal["met"] for goal in told)
    console.print("every goal was met" if not missed else f"{missed} of {len(told)} goals missed")
    if asked.json:
        asked.json.write_text(json.dumps({"rows": rows, "goals": told}, indent=1) + "\n", "utf-8")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
