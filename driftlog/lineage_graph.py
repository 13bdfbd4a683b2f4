"""Where a version comes from, as a graph: nodes, edges, their layers; as Mermaid, DOT, SVG or PNG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from driftlog.words import moment

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TEXT_WIDTH = 34
_PLACED = frozenset(
    (
        "SnapshotTaken",
        "TrainingStarted",
        "TrainingFinished",
        "ModelRegistered",
        "ModelPromoted",
        "PromotionRejected",
    )
)
"""Steps that the picture shows as boxes of their own kind; any other type gets a plain one."""
_VOTES = ("windows", "drift_votes", "performance_votes", "labels", "log_loss", "log_loss_threshold")
_COLOURS = {
    "asked": "#f3e2b3",
    "data": "#cfe3f5",
    "training": "#dcd3ee",
    "version": "#cdebd0",
    "decision": "#f6cfc4",
    "evidence": "#e6e6e6",
}


@dataclass(frozen=True, slots=True)
class Node:
    """A box: its first line is the title. `kind` names its colour."""

    id: str
    lines: tuple[str, ...]
    kind: str


@dataclass(slots=True)
class Graph:
    """Boxes, and arrows from cause to effect with what the cause was."""

    nodes: dict[str, Node] = field(default_factory=dict)
    edges: list[tuple[str, str, str]] = field(default_factory=list)
    """(cause, effect, role)"""

    def add(self, node: Node) -> None:
        self.nodes.setdefault(node.id, node)

    def link(self, cause: str, effect: str, role: str = "") -> None:
        if (cause, effect, role) not in self.edges:
            self.edges.append((cause, effect, role))

    def layers(self) -> dict[str, int]:
        """Node -> the length of the longest path that leads to it."""
        depth = dict.fromkeys(self.nodes, 0)
        for _ in range(len(self.nodes)):
            changed = False
            for cause, effect, _role in self.edges:
                if depth[cause] + 1 > depth[effect] and depth[cause] + 1 < len(self.nodes):
                    depth[effect] = depth[cause] + 1
                    changed = True
            if not changed:
                break
        return depth


def lineage_graph(shown: Mapping[str, Any]) -> Graph:
    """The graph of `driftlog.cli.models_text.lineage`."""
    graph = Graph()
    name = shown["model_version"]
    request = shown["request"]
    asked = (f"asked by {request['actor']}", request["trigger"]) if "actor" in request else ()
    when = (moment(request["event_time"]),) if "event_time" in request else ()
    seen = [
        f"{key} {value:.4g}" for key, value in request.get("evidence", {}).items() if key in _VOTES
    ]
    graph.add(Node("request", ("RetrainRequested", *asked, *when, *seen), "asked"))
    if request.get("caused_by"):
        graph.add(Node("cause", ("event", request["caused_by"][:13]), "evidence"))
        graph.link("cause", "request", "caused by")
    made = "request"
    for role in ("snapshot", "golden"):
        taken = shown[role]
        if taken:
            span = f"{moment(taken['from_time'])[:10]} to {moment(taken['to_time'])[:10]}"
            rows = f"{taken['rows']:,} rows, {taken['positives']:,} positive"
            graph.add(Node(role, (f"{role} {taken['snapshot'][:12]}", rows, span), "data"))
    if shown["snapshot"]:
        graph.link("request", "snapshot", "cut for")
        parts = sorted({at["topic"] for at in shown["snapshot"]["offsets"]})
        for topic in parts:
            ends = [a["offset"] for a in shown["snapshot"]["offsets"] if a["topic"] == topic]
            graph.add(Node(topic, (topic, f"first {sum(ends):,} records"), "data"))
            graph.link(topic, "snapshot", "rows")
        made = "snapshot"
    recipe = (shown["recipe"], shown["parameters"], f"seed {shown['seed']}")
    duration = shown["training"] and f"{shown['training']['duration_ms'] / 1000:.1f} s"
    graph.add(
        Node("training", ("training", *recipe, *([duration] if duration else [])), "training")
    )
    graph.link(made, "training")
    environment = [f"{key} {value[:12]}" for key, value in shown["environment"].items()]
    if environment:
        graph.add(Node("environment", ("environment", *environment), "training"))
        graph.link("environment", "training", "made by")
    metrics = [f"{key} {value:.4g}" for key, value in shown["metrics"].items()]
    file = f"file {shown['artifact']['sha256'][:12]}"
    graph.add(Node("version", (name, file, *metrics), "version"))
    graph.link("training", "version")
    if shown["parent"]:
        graph.add(Node("parent", (shown["parent"], "the champion before it"), "version"))
    _decisions(graph, shown)
    for step in shown["steps"]:
        if step["type"] not in _PLACED:
            key = step["event_id"]
            graph.add(Node(key, (step["type"], moment(step["event_time"])), "evidence"))
            graph.link("request", key)
    return graph


def _decisions(graph: Graph, shown: Mapping[str, Any]) -> None:
    for number, decision in enumerate(shown["decisions"]):
        key = f"decision {number}"
        gates = [
            f"{gate['name']} {gate['value']:.4f}"
            f" {'<=' if gate['value'] <= gate['threshold'] else '>'} {gate['threshold']:.4f}"
            for gate in decision["gates"]
        ]
        about = (decision["type"], f"by {decision['actor']}", moment(decision["event_time"]))
        graph.add(Node(key, (*about, *gates), "decision"))
        graph.link("version", key)
        if decision["gates"] and shown["parent"]:
            graph.link("parent", key, "compared with")
        if decision["gates"] and shown["golden"]:
            graph.link("golden", key, "judged on")


def tree(graph: Graph, root: str) -> Iterator[tuple[int, str, Node, bool]]:
    """(depth, role, box, whether its causes follow) from an effect back to its causes; each box once."""
    seen: set[str] = set()

    def below(id_: str, depth: int, role: str) -> Iterator[tuple[int, str, Node, bool]]:
        first = id_ not in seen
        seen.add(id_)
        yield depth, role, graph.nodes[id_], first
        if first:
            for cause, effect, name in graph.edges:
                if effect == id_:
                    yield from below(cause, depth + 1, name)

    return below(root, 0, "")


def mermaid(graph: Graph) -> str:
    """A flowchart that GitHub and most Markdown viewers draw."""
    names = {id_: f"n{number}" for number, id_ in enumerate(graph.nodes)}
    lines = ["flowchart LR"]
    for id_, node in graph.nodes.items():
        text = "<br/>".join(_plain(line) for line in node.lines)
        lines.append(f'  {names[id_]}["{text}"]:::{node.kind}')
    for cause, effect, role in graph.edges:
        arrow = f"-->|{_plain(role)}|" if role else "-->"
        lines.append(f"  {names[cause]} {arrow} {names[effect]}")
    lines += [f"  classDef {kind} fill:{colour}" for kind, colour in _COLOURS.items()]
    return "\n".join(lines) + "\n"


def dot(graph: Graph) -> str:
    """The same in Graphviz' language."""
    lines = ["digraph lineage {", '  rankdir=LR; node [shape=box, style="rounded,filled"];']
    names = {id_: f"n{number}" for number, id_ in enumerate(graph.nodes)}
    for id_, node in graph.nodes.items():
        text = "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in node.lines)
        lines.append(f'  {names[id_]} [label="{text}", fillcolor="{_COLOURS[node.kind]}"];')
    for cause, effect, role in graph.edges:
        lines.append(f'  {names[cause]} -> {names[effect]} [label="{role}"];')
    return "\n".join([*lines, "}"]) + "\n"


