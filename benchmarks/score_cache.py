"""What it saves serving to know a row already, and what the looks cost, beside the same models without.

    python -m benchmarks.score_cache [--quick] [--json FILE]

Three models: boosted trees, a linear model over words, and a transformer as large as MiniLM (384 wide, 6
layers, 64 tokens; random weights: how long it takes does not depend on them). Each scores a stream in batches
of 8 rows, of which a share stood in the stream before, with the cache of `models.serving.cache` and without,
in turn, batch by batch; times are medians, scores are compared to the bit. Exit status 0 if every goal was
met, 1 if not.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from models import recipes
from models.dataset import Dataset
from models.scorer import Scorer
from models.serving.cache import WORTH_S, CachedScorer, row_seconds
from streams.task import Numeric, Task, Text

BATCH = 8
SHARES = (0.0, 0.1, 0.5)
ENTRIES = 10_000
WORDS = [
    "late",
    "lost",
    "gate",
    "seat",
    "great",
    "kind",
    "flight",
    "crew",
    "bag",
    "meal",
    "never",
    "again",
]
COSTS = 1.05
"""Of the time without, at most, where no row comes again: looks are a hundredth, the rest is noise."""
SAVES = 1.6
"""Times as fast, at least, where every second row comes again."""


def numbers(chance: random.Random) -> dict[str, Any]:
    return {f"n{index}": chance.random() for index in range(12)}


def mail(chance: random.Random) -> dict[str, Any]:
    return {"text": " ".join(chance.choices(WORDS, k=20))}


def table_task(text: bool) -> Task:
    features = (Text("text"),) if text else tuple(Numeric(f"n{index}") for index in range(12))
    return Task("texts" if text else "table", features, "label")


def dataset(task: Task, count: int, seed: int) -> Dataset:
    chance = random.Random(seed)
    made = [(mail if task.texts else numbers)(chance) for _ in range(count)]
    columns = {
        name: np.array([one[name] for one in made], object if task.texts else np.float64)
        for name in task.vector
    }
    labels = np.array(
        [("late" in one["text"]) if task.texts else one["n0"] * one["n1"] > 0.25 for one in made],
        np.int8,
    )
    times = np.arange(count, dtype=np.int64) * 60_000
    ids = np.array([str(number) for number in range(count)], object)
    return Dataset(ids, times, labels, times + 1, columns)


def bert(folder: Path) -> str:
    """A folder with a BERT of MiniLM's size and a tokenizer of a few words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    vocabulary = {
        word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])
    }
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(folder)
    config = BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1_536
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return str(folder)


def contenders(folder: Path) -> Iterator[tuple[str, Task, Scorer]]:
    table, texts = table_task(text=False), table_task(text=True)
    trees = {"iterations": 100, "leaves": 31, "min_leaf": 20}
    file = recipes.fit(table, dataset(table, 5_000, 1), "gradient_boosting", trees, 7)
    yield "boosted trees", table, Scorer.from_bytes(file)
    file = recipes.fit(texts, dataset(texts, 500, 2), "text_linear", {"length": 64}, 7)
    yield "words, linear", texts, Scorer.from_bytes(file)
    given = {"weights": bert(folder), "length": 64, "epochs": 1}
    file = recipes.fit(texts, dataset(texts, 64, 3), "text_transformer", given, 7)
    yield "transformer", texts, Scorer.from_bytes(file)


def stream(task: Task, batches: int, share: float, seed: int) -> list[list[dict[str, Any]]]:
    """Batches of BATCH rows; each row is, with a chance of `share`, one that a batch before had."""
    chance = random.Random(seed)
    fresh = mail if task.texts else numbers
    past: list[dict[str, Any]] = []
    found = []
    for _ in range(batches):
        batch = [
            chance.choice(past) if past and chance.random() < share else fresh(chance)
            for _ in range(BATCH)
        ]
        past += batch
        found.append(batch)
    return found


