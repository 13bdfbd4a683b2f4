"""What `driftlog models` shows of a registry."""

from __future__ import annotations

import json

import pytest

from driftlog.cli import models_text
from models.registry import Registry, RegistryState, explain
from schemas.event import Event
from tests.unit.models.model_parts import START_MS, asked, decided, registered
from tests.unit.models.test_lineage import events

HOUR = 3_600_000
GATE = {
    "name": "recent_log_loss",
    "value": 0.41,
    "baseline": 0.5,
    "threshold": 0.5,
    "count": 1_200,
    "passed": True,
}


@pytest.fixture
def state() -> RegistryState:
    later = START_MS + HOUR
    history: list[Event] = [
        asked("r0", START_MS, trigger="cold_start"),
        registered("wear-0", START_MS, "r0"),
        decided("wear-0", START_MS, request_id="r0"),
        asked("r1", later),
        *events(now=later)[:6],
        decided("wear-1", later, previous="wear-0", request_id="r1", gates=(GATE,)),
        decided("wear-0", later + HOUR, "ModelRolledBack", "wear-1"),
    ]
    return Registry().apply(Registry().initial(), history)


def test_the_lineage_leads_from_the_request_to_the_decisions(state: RegistryState) -> None:
    lineage = models_text.lineage(state, state.versions["wear-1"])
    assert json.loads(json.dumps(lineage)) == lineage, "plain data"
    text = models_text.lineage_text(lineage)
    for part in (
        "wear-1 of task wear\n",
        "drift: because of r1",
        "5 rows, 2 positive",
        "parent     wear-0",
        "1.2 s of fit and evaluation",
        "gate       recent_log_loss 0.4100 <= 0.5000 (champion 0.5000, 1,200 rows): passed",
    ):
        assert part in text, text
    assert "wear-0 of task wear, answers now" in models_text.lineage_text(
        models_text.lineage(state, state.versions["wear-0"])
    )


def test_an_explanation_says_who_when_and_on_which_numbers(state: RegistryState) -> None:
    found = explain(state, "wear", START_MS + HOUR)
    assert found is not None
    text = models_text.explanation_text(found.to_json())
    assert text.startswith(
        "wear-1 answered for wear from 2013-05-01 01:00 to 2013-05-01 02:00\n"
        "  decision   promoted by trainer: "
    )
    assert "trigger    drift: because of r1" in text
    assert "evidence   psi.size 0.3" in text
    first = explain(state, "wear", 0)
    assert first is not None
    assert "from the beginning to 2013-05-01 01:00" in models_text.explanation_text(first.to_json())


def test_the_table_names_the_version_that_answers(
    state: RegistryState, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [models_text.summary(state, version) for version in state.versions.values()]
    assert [(row["model_version"], row["live"]) for row in rows] == [
        ("wear-0", True),
        ("wear-1", False),
    ]
    models_text.print_table(rows)
    lines = [line for line in capsys.readouterr().out.splitlines() if "wear-" in line]
    assert [line.split()[-1] for line in lines] == ["live", "replaced"]
