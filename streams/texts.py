"""Free text as numbers: its words, and what a window of texts is watched by (pure).

No bin holds a text, and a histogram of words would have as many bins as there are words. Three numbers of
each text say what a shift of topic, language or form changes: how many words it has, which share of them the
reference does not know, and how surprising they are to the reference (bits a word, under its frequencies).
The words a reference knows are told by their hashes, so that no text of anybody stands in the log for ever.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MAX_WORDS = 2_000
"""Words that a reference knows, at most: the most frequent."""
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")


def words(text: str) -> list[str]:
    """Runs of letters and digits in lower case, with apostrophes inside."""
    return _WORD.findall(text.lower())


def word_hash(word: str) -> int:
    """32 bits (CRC-32 of its UTF-8)."""
    return zlib.crc32(word.encode(errors="replace"))


@dataclass(frozen=True, slots=True)
class Words:
    """The words of n texts, one after the other: `hashes[i]` stands in text `rows[i]`."""

    rows: NDArray[np.int64]
    hashes: NDArray[np.int64]
    counts: Floats
    """(n,) Words of each text; NaN where there is no text."""

    @classmethod
    def of(cls, texts: Sequence[Any] | NDArray[Any]) -> Words:
        """Texts, or None each; numbers (a feature that was something else once) are no texts."""
        found = [[word_hash(w) for w in words(t)] if isinstance(t, str) else None for t in texts]
        counts = np.array([math.nan if one is None else len(one) for one in found], np.float64)
        sizes = np.nan_to_num(counts).astype(np.int64)
        hashes = np.fromiter((h for one in found if one for h in one), np.int64, int(sizes.sum()))
        return cls(np.repeat(np.arange(len(found)), sizes), hashes, counts)

    def mean(self, values: Floats) -> Floats:
        """Mean of a value each word, per text (n,); NaN where there is none. Added in the text's order."""
        sums = np.bincount(self.rows, values, minlength=len(self.counts))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.counts > 0, sums / self.counts, math.nan)


@dataclass(frozen=True, slots=True)
class WordBook:
    """The words that a reference knows: `hashes` (k,) rising, `bits` (k,) = -log2 of each one's share.

    `unknown_bits`: of any other word, as if it stood there half a time.
    """

    hashes: Floats
    bits: Floats
    unknown_bits: float

    @classmethod
    def fit(cls, found: Words) -> WordBook:
        counts = Counter(found.hashes.tolist())
        total = max(1, len(found.hashes))
        ranked = sorted(counts, key=lambda word: (-counts[word], word))[:MAX_WORDS]
        kept = sorted(ranked)
        bits = [math.log2(total / counts[word]) for word in kept]
        return cls(np.array(kept, np.float64), np.array(bits), math.log2(2 * total))

    def unknown(self, found: Words) -> Floats:
        """Share of each text's words that are not in the book, (n,)."""
        return found.mean((self._places(found) < 0).astype(np.float64))

    def surprise(self, found: Words) -> Floats:
        """Mean bits a word of each text, (n,): its cross-entropy with the reference."""
        places = self._places(found)
        return found.mean(np.append(self.bits, self.unknown_bits)[places])

    def _places(self, found: Words) -> NDArray[np.int64]:
        """Where each word stands in the book; -1 if it does not."""
        if not len(self.hashes):
            return np.full(len(found.hashes), -1)
        wanted = found.hashes.astype(np.float64)
        places = np.searchsorted(self.hashes, wanted).clip(max=len(self.hashes) - 1)
        return np.where(self.hashes[places] == wanted, places, -1)
