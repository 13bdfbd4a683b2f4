from __future__ import annotations

from pathlib import Path

import pytest

from schemas.catalogue import system_topics
from schemas.markdown import events_page

PAGE = Path(__file__).parents[3] / "docs" / "events.md"


def test_the_checked_in_page_is_up_to_date() -> None:
    assert PAGE.read_text("utf-8") == events_page(), "run `driftlog schemas docs`"


@pytest.mark.parametrize(
    "line",
    [
        "### `<task>.predictions`",
        "Key: `event_id`. Subject: `<task>.predictions-value`.",
        "| `caused_by` | string, or null | `null` |",
        "| `window_start` | timestamp (ms) |  |",
        "| `columns[].counts` | array of long |  |",
        "| `totals` | map of long | `{}` |",
        "| `gates[].baseline` | double, or null | `null` |",
        "'score\\|0'",
    ],
)
def test_the_page_tells(line: str) -> None:
    assert line in events_page()


def test_every_type_and_field_is_there() -> None:
    page = events_page()
    for topic in system_topics():
        assert f"### `{topic.name}`" in page
        for schema in topic.schemas:
            section = page.split(f"**{schema['name']}**")[1].split("\n**")[0].split("\n#")[0]
            for part in schema["fields"][3:]:
                assert f"| `{part['name']}` |" in section
