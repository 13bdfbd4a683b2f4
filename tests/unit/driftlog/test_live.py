"""The live view: what it remembers, and that it can be drawn at any size."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from driftlog.live import View, bars, panel
from schemas.event import Event

DAY = 86_400_000


def measured(day: int, loss: float) -> Event:
    data = {"task": "toy", "window_start": day * DAY, "log_loss": loss}
    return Event("driftlog.performance_scores", "PerformanceMeasured", data)


def scored(day: int, feature: str, drifted: bool) -> Event:
    data = {"task": "toy", "window_start": day * DAY, "feature": feature, "drifted": drifted}
    return Event("driftlog.drift_scores", "DriftScored", data)


def promoted(version: str, recorded_ms: int) -> Event:
    data = {
        "task": "toy",
        "model_version": version,
        "previous_version": None,
        "reason": "better",
        "event_time": DAY,
    }
    return Event("driftlog.deployments", "ModelPromoted", data, recorded_ms=recorded_ms)


def drawn(view: View, width: int = 100) -> str:
    console = Console(file=StringIO(), width=width, height=40)
    console.print(panel(view, 5))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_a_restated_window_replaces_what_was_said() -> None:
    view = View()
    for event in (measured(1, 0.5), measured(2, 0.4), measured(2, 0.6), scored(2, "a", True)):
        view.see(event)
    view.see(scored(2, "a", False))
    assert view.losses["toy"] == {DAY: 0.5, 2 * DAY: 0.6}
    assert view.drifted["toy"][2 * DAY] == set()


def test_rates_are_events_by_time() -> None:
    view = View()
    view.count({"toy.labels": 100}, 1.0)
    assert view.rates == {}
    view.count({"toy.labels": 160}, 2.0)
    assert view.rates == {"toy.labels": 30.0}
    assert view.counts == {"toy.labels": 160}


def test_the_story_is_told_in_the_order_of_recording() -> None:
    view = View()
    view.see(promoted("toy-2", 20))
    view.see(promoted("toy-1", 10))
    told = drawn(view)
    assert told.index("toy-1") < told.index("toy-2")


def test_it_can_be_drawn_empty_full_and_narrow() -> None:
    view = View()
    assert "driftlog" in drawn(view)
    for day in range(60):
        view.see(measured(day, 0.4 + day / 100))
    view.count({"toy.predictions": 5}, 1.0)
    view.see(promoted("toy-1", 1))
    view.services = {"broker-1": "ready", "history": "down"}
    for width in (20, 80, 200):
        assert drawn(view, width)
    assert "0.990" in drawn(view)
    assert "toy-1" in drawn(view)


def test_bars_reach_from_the_lowest_to_the_highest() -> None:
    assert bars([0.0, 0.5, 1.0], 0.0, 1.0) == " ▄█"
    assert bars([2.0, 2.0], 2.0, 2.0) == "  "