def draw(graph: Graph, path: Path) -> None:
    """Write an SVG or PNG, causes left of effects. Needs matplotlib (the extra `plots`): else ImportError."""
    from matplotlib.figure import Figure

    texts = {
        id_: [part for line in node.lines for part in wrap(line, TEXT_WIDTH)]
        for id_, node in graph.nodes.items()
    }
    places, width, height = _places(graph, texts)
    figure = Figure(figsize=(width, height), dpi=110)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.axis("off")
    for cause, effect, role in graph.edges:
        _arrow(axes, places[cause], places[effect], role)
    for id_, (x, y, half) in places.items():
        _box(axes, (x, y, half), texts[id_], _COLOURS[graph.nodes[id_].kind])
    figure.savefig(path)


BOX, GAP, LINE, MARGIN = 2.5, 0.75, 0.17, 0.25
"""Inches: a box's width, the gap between columns, a line of text, the space around a box."""

_Place = tuple[float, float, float]
"""Middle of a box (x, y) and half its height, in inches."""


def _places(graph: Graph, texts: Mapping[str, list[str]]) -> tuple[dict[str, _Place], float, float]:
    columns: dict[int, list[str]] = {}
    for id_, layer in _drawn_layers(graph).items():
        columns.setdefault(layer, []).append(id_)
    half = {id_: (len(lines) * LINE + 0.2) / 2 for id_, lines in texts.items()}
    tall = {n: sum(2 * half[i] + MARGIN for i in ids) for n, ids in columns.items()}
    height = max(tall.values()) + MARGIN
    places = {}
    for number, layer in enumerate(sorted(columns)):
        y = (height + tall[layer]) / 2
        for id_ in columns[layer]:
            y -= half[id_] + MARGIN / 2
            places[id_] = (MARGIN + BOX / 2 + number * (BOX + GAP), y, half[id_])
            y -= half[id_] + MARGIN / 2
    return places, len(columns) * (BOX + GAP) - GAP + 2 * MARGIN, height


