"""The live view: what reacts to what, as a picture that a terminal can draw.

`View` is fed with events and counts and knows nothing of Kafka; `panel` draws it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from driftlog.words import describe, moment
from schemas.event import Event

COLOURS = {
    "RetrainRequested": "yellow",
    "AlertRaised": "red",
    "AlertResolved": "green",
    "FaultInjected": "bold red",
    "ModelPromoted": "bold green",
    "ModelRolledBack": "bold magenta",
    "PromotionRejected": "magenta",
    "RolloutStarted": "green",
    "RolloutAdvanced": "green",
    "RolloutFinished": "bold green",
    "RolloutAborted": "magenta",
    "TrainingFailed": "red",
    "SnapshotTaken": "cyan",
    "ModelRegistered": "cyan",
}
"""What deserves a line of its own: decisions and what leads to them."""
DRAWN_WINDOWS = 48
_BARS = " ▁▂▃▄▅▆▇█"


@dataclass
class View:
    """What is known about the running system."""

    counts: dict[str, int] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    """Events a second by topic."""
    event_time: int = 0
    champions: dict[str, str] = field(default_factory=dict)
    losses: dict[str, dict[int, float]] = field(default_factory=dict)
    """task -> window start -> log-loss of its newest statement."""
    drifted: dict[str, dict[int, set[str]]] = field(default_factory=dict)
    """task -> window start -> columns that drifted."""
    story: deque[Event] = field(default_factory=lambda: deque(maxlen=200))
    services: dict[str, str] = field(default_factory=dict)
    note: str = ""

    def see(self, event: Event) -> None:
        """Take one event of a system topic."""
        data = event.data
        if event.type in COLOURS:
            self.story.append(event)
        if event.type in ("ModelPromoted", "ModelRolledBack"):
            self.champions[data["task"]] = data["model_version"]
        elif event.type == "PerformanceMeasured" and data["log_loss"] is not None:
            self.losses.setdefault(data["task"], {})[data["window_start"]] = data["log_loss"]
        elif event.type == "DriftScored":
            windows = self.drifted.setdefault(data["task"], {})
            columns = windows.setdefault(data["window_start"], set())
            (columns.add if data["drifted"] else columns.discard)(data["feature"])

    def count(self, ends: Mapping[str, int], seconds: float) -> None:
        """Take the newest number of records by topic, `seconds` after the last one."""
        for topic, count in ends.items():
            if seconds > 0 and topic in self.counts:
                self.rates[topic] = max(0, count - self.counts[topic]) / seconds
            self.counts[topic] = count


def panel(view: View, height: int = 14) -> RenderableType:
    """The view as it stands; `height` is the number of story lines."""
    parts: list[RenderableType] = [_topics(view)]
    parts += [chart for task in sorted(view.losses) if (chart := _charts(view, task))]
    parts.append(_story(view, height))
    if view.services:
        parts.append(_services(view))
    title = "driftlog"
    if view.event_time:
        title += f" - event time {moment(view.event_time)}"
    return Panel(Group(*parts), title=title, subtitle=view.note or None, box=box.ROUNDED)


def _topics(view: View) -> Table:
    table = Table(box=None, expand=True, header_style="dim", pad_edge=False)
    table.add_column("topic")
    table.add_column("events", justify="right")
    table.add_column("per second", justify="right")
    table.add_column("champion")
    for topic, count in view.counts.items():
        task, _, kind = topic.partition(".")
        champion = view.champions.get(task, "") if kind == "predictions" else ""
        rate = f"{view.rates.get(topic, 0):,.0f}"
        table.add_row(topic, f"{count:,}", rate, Text(champion, style="bold green"))
    return table


def _charts(view: View, task: str) -> RenderableType | None:
    losses = sorted(view.losses[task].items())[-DRAWN_WINDOWS:]
    if len(losses) < 2:
        return None
    columns = view.drifted.get(task, {})
    drifted = [float(len(columns.get(start, ()))) for start, _ in losses]
    values = [value for _, value in losses]
    return Text.assemble(
        (f"\n{task}: log-loss by window  ", "dim"),
        (bars(values, min(values), max(values)), "yellow"),
        f"  {values[-1]:.3f}\n",
        (f"{task}: drifted columns      ", "dim"),
        (bars(drifted, 0, max(1.0, *drifted)), "red"),
        f"  {drifted[-1]:.0f}\n",
    )


def bars(values: list[float], low: float, high: float) -> str:
    """One character a value, from the lowest to the highest bar."""
    span = (high - low) or 1.0
    top = len(_BARS) - 1
    return "".join(_BARS[min(top, max(0, round((v - low) / span * top)))] for v in values)


def _story(view: View, height: int) -> Table:
    table = Table(box=None, expand=True, header_style="dim", pad_edge=False)
    table.add_column("event time", no_wrap=True)
    table.add_column("what happened", no_wrap=True)
    table.add_column("", ratio=1, overflow="ellipsis", no_wrap=True)
    for event in sorted(view.story, key=lambda event: event.recorded_ms)[-height:]:
        told = Text(event.type, style=COLOURS[event.type])
        table.add_row(moment(event.time), told, Text(describe(event)))
    return table


def _services(view: View) -> Text:
    text = Text("\n")
    for name, state in view.services.items():
        colour = {"ready": "green", "starting": "yellow"}.get(state, "bold red")
        text.append(f" {name} ", style=f"{colour} reverse" if state != "ready" else colour)
    return text