def timed(scorer: Any, batches: Sequence[Sequence[Any]]) -> tuple[list[float], list[float]]:
    """Seconds of each batch; all scores."""
    seconds, scores = [], []
    for batch in batches:
        began = time.perf_counter()
        made = scorer.score(batch)
        seconds.append(time.perf_counter() - began)
        scores += made.tolist()
    return seconds, scores


def measure(name: str, task: Task, scorer: Scorer, share: float, batches: int) -> dict[str, Any]:
    """Both in turn, each batch of one right after that of the other."""
    asked = stream(task, batches, share, seed=11)
    found = [0, 0]

    def count(hits: int, misses: int) -> None:
        found[0], found[1] = found[0] + hits, found[1] + misses

    cached = CachedScorer(scorer, ENTRIES, count)
    timed(scorer, asked[:3])
    plain, known, same = [], [], True
    for batch in asked:
        without, expected = timed(scorer, [batch])
        with_it, scores = timed(cached, [batch])
        plain += without
        known += with_it
        same &= scores == expected
    return {
        "model": name,
        "row_us": 1e6 * row_seconds(scorer),
        "share": share,
        "hits": found[0] / sum(found),
        "plain_us": 1e6 * statistics.median(plain) / BATCH,
        "cached_us": 1e6 * statistics.median(known) / BATCH,
        "median_ratio": statistics.median(w / p for w, p in zip(known, plain, strict=True)),
        "same": same,
    }


def look_us(task: Task, scorer: Scorer) -> float:
    """What a look costs, us a row: a batch of which every row is known, without its encoding."""
    cached = CachedScorer(scorer, ENTRIES, lambda *_: None)
    (batch,) = stream(task, 1, 0.0, seed=12)
    cached.score(batch)
    known = min(timed(cached, [batch] * 50)[0])
    began = []
    for _ in range(50):
        start = time.perf_counter()
        scorer.encoder.encode(batch)
        began.append(time.perf_counter() - start)
    return 1e6 * (known - min(began)) / BATCH


def goals(rows: Sequence[dict[str, Any]]) -> list[tuple[str, bool]]:
    slow = [row for row in rows if row["model"] == "transformer"]
    quick = [row for row in rows if row["model"] != "transformer"]
    worth = 1e6 * WORTH_S
    none = next(row for row in slow if row["share"] == 0.0)
    half = next(row for row in slow if row["share"] == 0.5)
    return [
        ("equal scores, to the bit", all(row["same"] for row in rows)),
        (
            f"a transformer is cached: {worth:.0f} us a row or more",
            all(r["row_us"] >= worth for r in slow),
        ),
        ("trees and words are not", all(r["row_us"] < worth for r in quick)),
        (f"no row known: at most {COSTS} times the time", none["median_ratio"] <= COSTS),
        (
            f"half of them: at least {SAVES} times as fast",
            half["plain_us"] >= SAVES * half["cached_us"],
        ),
    ]


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m benchmarks.score_cache")
    options.add_argument("--quick", action="store_true", help="fewer batches")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the same figures")
    arguments = options.parse_args()
    console = Console(width=110)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, task, scorer in contenders(Path(folder)):
            batches = (25 if arguments.quick else 100) * (1 if name == "transformer" else 10)
            look = look_us(task, scorer)
            for share in SHARES:
                rows.append({**measure(name, task, scorer, share, batches), "look_us": look})
                console.print(f"{name}, {share:.0%} known: done")
    table = Table(
        "model",
        "the model, us a row",
        "a look",
        "known",
        "without, us",
        "with, us",
        "times as fast",
    )
    for row in rows:
        table.add_row(
            row["model"], f"{row['row_us']:,.1f}", f"{row['look_us']:.1f}", f"{row['hits']:.0%}",
            f"{row['plain_us']:,.1f}", f"{row['cached_us']:,.1f}",
            f"{row['plain_us'] / row['cached_us']:.2f}",
        )  # fmt: skip
    console.print(table)
    met = goals(rows)
    for text, holds in met:
        console.print(f"{'met' if holds else 'NOT MET'}: {text}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows, "goals": dict(met)}, indent=2) + "\n")
    failed = [text for text, holds in met if not holds]
    console.print("all goals met" if not failed else f"goals not met: {len(failed)}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
