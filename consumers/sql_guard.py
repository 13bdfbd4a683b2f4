"""Lets read-only SQL over the history through, and nothing else (pure).

Three layers, each enough for most attacks: every call in the token stream must be on a list of functions
(ClickHouse also takes function names as arguments: `arrayMap(file, ...)`); sqlglot's tree must be one SELECT
over known tables; and the engine itself runs it with `readonly = 1` under limits. Whatever cannot be parsed
is refused. `INTO OUTFILE` and scalar `file()` must be caught here: the engine's `readonly` allows both.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import sqlglot
from sqlglot import exp

from consumers.sql_allowed import (
    BEFORE_BRACKET,
    COMBINATOR,
    DATABASE,
    FIRST_ARGUMENT_IS_DATA,
    FOREIGN_DATABASES,
    FORMATS,
    LIMITS,
    MAX_NUMBERS,
    NEVER,
    SETTING,
    SETTING_VALUE,
    SYSTEM_TABLES,
    TABLE_FUNCTIONS,
    UNSAFE_NAME,
)
from consumers.sql_functions import AGGREGATES, SCALARS
from consumers.sql_tokens import RefusedQuery, Token, text, tokens

__all__ = ["DATABASE", "FORMATS", "LIMITS", "RefusedQuery", "SafeQuery", "check", "safe_settings"]

_PLACE = r'(?:TABLE )?(?:(?:"driftlog"|`driftlog`|driftlog)\.)?(?:[A-Za-z_]\w*|"\w+"|`\w+`)'
_SYSTEM = "|".join(sorted(SYSTEM_TABLES["system"]))
_PLAIN = re.compile(
    rf"(?:SHOW TABLES(?: (?:FROM|IN) (?:driftlog|system|default))?"
    rf"(?: (?:NOT )?I?LIKE '[^'\\]*')?(?: LIMIT \d+)?"
    rf"|SHOW DATABASES"
    rf"|SHOW (?:FULL )?COLUMNS (?:FROM|IN) {_PLACE}(?: (?:FROM|IN) driftlog)?"
    rf"|SHOW CREATE {_PLACE}"
    rf"|EXISTS {_PLACE}"
    rf"|DESC(?:RIBE)? (?:{_PLACE}|(?:TABLE )?system\.(?:{_SYSTEM})))",
    re.IGNORECASE,
)
_EXPLAIN = re.compile(
    r"EXPLAIN(?: (?:AST|SYNTAX|QUERY TREE|PLAN|PIPELINE|ESTIMATE))?"
    r"(?: [a-z_]+ ?= ?[01](?: ?, ?[a-z_]+ ?= ?[01])*)? (?=SELECT\b|WITH\b)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class SafeQuery:
    """A query that may run: its text without FORMAT and SETTINGS, which stand beside it."""

    sql: str
    format: str = ""
    settings: dict[str, str] = field(default_factory=dict)


def check(sql: str) -> SafeQuery:
    """Raises RefusedQuery unless `sql` is one statement that only reads the history."""
    parts = tokens(sql)
    while parts and parts[-1].text == ";":
        parts.pop()
    if not parts:
        raise RefusedQuery("the query is empty")
    if any(part.text == ";" for part in parts):
        raise RefusedQuery("more than one statement: send them one by one")
    parts, format_, settings = _peel(parts)
    statement = text(parts)
    if _PLAIN.fullmatch(" ".join(statement.split())):
        return SafeQuery(statement, format_, settings)
    explain = _EXPLAIN.match(statement)
    if explain:
        _check_select(tokens(statement[explain.end() :]))
    else:
        _check_select(parts)
    return SafeQuery(statement, format_, settings)


def safe_settings(settings: dict[str, str]) -> dict[str, str]:
    """Those that a query may set, limits lowered to ours; raises RefusedQuery for a bad value."""
    kept = {}
    for name, given in settings.items():
        value = given
        if not SETTING.fullmatch(name):
            continue
        if not SETTING_VALUE.fullmatch(value):
            raise RefusedQuery(f"setting {name}: the value {value!r} is not accepted")
        if name in LIMITS:
            if not value.isdecimal():
                raise RefusedQuery(f"setting {name}: {value!r} is not a whole number")
            value = str(min(int(value) or LIMITS[name], LIMITS[name]))
        kept[name] = value
    return kept


def _peel(parts: list[Token]) -> tuple[list[Token], str, dict[str, str]]:
    """Split off `SETTINGS ...` and `FORMAT ...` at the end, in either order."""
    format_ = ""
    settings: dict[str, str] = {}
    for _ in range(2):
        if (
            len(parts) > 2
            and parts[-2].name == "format"
            and parts[-2].kind == parts[-1].kind == "word"
        ):
            if format_:
                raise RefusedQuery("two FORMAT clauses")
            format_, parts = parts[-1].text, parts[:-2]
            known = {name.lower(): name for name in FORMATS}
            if format_.lower() not in known:
                raise RefusedQuery(
                    f"FORMAT {format_} is not offered; JSON, CSV, Parquet, Arrow and others are"
                )
            format_ = known[format_.lower()]
        start = _settings_clause(parts)
        if start and not settings:
            settings, parts = _read_settings(parts[start + 1 :]), parts[:start]
    return parts, format_, settings


def _settings_clause(parts: list[Token]) -> int:
    """Index of the last SETTINGS that no bracket follows; 0 if there is none."""
    for index in range(len(parts) - 1, 0, -1):
        part = parts[index]
        if part.text in "()":
            return 0
        if part.kind == "word" and part.name == "settings" and parts[index - 1].text != ".":
            return index
    return 0


def _read_settings(parts: list[Token]) -> dict[str, str]:
    settings = {}
    for index in range(0, len(parts), 4):
        clause = parts[index : index + 3]
        if (
            [part.kind for part in clause[:2]] != ["word", "sign"]
            or clause[1].text != "="
            or len(clause) < 3
        ):
            raise RefusedQuery("SETTINGS must be name = value, ...")
        if index + 3 < len(parts) and parts[index + 3].text != ",":
            raise RefusedQuery("SETTINGS must be name = value, ...")
        name, value = clause[0].text, clause[2].text
        if not SETTING.fullmatch(name):
            raise RefusedQuery(f"SETTINGS {name} may not be changed here")
        settings[name] = value[1:-1] if clause[2].kind == "string" else value
    return safe_settings(settings)


def _check_select(parts: list[Token]) -> None:
    if not parts or (parts[0].name not in ("select", "with") and parts[0].text != "("):
        raise RefusedQuery(f"{parts[0].text if parts else 'this'}: only SELECT, WITH, SHOW, DESCRIBE,"
                           " EXISTS and EXPLAIN SELECT are accepted")  # fmt: skip
    _check_tokens(parts)
    try:
        trees = sqlglot.parse(text(parts), read="clickhouse")
    except (
        Exception
    ) as error:  # a parser of somebody else's: whatever it raises, it did not understand
        first = " ".join(str(error).split())[:200]
        raise RefusedQuery(f"the query cannot be parsed: {first}") from error
    if len(trees) != 1 or not isinstance(trees[0], (exp.Select, exp.SetOperation, exp.Subquery)):
        raise RefusedQuery("only one SELECT is accepted")
    for node in trees[0].walk():
        _check_node(node)


def _check_tokens(parts: list[Token]) -> None:
    for index, part in enumerate(parts):
        before = parts[index - 1].text if index else ""
        after = parts[index + 1].text if index + 1 < len(parts) else ""
        if part.text == "{" and [each.name for each in parts[index + 3 : index + 4]] == [
            "identifier"
        ]:
            raise RefusedQuery("a parameter of type Identifier is not accepted")
        if part.kind == "number" and after == "(":
            raise RefusedQuery(f"{part.text}( is not a call")
        if not part.name:
            continue
        if part.name in FOREIGN_DATABASES and after == "." and before != ".":
            _check_system(part.name, parts[index + 2].name if index + 2 < len(parts) else "")
        if (
            part.kind == "name"
            and part.name.partition(".")[0] in FOREIGN_DATABASES
            and "." in part.name
        ):
            raise RefusedQuery(f"the name {part.text} is not accepted")
        if before == "." and after != "(":
            continue
        if after == "(":
            _check_call(parts, index, before)
        elif part.kind == "word" and part.name in NEVER:
            raise RefusedQuery(f"{part.text.upper()} is not accepted here")
        elif UNSAFE_NAME.fullmatch(part.name):
            raise RefusedQuery(f"{part.text} is the name of a function that is not allowed")


def _check_call(parts: Sequence[Token], index: int, before: str) -> None:
    function = parts[index]
    name = function.name
    if before == ".":
        raise RefusedQuery(f"{function.text}(...) after a dot is not a function that is allowed")
    if function.kind == "word" and name in BEFORE_BRACKET:
        return
    if name in TABLE_FUNCTIONS:
        return  # only in FROM and with bounded arguments: the tree decides
    if name not in SCALARS and not _is_aggregate(name):
        raise RefusedQuery(f"function {function.text} is not allowed")
    if name.startswith(("array", "map")) and name not in FIRST_ARGUMENT_IS_DATA:
        _check_first_argument(function, parts, index + 2)


def _check_first_argument(function: Token, parts: Sequence[Token], start: int) -> None:
    """`arrayMap(file, ...)` and `arrayMap((file), ...)` would call `file` for each element."""
    at = start
    while at < len(parts) and parts[at].text == "(":
        at += 1
    name, depth = parts[at].name if at < len(parts) else "", at - start
    at += 1
    closed = 0
    while closed < depth and at + closed < len(parts) and parts[at + closed].text == ")":
        closed += 1
    following = parts[at + closed] if at + closed < len(parts) else Token("sign", ")")
    if name and (following.name == "as" or (following.text == "," and closed == depth)):
        raise RefusedQuery(
            f"{function.text}({name}, ...): write a lambda (x -> ...) in its first place"
        )


def _is_aggregate(name: str) -> bool:
    while name not in AGGREGATES:
        match = COMBINATOR.search(name)
        if match is None or match.start() == 0:
            return False
        name = name[: match.start()]
    return True


def _check_system(database: str, table: str) -> None:
    if table not in SYSTEM_TABLES.get(database, ()):
        raise RefusedQuery(
            f"{database}.{table or '...'} may not be read; the tables are those of {DATABASE}"
        )


def _check_node(node: exp.Expr) -> None:
    if isinstance(
        node, (exp.DDL, exp.DML, exp.Command, exp.Into, exp.Create, exp.Drop, exp.Alter, exp.Set)
    ):
        raise RefusedQuery(
            f"{type(node).__name__.upper()} is not accepted: the history is read only"
        )
    if isinstance(node, exp.Table):
        _check_table(node)
    if isinstance(node, exp.In) and isinstance(node.args.get("field"), exp.Column):
        column = node.args["field"]
        _check_place(column.table, column.name, column.db)


def _check_table(table: exp.Table) -> None:
    if isinstance(table.this, exp.Identifier):
        _check_place(table.db, table.name, table.catalog)
        return
    name = table.this.name if isinstance(table.this, exp.Anonymous) else table.this.key
    arguments = list(table.this.args.get("expressions") or table.this.iter_expressions())
    if name.lower() not in TABLE_FUNCTIONS:
        raise RefusedQuery(f"table function {name or table.this.sql()} is not allowed")
    for argument in arguments:
        if not (
            isinstance(argument, exp.Literal)
            and argument.is_int
            and int(argument.this) <= MAX_NUMBERS
        ):
            raise RefusedQuery(f"{name}: only whole numbers up to {MAX_NUMBERS} are accepted")


def _check_place(database: str, table: str, catalog: str) -> None:
    if not re.fullmatch(r"\w+", table, re.ASCII):
        raise RefusedQuery(f"{table!r} is no name of a table")
    if catalog:
        raise RefusedQuery(f"{catalog}.{database}.{table}: a name has at most two parts")
    if database.lower() in SYSTEM_TABLES:
        _check_system(database.lower(), table.lower())
    elif database not in ("", DATABASE):
        raise RefusedQuery(
            f"database {database} may not be read; the tables are those of {DATABASE}"
        )
