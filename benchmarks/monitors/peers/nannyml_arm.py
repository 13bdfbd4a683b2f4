"""Run by a Python that has NannyML: univariate drift, PCA reconstruction, realised ROC AUC; its defaults."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import nannyml
import numpy as np
import pandas as pd


def main() -> None:
    warnings.filterwarnings("ignore")
    folder = Path(sys.argv[1])
    about = json.loads((folder / "about.json").read_text())
    size, known, columns = about["window"], about["known"], about["columns"]
    found = []
    for file in sorted(folder.glob("*.parquet")):
        rows = pd.read_parquet(file)
        rows["decided"] = (rows["score"] >= 0.5).astype(int)
        reference, later = rows.iloc[: known * size], rows.iloc[known * size :]
        alarms = np.zeros(len(later) // size, bool)
        for calculator in (
            nannyml.UnivariateDriftCalculator(column_names=[*columns, "score"], chunk_size=size),
            nannyml.DataReconstructionDriftCalculator(column_names=columns, chunk_size=size),
            nannyml.PerformanceCalculator(
                metrics=["roc_auc"],
                y_true="label",
                y_pred="decided",
                y_pred_proba="score",
                problem_type="classification_binary",
                chunk_size=size,
            ),
        ):
            calculator.fit(reference)
            frame = calculator.calculate(later).filter(period="analysis").to_df()
            flags = [
                c for c in frame.columns if "alert" in str(c[-1] if isinstance(c, tuple) else c)
            ]
            alarms |= frame[flags].astype(bool).any(axis=1).to_numpy()[: len(alarms)]
        found.append(alarms.tolist())
    (folder / "alarms.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
