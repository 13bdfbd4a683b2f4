"""A strict reading of ClickHouse's tokens (pure).

The guard must see exactly what the engine sees, so anything that two lexers could read differently is
refused: `#` comments, nested comments, here-documents, characters outside ASCII other than in strings
(ClickHouse takes some for spaces and quotes), control characters, backslashes in quoted names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_LENGTH = 100_000
MAX_TOKENS = 20_000
MAX_DEPTH = 60


class RefusedQuery(ValueError):
    """A query that the guard does not let through; the message says what was refused and why."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token: `kind` is word, name (quoted), string, number or sign; `text` is as written."""

    kind: str
    text: str
    space: bool = False
    """Whether white space or a comment stood before it."""

    @property
    def name(self) -> str:
        """The identifier in lower case; empty for any other token."""
        if self.kind == "word":
            return self.text.lower()
        return self.text[1:-1].lower() if self.kind == "name" else ""


_TOKEN = re.compile(
    r"""
    (?P<space>[ \t\r\n]+)
  | (?P<comment>--[^\n]*|/\*.*?\*/)
  | (?P<string>'(?:[^'\\]|\\.|'')*')
  | (?P<name>`[^`\\]*`|"[^"\\]*")
  | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<number>[0-9][0-9A-Za-z_]*(?:\.[0-9][0-9A-Za-z_]*)?(?:(?<=[eE])[+-][0-9]+)?)
  | (?P<sign>->|::|\|\||<=>|<=|>=|<>|!=|==|[-+*/%<>=!?:.,;()\[\]{}])
    """,
    re.VERBOSE | re.DOTALL,
)


def tokens(sql: str) -> list[Token]:
    """The tokens of a statement, comments left out; raises RefusedQuery."""
    if len(sql) > MAX_LENGTH:
        raise RefusedQuery(f"the query is {len(sql)} characters long, more than {MAX_LENGTH}")
    found: list[Token] = []
    at, depth, space = 0, 0, False
    while at < len(sql):
        match = _TOKEN.match(sql, at)
        if match is None:
            where = f"at character {at + 1}"
            raise RefusedQuery(f"{_shown(sql[at])} {where} is not accepted outside a string")
        at, kind, text = match.end(), str(match.lastgroup), match.group()
        if kind in ("space", "comment"):
            if kind == "comment" and ("/*" in text[2:] or "\0" in text):
                raise RefusedQuery("a comment inside a comment is not accepted")
            space = True
            continue
        _check(kind, text)
        depth += text in "([{" if kind == "sign" else 0
        depth -= text in ")]}" if kind == "sign" else 0
        if not 0 <= depth <= MAX_DEPTH:
            raise RefusedQuery(f"brackets do not match or nest deeper than {MAX_DEPTH}")
        if not space and found and {kind, found[-1].kind} <= {"string", "name"}:
            raise RefusedQuery(f"{found[-1].text}{text}: two quoted parts without a space between")
        found.append(Token(kind, text, space))
        if len(found) > MAX_TOKENS:
            raise RefusedQuery(f"the query has more than {MAX_TOKENS} words and signs")
        space = False
    if depth:
        raise RefusedQuery("a bracket is not closed")
    return found


def text(parts: list[Token]) -> str:
    """The tokens as SQL again: as written, each comment or run of space one space."""
    return "".join((" " if part.space else "") + part.text for part in parts).strip()


def _check(kind: str, text: str) -> None:
    if "\0" in text:
        raise RefusedQuery("a NUL character is not accepted")
    if kind == "name" and not text.isascii():
        raise RefusedQuery(f"the name {text} is not ASCII")


def _shown(char: str) -> str:
    return repr(char) if char.isascii() else f"U+{ord(char):04X}"