def _drawn_layers(graph: Graph) -> dict[str, int]:
    """As `layers`, but what nothing led to stands just left of what it led to."""
    layers = graph.layers()
    caused = {effect for _, effect, _ in graph.edges}
    for id_ in graph.nodes:
        effects = [layers[effect] for cause, effect, _ in graph.edges if cause == id_]
        if id_ not in caused and effects:
            layers[id_] = min(effects) - 1
    return layers


def _box(axes: Axes, place: _Place, lines: list[str], colour: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, y, half = place
    corner = (x - BOX / 2 + 0.05, y - half + 0.05)
    style = "round,pad=0.05"
    axes.add_patch(
        FancyBboxPatch(corner, BOX - 0.1, 2 * half - 0.1, style, facecolor=colour, edgecolor="#555")
    )
    for number, line in enumerate(lines):
        axes.text(
            x - BOX / 2 + 0.1,
            y + half - 0.1 - LINE * (number + 0.5),
            line.replace("$", r"\$"),
            fontsize=7.5,
            va="center",
            weight="bold" if number == 0 else "normal",
        )


def _arrow(axes: Axes, cause: _Place, effect: _Place, role: str) -> None:
    start, end = (cause[0] + BOX / 2, cause[1]), (effect[0] - BOX / 2, effect[1])
    style = {"arrowstyle": "->", "color": "#444", "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", xy=end, xytext=start, arrowprops=style)
    if role:
        x, y = end[0] - GAP / 2, start[1] + (end[1] - start[1]) * 0.5
        if end[0] - start[0] > GAP + 0.01:  # over columns in between: say it beside its end
            y = end[1] + (start[1] - end[1]) * (GAP / 2) / (end[0] - start[0])
        axes.text(x, y + 0.05, role, fontsize=6, color="#444", ha="center", style="italic")


def _plain(text: str) -> str:
    """Text inside a Mermaid label: quotes and markup would end it."""
    return text.replace("&", "&amp;").replace('"', "'").replace("<", "&lt;").replace(">", "&gt;")
