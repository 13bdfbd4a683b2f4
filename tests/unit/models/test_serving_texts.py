"""Free text at serving's door: as long as the task says, told in the OpenAPI document."""

from __future__ import annotations

import pytest

from driftlog.task_settings import check_settings
from models.serving.instances import MAX_TEXT, InstanceParser, InvalidRequest
from models.serving.openapi import predict_body
from streams.task import Category, Expect, Numeric, Rate, RolloutPolicy, Task, Text

MAIL = Task("mail", (Text("body", max_length=1_000), Category("desk"), Numeric("hour")), "x")
PARSER = InstanceParser(MAIL)


def asked(**given: object) -> dict[str, object]:
    body = {"instances": [{"body": "hello", "desk": "a", "hour": 1.0, **given}]}
    return dict(PARSER.parse(body, 0, lambda: "made")[0].instance)


@pytest.mark.parametrize("text", ["", "a" * 1_000, "\u00e9\U0001f600\n\t" * 200, None])
def test_a_text_comes_through_as_it_is(text: str | None) -> None:
    assert asked(body=text)["body"] == text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"body": "a" * 1_001}, "has 1001 characters, more than 1000"),
        ({"body": "\u00e9" * 1_001}, "has 1001 characters, more than 1000"),
        ({"body": "\ud800"}, "holds half a surrogate pair"),
        ({"body": 7}, "must be text, not the number 7"),
        ({"desk": "a" * (MAX_TEXT + 1)}, "more than 256"),
    ],
)
def test_what_is_no_text_of_the_task_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        asked(**given)


def test_the_document_says_how_long_a_text_may_be() -> None:
    body = predict_body([MAIL])["requestBody"]["content"]["application/json"]
    fields = body["schema"]["properties"]["instances"]["items"]["anyOf"][0]["properties"]
    assert fields["body"] == {"type": ["string", "null"], "maxLength": 1_000}
    example = body["examples"]["mail"]["value"]
    assert PARSER.parse(example, 0, lambda: "made")


def test_settings_of_a_text_that_cannot_work_are_told() -> None:
    task = Task(
        "mail",
        (Text("body", max_length=10**6, expect=Expect(minimum=1, max_unseen=0.1)), Numeric("n")),
        "x",
        rollout=RolloutPolicy(sticky_by="body"),
    )
    found = {problem.field: problem.message for problem in check_settings(task)}
    assert "from 1 to 32768" in found["features.body.max_length"]
    assert "a text has no such bound" in found["features.body.expect.minimum"]
    assert "only a Category has categories" in found["features.body.expect.max_unseen"]
    assert "no Numeric or Category" in found["rollout.sticky_by"]
    fine = Task("mail", (Text("body", expect=Expect(max_missing=0.1)), Rate("r", by=())), "x")
    assert not check_settings(fine)
