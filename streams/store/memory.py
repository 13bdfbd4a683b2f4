"""The store without a disk: for what fits, for tests, and for a state that is rebuilt from the log anyway."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from streams.store.hits import (
    KEY_WORDS,
    NOWHERE,
    Hits,
    Keys,
    Places,
    Values,
    as_words,
    time_word,
    word_width,
)
from streams.store.memtable import Memtable, older, values_at


class MemoryStore:
    """See `Store`; `time` names the int64 field of a value that `expire` looks at."""

    def __init__(self, dtype: np.dtype[Any], time: str | None = None) -> None:
        self.dtype = dtype
        self._table = Memtable(word_width(dtype), 0)
        self._time = time_word(dtype, time)

    def __len__(self) -> int:
        return self._table.count

    def put(self, keys: Keys, values: Values) -> None:
        key_words, value_words = as_words(keys, values, self.dtype)
        table = self._table
        if table.used + len(keys) > table.capacity and table.count < table.used // 2:
            table.compact()
        first = table.reserve(len(keys))
        table.rows[first : table.used, :KEY_WORDS] = key_words
        table.rows[first : table.used, KEY_WORDS:] = value_words
        table.insert(first, len(keys))

    def get(self, keys: Keys) -> Hits:
        places = self._table.find(keys)
        values = values_at(self._table.rows, places).view(self.dtype).reshape(-1)
        return Hits(places != NOWHERE, values, places)

    def remove(self, places: Places) -> None:
        self._table.remove(places)

    def expire(self, before: int) -> int:
        table = self._table
        return table.remove(older(table.rows, table.places(), self._time, before))

    def scan(self) -> Iterator[tuple[Keys, Values]]:
        places = self._table.places()
        rows = self._table.rows
        yield rows[places, :KEY_WORDS], values_at(rows, places).view(self.dtype).reshape(-1)
