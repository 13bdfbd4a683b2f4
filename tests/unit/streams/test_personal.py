"""What a task may declare personal, and what is said where it cannot be kept apart from the features."""

from __future__ import annotations

from typing import Any

import pytest

from consumers.history.tables import create_statement, event_table
from models.dataset import schema
from models.snapshot_file import Span, snapshot_sql
from schemas.catalogue import Topic
from schemas.compatibility import DEFAULT_LEVEL, incompatibilities, parse_avro
from schemas.safety import check_safe
from streams.features import assemble
from streams.personal import Personal
from streams.task import Category, Numeric, Task, TaskError

FEATURES = (Numeric("amount"), Category("shop"))
HIDDEN = Personal("customer_id", ("email", "phone"))


def task(personal: Any = HIDDEN) -> Task:
    return Task("orders", FEATURES, "late", personal=personal)


def predictions(declared: Task) -> Topic:
    return declared.topics()[0]


def test_personal_fields_are_sent_and_are_no_features() -> None:
    declared = task()
    assert declared.private == ("customer_id", "email", "phone")
    assert declared.given == ("amount", "shop") == tuple(declared.vector)
    asked = {"amount": 1.0, "shop": "a", "customer_id": "4711", "email": "a@b.c", "phone": None}
    assert assemble(declared, asked, 0, lambda _: None) == {"amount": 1.0, "shop": "a"}


def test_predictions_get_optional_fields_and_those_of_other_tasks_none() -> None:
    schema = predictions(task()).schemas[0]
    check_safe(schema)
    parse_avro(schema)
    plain = predictions(task(None)).schemas[0]
    more = schema["fields"][len(plain["fields"]) :]
    assert schema["fields"][: len(plain["fields"])] == plain["fields"]
    names = ["person", "personal_customer_id", "personal_email", "personal_phone"]
    assert [field["name"] for field in more] == names
    assert all(field["type"] == ["null", "string"] and field["default"] is None for field in more)


def test_personal_fields_may_come_and_go() -> None:
    """Old and new code read the same log, whatever was declared when."""
    declared = [None, Personal("id"), HIDDEN, Personal("customer_id", ("email",))]
    schemas = [predictions(task(personal)).value_schema for personal in declared]
    for new in schemas:
        assert incompatibilities(DEFAULT_LEVEL, new, schemas) == []


def test_a_plain_subject_stays_a_feature() -> None:
    declared = task(Personal("shop", ("email",), plain_subject=True))
    assert declared.private == ("email",)
    assert [f["name"] for f in predictions(declared).schemas[0]["fields"]][-2:] == [
        "person",
        "personal_email",
    ]


def test_the_history_keeps_ciphertext_in_columns_of_its_own_and_training_does_not_read_them() -> (
    None
):
    declared = task()
    created = create_statement(event_table(predictions(declared)))
    assert "`personal_email` Nullable(String)" in created
    assert "LowCardinality" not in next(x for x in created.splitlines() if "`person`" in x)
    offsets = {(topic.name, 0): 1 for topic in declared.topics()[:2]}
    assert "person" not in snapshot_sql(declared, Span(0, 1), offsets)
    assert not [name for name in schema(declared).names if "person" in name or "email" in name]


@pytest.mark.parametrize(
    ("personal", "said"),
    [
        (Personal(fields=("email",)), "no subject: say which field of a request names the person"),
        (Personal("id", "email"), r"fields='email' is no tuple: write \('name',\)"),  # type: ignore[arg-type]
        (Personal("id", ("amount",)), "'amount' is a feature, .* no model sees a personal field"),
        (Personal("shop", ("email",)), "'shop' is a feature, .* or say plain_subject=True"),
        (Personal("id", ("email",), plain_subject=True), "'id' is no Category of the task"),
        (Personal("amount", ("email",), plain_subject=True), "'amount' is no Category"),
        (Personal("shop", plain_subject=True), "nothing to encrypt"),
        (Personal("id", ("id",)), "'id' is declared twice"),
        (Personal("id", ("a", "a")), "'a' is declared twice"),
        (Personal("id", ("event_id",)), "'event_id' is reserved"),
        (Personal("id", ("E-Mail",)), "name 'E-Mail': use a-z, 0-9 and _"),
        (Personal("id", max_length=0), "max_length=0: must be 1 to 4096"),
        ("email", r"'email' is no Personal\(...\)"),
    ],
)
def test_what_cannot_be_kept_apart_is_refused(personal: Any, said: str) -> None:
    with pytest.raises(TaskError, match=f"task orders: personal: .*{said}"):
        task(personal)
