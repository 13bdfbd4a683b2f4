"""`driftlog models show V --graph`: the lineage as a tree, a picture, or text that others draw."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from driftlog.cli.errors import CliError
from driftlog.lineage_graph import Graph, dot, draw, lineage_graph, mermaid, tree

WIDTH = 160
"""Characters of a line that no terminal shows."""


def show(lineage: Mapping[str, Any], where: str) -> None:
    """Draw to the file `where`, or a tree of causes to the terminal if it is '-'."""
    graph = lineage_graph(lineage)
    if where == "-":
        _print_tree(graph)
        return
    path = Path(where)
    texts = {".mmd": mermaid, ".dot": dot}
    if path.suffix in texts:
        path.write_text(texts[path.suffix](graph), "utf-8")
    elif path.suffix in (".svg", ".png"):
        try:
            draw(graph, path)
        except ImportError as error:
            raise CliError(
                "a picture needs matplotlib: pip install 'driftlog[plots]', or write a .mmd or .dot file"
            ) from error
    else:
        raise CliError(
            f"{where}: a graph is a .svg, .png, .mmd or .dot file, or - for the terminal"
        )
    typer.echo(f"{len(graph.nodes)} boxes and {len(graph.edges)} arrows written to {where}")


def _print_tree(graph: Graph) -> None:
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

    decisions = [id_ for id_, node in graph.nodes.items() if node.kind == "decision"]
    branches: list[Tree] = []
    for depth, role, node, first in tree(graph, decisions[-1] if decisions else "version"):
        title, *rest = node.lines
        text = Text.assemble((f"{role}: " if role else "", "dim"), (title, "bold"))
        text.append(f"  {'  '.join(rest)}" if first else "  (see above)", "" if first else "dim")
        branch = branches[depth - 1].add(text) if depth else Tree(text, guide_style="dim")
        branches[depth:] = [branch]
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    console.print(branches[0])
