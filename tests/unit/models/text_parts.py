"""Texts with labels that can be learned, and a very small BERT of random weights in a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.dataset import Dataset
from streams.task import Category, Numeric, Task, Text
from streams.texts import words

PLAIN = words("the a to my of at it we you flight gate seat")
BAD = words("late lost rude never broken")
GOOD = words("great thanks kind early smooth")
MAIL = Task("mail", (Text("body"), Numeric("hour"), Category("desk")), "is a complaint")


def mails(count: int = 600, seed: int = 1) -> Dataset:
    """Complaints have some of the bad words, more of them at night; some mails are empty or missing."""
    chance = np.random.default_rng(seed)
    labels = (chance.random(count) < 0.4).astype(np.int8)
    body = np.empty(count, object)
    for row, label in enumerate(labels):
        said = list(chance.choice(PLAIN, chance.integers(3, 15)))
        said += list(chance.choice(BAD if label else GOOD, chance.integers(0, 4)))
        body[row] = " ".join(chance.permutation(said)) + "!"
    body[chance.random(count) < 0.02] = None
    body[chance.random(count) < 0.02] = ""
    hour = chance.integers(0, 24, count) * 0.5 + 12 * labels * (chance.random(count) < 0.3)
    hour[chance.random(count) < 0.05] = np.nan
    desk = chance.choice(np.array(["a", "b", None], object), count)
    times = np.arange(count, dtype=np.int64) * 60_000
    ids = np.array([f"{seed}-{n}" for n in range(count)], object)
    return Dataset(ids, times, labels, times + 1, {"body": body, "hour": hour, "desk": desk})


def tiny_bert(folder: Path, hidden: int = 32, layers: int = 2) -> str:
    """A folder as `save_pretrained` leaves it: WordPiece over the words above, weights by chance."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    known = [*PLAIN, *BAD, *GOOD, "!", "##s"]
    vocabulary = {word: number for number, word in enumerate([*special, *known])}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * hidden,
        max_position_embeddings=48,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    return str(folder)
