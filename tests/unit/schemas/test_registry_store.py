from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import IncompatibleSchema, UnknownSchema
from schemas.registry import commands, records, store
from schemas.registry.canonical import canonical
from schemas.registry.faults import RegistryFault
from schemas.registry.records import Record
from schemas.registry.service import LocalRegistry, MemoryLog, Registry
from schemas.registry.store import State
from tests.unit.schemas.build import bomb, field, record

ONE = record(field("a", "int"))
TWO = record(field("a", "int"), field("b", "string", default=""))
BROKEN = record(field("a", "string"))


def given_(schema: Any) -> commands.Given:
    return commands.read_schema({"schema": json.dumps(schema)})


def folded(log: list[Record]) -> State:
    state = State()
    for one in log:
        store.apply(state, one)
    return state


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def reg(log: MemoryLog) -> Registry:
    return Registry(log)


def code_of(call: Any) -> int:
    with pytest.raises(RegistryFault) as refused:
        call()
    assert refused.value.message
    return refused.value.code


def test_the_record_format_is_that_of_confluent_and_karapace(reg: Registry, log: MemoryLog) -> None:
    reg.register("s-value", given_(ONE))
    assert log.records == [
        Record(
            b'{"keytype":"SCHEMA","subject":"s-value","version":1,"magic":1}',
            b'{"subject":"s-value","version":1,"id":1,"schema":'
            + json.dumps(json.dumps(ONE, separators=(",", ":"))).encode()
            + b',"deleted":false}',
        )
    ]


def test_ids_are_global_and_equal_schemas_share_one(reg: Registry) -> None:
    first = reg.register("one", given_(ONE))
    same = reg.register("two", given_({**ONE, "namespace": "demo"}))
    second = reg.register("one", given_(TWO))
    assert [(v.number, v.id) for v in (first, same, second)] == [(1, 1), (1, 1), (2, 2)]
    assert reg.register("one", given_(ONE)) == first
    assert reg.register("one", given_(TWO)) == second


def test_blanks_order_and_namespaces_make_no_new_schema_but_docs_do() -> None:
    written = {"fields": [{"type": {"type": "int"}, "name": "a"}], "name": "demo.Thing"}
    assert canonical({**written, "type": "record"}) == canonical(ONE)
    assert canonical({**ONE, "doc": "a thing"}) != canonical(ONE)


def test_the_state_is_a_fold_of_the_log(reg: Registry, log: MemoryLog) -> None:
    reg.register("one", given_(ONE))
    reg.register("one", given_(TWO))
    reg.register("two", given_(BROKEN))
    reg.change(lambda state: (commands.set_level("one", "NONE"), None))
    reg.change(lambda state: commands.delete_version(state, "one", 1, False))
    reg.change(lambda state: commands.delete_subject(state, "two", False))
    reg.change(lambda state: commands.delete_subject(state, "two", True))
    assert folded(log.records) == reg.read(lambda state: state)
    compacted = list({one.key: one for one in log.records}.values())
    after = folded([one for one in compacted if one.value is not None])
    assert after.subjects == reg.read(lambda state: state).subjects
    assert after.levels == {"one": "NONE"}


def test_deleted_versions_are_hidden_but_their_ids_stay_readable(reg: Registry) -> None:
    reg.register("s", given_(ONE))
    reg.register("s", given_(TWO))
    assert reg.change(lambda state: commands.delete_version(state, "s", None, False)) == 2
    state = reg.read(lambda state: state)
    assert [v.number for v in store.versions(state, "s")] == [1]
    assert [v.number for v in store.versions(state, "s", deleted=True)] == [1, 2]
    assert json.loads(state.texts[2]) == TWO
    again = reg.register("s", given_(TWO))
    assert (again.number, again.id) == (3, 2)


def test_a_hidden_subject_can_be_removed_and_begun_again(reg: Registry) -> None:
    reg.register("s", given_(ONE))
    drop = commands.delete_subject
    assert code_of(lambda: reg.change(lambda state: drop(state, "s", True))) == 40405
    assert reg.change(lambda state: drop(state, "s", False)) == [1]
    assert code_of(lambda: reg.change(lambda state: drop(state, "s", False))) == 40404
    assert reg.read(store.subjects) == []
    assert reg.change(lambda state: drop(state, "s", True)) == [1]
    assert code_of(lambda: reg.change(lambda state: drop(state, "s", False))) == 40401
    assert (reg.register("s", given_(BROKEN)).number, reg.read(lambda s: s.last_id)) == (1, 2)


def test_refusals_have_the_codes_of_the_rest_api(reg: Registry) -> None:
    reg.register("s", given_(ONE))
    version, drop = commands.version, commands.delete_version
    assert code_of(lambda: reg.register("s", given_(BROKEN))) == 409
    assert code_of(lambda: reg.register("", given_(ONE))) == 42208
    assert code_of(lambda: reg.register("x" * 300, given_(ONE))) == 42208
    assert code_of(lambda: given_(bomb())) == 42201
    assert code_of(lambda: given_({"type": "record"})) == 42201
    assert code_of(lambda: commands.read_schema({"schema": "{}", "schemaType": "JSON"})) == 42201
    assert code_of(lambda: commands.read_schema([])) == 42201
    assert code_of(lambda: reg.read(lambda state: version(state, "no", None))) == 40401
    assert code_of(lambda: reg.read(lambda state: version(state, "s", 9))) == 40402
    assert code_of(lambda: reg.change(lambda state: drop(state, "s", 1, True))) == 40407
    reg.change(lambda state: drop(state, "s", 1, False))
    assert code_of(lambda: reg.change(lambda state: drop(state, "s", 1, False))) == 40406
    assert code_of(lambda: commands.set_level("s", "OFTEN")) == 42203
    assert code_of(lambda: commands.set_mode("s", "DREAMING")) == 42204
    reg.change(lambda state: (commands.set_mode(None, "READONLY"), None))
    assert code_of(lambda: reg.register("s", given_(TWO))) == 42205


