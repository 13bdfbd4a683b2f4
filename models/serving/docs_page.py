"""The API's documentation as one page of HTML: no script, no style sheet and no font from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; border-top: 1px solid #ccc; padding-top: 1rem; font-size: 1.1rem; }
code, pre { font-family: ui-monospace, monospace; font-size: 0.9rem; }
pre { background: #f4f4f4; color: #222; padding: 0.8rem; overflow-x: auto; }
b { display: inline-block; min-width: 3.5rem; color: #0a58a0; }
td { padding: 0.1rem 1rem 0.1rem 0; vertical-align: top; }
"""


def render(document: Mapping[str, Any], address: str) -> str:
    """HTML of an OpenAPI 3.1 document, each operation with a command to copy; `address` is http://host:port."""
    info = document["info"]
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f"<title>{escape(info['title'])}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(info['title'])}</h1><p>{escape(info['description'])}</p>",
        '<p>The same for programs: <a href="/openapi.json">/openapi.json</a></p>',
    ]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts += _operation(method.upper(), path, operation, address)
    return "\n".join([*parts, "</body></html>"])


def _operation(method: str, path: str, operation: Mapping[str, Any], address: str) -> Iterator[str]:
    yield f"<h2><b>{method}</b> <code>{escape(path)}</code></h2>"
    yield f"<p>{escape(operation.get('description', ''))}</p>"
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    for name, example in content.get("examples", {}).items():
        where = path.replace("{task}", name).replace("{name}", name)
        if "{" not in where:
            yield _command(address + where, example["value"])
    for name, field in content.get("schema", {}).get("properties", {}).items():
        for item in _items(field):
            of = f" of task {item['title']}" if "title" in item else ""
            yield f"<p>Each of the <code>{name}</code>{escape(of)}:</p>"
            yield f"<table>{''.join(_fields(item))}</table>"
    answers = operation.get("responses", {})
    cells = (
        f"<tr><td><code>{code}</code></td><td>{escape(answer.get('description', ''))}</td></tr>"
        for code, answer in answers.items()
    )
    yield f"<p>Answers:</p><table>{''.join(cells)}</table>"


def _items(field: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The schemas of a list's items; none if it is no list."""
    item = field.get("items", {})
    return item.get("anyOf", [item] if "properties" in item else [])  # type: ignore[no-any-return]


def _command(url: str, body: object) -> str:
    text = json.dumps(body)
    command = f"curl {url} \\\n  -H 'Content-Type: application/json' \\\n  -d '{text}'"
    return f"<pre>{escape(command, quote=False)}</pre>"


def _fields(item: Mapping[str, Any]) -> Iterator[str]:
    for name, schema in item.get("properties", {}).items():
        yield (
            f"<tr><td><code>{escape(name)}</code></td>"
            f"<td>{escape(_kind(schema))}</td><td>{escape(schema.get('description', ''))}</td></tr>"
        )


def _kind(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    kinds = schema.get("type", "")
    return " or ".join(kinds) if isinstance(kinds, list) else str(kinds)
