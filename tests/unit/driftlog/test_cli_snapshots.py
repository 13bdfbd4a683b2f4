"""`driftlog snapshots` and `driftlog quality` over a log and a history in memory."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from driftlog.cli import opened, quality, snapshots
from driftlog.cli.errors import CliError
from driftlog.cli.opened import Opened
from driftlog.cli.quality import quality_app
from driftlog.cli.snapshots import snapshots_app
from infra.settings import Settings
from schemas.event import Event
from streams.fold import Projector
from streams.quarantine import quarantined
from tests.unit.models.model_parts import UNTIL_MS, WEAR, asked, rows
from tests.unit.models.test_trainer_quality import (
    BOUNDED,
    DAY_ONE,
    LEAKY,
    Rows,
    leaking,
    lived,
    spoilt,
)
from tests.unit.streams.test_quarantine import report

Run = Callable[..., list[dict[str, Any]]]


class Instance:
    """An instance whose log is a list of events and whose history answers from a dataset."""

    def __init__(self, home: Path, patch: pytest.MonkeyPatch) -> None:
        self.settings = dataclasses.replace(Settings.from_env({}), home=home)
        self.events: list[Event] = []
        self.task, self.data = WEAR, rows(800)
        patch.setattr(opened.Opened, "append", lambda _, event: self.events.append(event))
        patch.setattr(opened.Opened, "event_time", lambda *_: UNTIL_MS)
        for module in (snapshots, quality):
            patch.setattr(module, "open_log", self._open)
        patch.setattr(snapshots, "_history", lambda _: Rows(self.task, self.data))
        patch.setattr(quality, "_dead_letters", lambda *_: [("wear.labels.dlq", 2)])
        offsets = {("wear.predictions", 0): 10, ("wear.labels", 0): 10}
        patch.setattr(snapshots, "_ends", lambda *_: offsets)

    def live(self, *requests: Event) -> None:
        self.events = lived(
            self.task, self.data, self.settings.artifacts, [*self.events, *requests]
        )

    def _open(self, title: str, folds: Any) -> Opened:
        projector = Projector(folds([self.task]))
        projector.feed(e for e in self.events if e.topic in projector.topics)
        return Opened(self.settings, {"wear": self.task}, None, projector.states)  # type: ignore[arg-type]


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Instance:
    return Instance(tmp_path, monkeypatch)


def cli(app: Any, *words: str) -> list[dict[str, Any]]:
    """The objects that a verb prints with --json, after a look at what it says to people."""
    if words[0] not in ("take", "export", "quarantine", "release"):
        told = CliRunner().invoke(app, list(words))
        if not told.exception:
            assert told.stdout.strip()
    result = CliRunner().invoke(app, [*words, "--json"])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_snapshots_are_listed_proved_exported_and_come_back(
    instance: Instance, tmp_path: Path
) -> None:
    instance.live(asked("r1", UNTIL_MS))
    listed = cli(snapshots_app, "list")
    about = sorted((one["purpose"], one["stored"]) for one in listed)
    assert about == [("golden", True), ("training", True)]
    verified = cli(snapshots_app, "verify")
    assert [one["equal"] for one in verified] == [True, True]
    training = next(one for one in listed if one["purpose"] == "training")
    (shown,) = cli(snapshots_app, "show", training["snapshot"][:8])
    assert shown["kept_because"] == ["wear-1 learned from it and answers"]

    out = tmp_path / "out" / "wear.parquet"
    (made,) = cli(snapshots_app, "export", training["snapshot"][:8], "--to", str(out))
    data = out.read_bytes()
    assert hashlib.sha256(data).hexdigest() == training["snapshot"]
    assert hashlib.md5(data).hexdigest() in Path(made["dvc"]).read_text("utf-8")
    with pytest.raises(CliError, match="is there already"):
        cli(snapshots_app, "export", training["snapshot"][:8], "--to", str(out))

    stored = instance.settings.artifacts / training["path"]
    stored.unlink()
    with pytest.raises(CliError, match="--restore` makes it anew"):
        cli(snapshots_app, "export", training["snapshot"], "--to", str(tmp_path / "other"))
    cli(snapshots_app, "verify", training["snapshot"], "--restore")
    assert stored.read_bytes() == data

    instance.data = rows(800, seed=2)  # another log
    with pytest.raises(CliError, match="2 of 2 snapshots differ from what the log gives"):
        cli(snapshots_app, "verify")
    with pytest.raises(CliError, match="no snapshot begins with 'xyz'"):
        cli(snapshots_app, "show", "xyz")


def test_prune_says_first_and_keeps_what_is_needed(instance: Instance) -> None:
    instance.live(asked("r1", UNTIL_MS))
    instance.data = rows(900, seed=4)
    instance.live(asked("r2", UNTIL_MS + 1))
    (taken,) = cli(snapshots_app, "take")
    assert (taken["purpose"], taken["caused_by"], taken["rows"]) == ("manual", None, 900)
    files = set((instance.settings.artifacts / "snapshots").iterdir())
    said = cli(snapshots_app, "prune", "--keep-last", "0")
    assert not any(one["deleted"] for one in said)
    assert set((instance.settings.artifacts / "snapshots").iterdir()) == files, "a dry run"
    going = {one["snapshot"] for one in said if not one["kept_because"]}
    gone = CliRunner().invoke(snapshots_app, ["prune", "--keep-last", "0", "--delete"])
    assert gone.exit_code == 0
    left = {path.stem for path in (instance.settings.artifacts / "snapshots").iterdir()}
    assert left == {path.stem for path in files} - going
    assert taken["snapshot"] in left


def test_what_was_checked_is_shown_and_people_have_the_last_word(instance: Instance) -> None:
    instance.task, instance.data = LEAKY, leaking(rows(800))
    window = report(3, True)
    instance.events.append(Event(window.topic, window.type, {**window.data, "task": "wear"}))
    instance.live(asked("r1", UNTIL_MS))
    *found, letters = cli(quality_app, "list")
    assert [(one["subject"], one["in_quarantine"]) for one in found] == [
        ("window", True),
        ("snapshot", False),
    ]
    assert letters == {"dead_letters": "wear.labels.dlq", "count": 2}
    (shown,) = cli(quality_app, "show", str(window.data["window_start"]))
    assert shown["checks"][0]["name"] == "range"
    with pytest.raises(CliError, match="no window of wear about 2031-01-01 was checked"):
        cli(quality_app, "show", "2031-01-01")

    start = str(window.data["window_start"] + 7)
    (said,) = cli(quality_app, "release", start, "--reason", "looked at it")
    assert (said["from_time"], said["to_time"]) == (
        window.data["window_start"],
        window.data["window_end"],
    )
    assert cli(quality_app, "quarantined") == []
    cli(quality_app, "quarantine", "5", "9", "--reason", "odd")
    (span,) = cli(quality_app, "quarantined")
    assert (span["from_time"], span["to_time"], span["reason"]) == (5, 9, "odd")
    with pytest.raises(CliError, match="ends before it begins"):
        cli(quality_app, "release", "9", "5", "--reason", "odd")
    with pytest.raises(CliError, match="--reason is empty"):
        cli(quality_app, "release", "9", "--reason", " ")


def test_a_quarantine_that_is_said_is_left_out_of_the_next_snapshot(instance: Instance) -> None:
    instance.task, instance.data = BOUNDED, spoilt()
    cli(quality_app, "release", str(DAY_ONE), "--reason", "40 was right")
    (all_of_it,) = cli(snapshots_app, "take")
    cli(quality_app, "quarantine", str(DAY_ONE), "--reason", "it was wrong after all")
    (without,) = cli(snapshots_app, "take")
    assert (all_of_it["rows"], without["rows"]) == (1_600, 1_520)
    assert without["excluded"][0]["reason"] == "it was wrong after all"
    state = instance._open("", quality.folds).states["wear.quality"]
    assert len(quarantined(state)) == 1