def test_level_and_mode_of_a_subject_come_before_those_of_all(reg: Registry) -> None:
    for subject, level in ((None, "BACKWARD"), ("s", "NONE")):
        reg.change(lambda state, s=subject, v=level: (commands.set_level(s, v), None))
    state = reg.read(lambda state: state)
    assert (store.level(state, "s"), store.level(state, "t")) == ("NONE", "BACKWARD")
    store.apply(state, records.config_record("s", None))
    assert store.level(state, "s") == "BACKWARD"


def test_records_of_karapace_are_read() -> None:
    """Karapace writes members in its own order, and a soft delete as a SCHEMA record."""
    schema = json.dumps(ONE)
    state = folded(
        [
            Record(
                b'{"keytype":"CONFIG","subject":null,"magic":0}', b'{"compatibilityLevel":"NONE"}'
            ),
            Record(
                b'{"keytype":"SCHEMA","subject":"k-value","version":1,"magic":1}',
                json.dumps(
                    {
                        "deleted": False,
                        "id": 41,
                        "references": [],
                        "schema": schema,
                        "subject": "k-value",
                        "version": 1,
                    }
                ).encode(),
            ),
            Record(b'{"keytype":"NOOP","magic":0}', b""),
            Record(b'{"keytype":"MODE","subject":"k-value","magic":0}', b'{"mode":"READONLY"}'),
        ]
    )
    assert store.subjects(state) == ["k-value"]
    assert store.find(state, "k-value", canonical(ONE)).id == 41  # type: ignore[union-attr]
    assert (state.last_id, store.level(state, "x"), store.mode(state, "k-value")) == (
        41,
        "NONE",
        "READONLY",
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)
keys = st.fixed_dictionaries(
    {},
    optional={
        "keytype": st.sampled_from(["SCHEMA", "CONFIG", "MODE", "DELETE_SUBJECT", "NOOP", 3]),
        "subject": st.sampled_from(["s", "", None, 4]),
        "version": st.sampled_from([1, 2, -1, True, "1", None]),
    },
)
values = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from([1, 2, 0, 2**40, "1", None]),
        "schema": st.sampled_from([json.dumps(ONE), "{", "", "[" * 3000, None, 7]),
        "deleted": json_values,
        "compatibilityLevel": json_values,
        "mode": json_values,
        "version": json_values,
    },
)
raw = st.binary(max_size=20) | json_values.map(records.dump) | values.map(records.dump)


@given(st.lists(st.tuples(keys.map(records.dump) | st.binary(max_size=9), st.none() | raw)))
def test_no_record_of_anybody_stops_the_fold(log: list[tuple[bytes, bytes | None]]) -> None:
    state = folded([Record(key, value) for key, value in log])
    for subject in store.subjects(state, deleted=True):
        assert all(v.id in state.texts for v in store.versions(state, subject, deleted=True))


def test_a_local_registry_answers_as_the_codec_expects() -> None:
    local = LocalRegistry()
    first = local.schema_id("s", ONE)
    assert local.schema_by_id(first) == ONE
    with pytest.raises(UnknownSchema, match="9"):
        local.schema_by_id(9)
    with pytest.raises(IncompatibleSchema, match="field 'a'"):
        local.schema_id("s", BROKEN)


class View(MemoryLog):
    """One registry's view of a shared topic: it sees what others wrote only after its own write."""

    def __init__(self, topic: list[Record]) -> None:
        super().__init__()
        self._topic = topic

    def append(self, records: Sequence[Record]) -> None:
        self._topic.extend(records)
        super().append(self._topic[len(self.records) :])


@pytest.mark.parametrize(
    ("before", "mine", "theirs"),
    [
        ([], ("s", ONE), ("s", TWO)),
        ([], ("s", ONE), ("t", BROKEN)),
        ([("t", TWO)], ("s", ONE), ("s", TWO)),
    ],
    ids=["same number and id", "same id", "same number"],
)
def test_of_two_registries_that_write_at_once_the_first_wins_for_ever(
    before: list[Any], mine: Any, theirs: Any
) -> None:
    topic: list[Record] = []
    one, two = Registry(View(topic)), Registry(View(topic))
    for subject, schema in before:
        one.register(subject, given_(schema))
    two.change(lambda _: ([records.noop_record()], None))  # two has seen what was before
    won = one.register(mine[0], given_(mine[1]))
    assert code_of(lambda: two.register(theirs[0], given_(theirs[1]))) == 50001
    again = two.register(theirs[0], given_(theirs[1]))
    one.change(lambda _: ([records.noop_record()], None))
    assert one.read(lambda state: state) == two.read(lambda state: state) == folded(topic)
    assert (won.subject, won.number) != (again.subject, again.number)
    compacted = folded(
        [r for i, r in enumerate(topic) if r.key not in {x.key for x in topic[i + 1 :]}]
    )
    for state in (one.read(lambda state: state), compacted):
        for version, schema in ((won, mine[1]), (again, theirs[1])):
            assert json.loads(state.texts[version.id]) == schema
            assert state.subjects[version.subject][version.number] == version
