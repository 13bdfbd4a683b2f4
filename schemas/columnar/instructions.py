"""What `machine` can do, and the table of integers that says it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

MAX_WORDS = 1 << 16
"""A schema of nested unions can unfold into more code than anyone can want."""
MAX_DEPTH = 24
"""Arrays and maps inside each other."""
MAX_BRANCHES = 64
"""Of a union: the branch then takes one byte."""


class Op(IntEnum):
    """Instructions; the comment names the words that follow. A target counts from the instruction itself."""

    NULLABLE_DOUBLES = 0  # count, tag of null, column...: unions of null and double
    DOUBLES = 1  # count, column...
    LONG = 2  # column
    STRING_CODE = 3  # column
    STRING_ID = 4  # column
    STRING_TEXT = 5  # column
    OPTION = 6  # tag of null, tag of the other, target if null
    SKIP_STRING = 7
    SKIP_VARINT = 8
    SKIP_BYTES = 9  # bytes
    SKIP_OPTIONS = 10  # count, tag of null, bytes: unions of null and so many bytes
    LONG_TO_DOUBLE = 11  # column
    FLOAT_TO_DOUBLE = 12  # column
    BOOLEAN_TO_DOUBLE = 13  # column
    BOOLEAN_TO_LONG = 14  # column
    SKIP_BLOB = 15
    SKIP_ENUM = 16  # symbols
    BRANCH = 17  # count, target...: by a zigzag varint of one byte
    JUMP = 18  # target
    BLOCK = 19  # depth, target after the last block: at the head of each block of an array or a map
    AGAIN = 20  # depth, target of the body, target of BLOCK
    STORE_WORD = 21  # column, bits
    STORE_CODE = 22  # column, code
    STORE_PAIR = 23  # column, two words
    CONSTANT_CODE = 24  # column, text
    CONSTANT_ID = 25  # column, text
    CONSTANT_TEXT = 26  # column, text
    END = 27
    END_OTHER = 28  # an event of another type
    REFUSE = 29


class Unsupported(ValueError):
    """The machine does not do this schema; the row codec does."""


@dataclass(frozen=True, slots=True)
class Program:
    """`code` starts at the event's first byte after the schema id.

    `texts` are its constants, each followed by a zero byte; a text column points to them until it is made.
    """

    code: NDArray[np.int64]
    texts: tuple[NDArray[np.uint8], ...] = ()


NO_TEXT = -1
"""Bytes of a text that is null."""
REFUSAL = Program(np.array([Op.REFUSE], np.int64))
"""Leaves every event to the row codec."""


class Code:
    """Words under construction."""

    def __init__(self) -> None:
        self.words: list[int] = []
        self.texts: list[bytes] = []
        self._last = 0
        self._label = 0

    def emit(self, op: Op, *words: int) -> int:
        """Append an instruction; its place."""
        if len(self.words) > MAX_WORDS:
            raise Unsupported(f"more than {MAX_WORDS} words of code")
        self._last = len(self.words)
        self.words += [op, *words]
        return self._last

    def here(self) -> int:
        """The place of the next instruction, which something may jump to."""
        self._label = len(self.words)
        return self._label

    def branch(self, count: int) -> int:
        """A BRANCH whose targets are to be aimed; its place."""
        if count > MAX_BRANCHES:
            raise Unsupported(f"a union of {count} types")
        return self.emit(Op.BRANCH, count, *[0] * count)

    def aim(self, place: int, word: int, targets: Sequence[int]) -> None:
        """Set an instruction's targets, from its `word` on."""
        self.words[place + word : place + word + len(targets)] = [t - place for t in targets]

    def run(self, op: Op, prefix: Sequence[int], column: int) -> None:
        """One more column for the run that ends here, or a new run."""
        last, size = self._last, 2 + len(prefix)
        same = self._label <= last < len(self.words) and self.words[last] == op
        if same and self.words[last + 2 : last + size] == list(prefix):
            self.words[last + 1] += 1
            self.words.append(column)
        else:
            self.emit(op, 1, *prefix, column)

    def skip(self, count: int) -> None:
        """Step over bytes that are there whatever they hold."""
        last = self._last
        if self._label <= last < len(self.words) and self.words[last] == Op.SKIP_BYTES:
            self.words[last + 1] += count
        else:
            self.emit(Op.SKIP_BYTES, count)

    def skip_options(self, null_tag: int, size: int) -> None:
        """Step over a union of null and `size` bytes."""
        last = self._last
        same = self._label <= last < len(self.words) and self.words[last] == Op.SKIP_OPTIONS
        if same and self.words[last + 2 :] == [null_tag, size]:
            self.words[last + 1] += 1
        else:
            self.emit(Op.SKIP_OPTIONS, 1, null_tag, size)

    def text(self, text: str) -> int:
        """The number of a constant."""
        try:
            self.texts.append(text.encode())
        except UnicodeEncodeError as error:
            raise Unsupported(f"a default is no text: {error}") from error
        return len(self.texts) - 1
