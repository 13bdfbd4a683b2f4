"""How a free text becomes a fixed number of whole numbers: what a model's first columns are.

A model file reads numbers alone, whoever scores it; so the words are counted out before it, by what stands in
the file itself. The numbers are exact in single precision: they stay below 2^24.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from streams.texts import word_hash, words

MAX_LENGTH = 1_024
MAX_NUMBER = 1 << 24
STEP = 16
"""Lengths are multiples of this: sums over a row are added in the same order wherever the row lies."""


@dataclass(frozen=True, slots=True)
class WordNumbers:
    """The different words of a text (`pairs`: and of neighbours), each as 1 + its hash modulo `buckets`.

    In the order of the text, words before pairs, the first `length` of them; 0 fills up.
    """

    length: int
    buckets: int
    pairs: bool

    def numbers(self, text: str | None) -> list[int]:
        found = words(text) if text else []
        wanted = [*found, *map(" ".join, pairwise(found))] if self.pairs else found
        known = dict.fromkeys(1 + word_hash(word) % self.buckets for word in wanted)
        kept = list(known)[: self.length]
        return kept + [0] * (self.length - len(kept))

    def to_json(self) -> dict[str, Any]:
        return {
            "code": "words",
            "length": self.length,
            "buckets": self.buckets,
            "pairs": self.pairs,
        }


@dataclass(frozen=True)
class Tokens:
    """The token ids of a pretrained tokenizer (the JSON of Hugging Face's `tokenizers`), cut and filled up.

    A missing text is an empty one.
    """

    length: int
    tokenizer: str

    def numbers(self, text: str | None) -> list[int]:
        """Raises ModuleNotFoundError without `tokenizers`."""
        return list(self._tokenizer.encode(text or "").ids)

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        made = Tokenizer.from_str(self.tokenizer)
        if made.padding is None or made.padding["length"] != self.length:
            raise ValueError(f"a tokenizer that does not fill up to {self.length} tokens")
        if made.truncation is None or made.truncation["max_length"] != self.length:
            raise ValueError(f"a tokenizer that does not cut at {self.length} tokens")
        if made.get_vocab_size() >= MAX_NUMBER:
            raise ValueError(f"a tokenizer of {made.get_vocab_size()} tokens")
        return made

    def to_json(self) -> dict[str, Any]:
        return {"code": "tokens", "length": self.length, "tokenizer": self.tokenizer}


TextCode = WordNumbers | Tokens


def from_json(data: Any) -> TextCode:
    """Raises ValueError for anything but what `to_json` gives."""
    if not isinstance(data, Mapping):
        raise ValueError("a text's code is no object")
    length = data.get("length")
    if type(length) is not int or not 1 <= length <= MAX_LENGTH:
        raise ValueError(f"a text's code of length {length!r}")
    buckets, pairs, tokenizer = data.get("buckets"), data.get("pairs"), data.get("tokenizer")
    if data.get("code") == "words" and type(buckets) is int and type(pairs) is bool:
        if not 1 <= buckets < MAX_NUMBER:
            raise ValueError(f"a text's code of {buckets} buckets")
        return WordNumbers(length, buckets, pairs)
    if data.get("code") == "tokens" and isinstance(tokenizer, str):
        made = Tokens(length, tokenizer)
        try:
            made.numbers("")
        except ModuleNotFoundError:
            raise ValueError("its tokenizer needs the package tokenizers") from None
        except Exception as error:  # whatever the JSON leads the library to
            raise ValueError(f"no tokenizer: {' '.join(str(error).split())[:200]}") from error
        return made
    raise ValueError(f"a text's code {data.get('code')!r}")
