"""Run by a Python that has evidently: for each line on stdin, its default drift test of current.parquet."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset


def main() -> None:
    warnings.filterwarnings("ignore")
    folder = Path(sys.argv[1])
    for _ in sys.stdin:
        reference = pd.read_parquet(folder / "reference.parquet")
        current = pd.read_parquet(folder / "current.parquet")
        snapshot = Report([DataDriftPreset()]).run(current, reference)
        found = json.loads(snapshot.json())["metrics"]
        count = next(m for m in found if "DriftedColumnsCount" in m["metric_name"])
        share = float(count["value"]["share"])
        print(json.dumps({"drifted": share >= 0.5, "share": share}), flush=True)


if __name__ == "__main__":
    main()
