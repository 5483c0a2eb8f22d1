"""Wire names and encodings: facts are read back as they were written, unknown ones are refused by name."""

from dataclasses import replace

import pytest
from tests.facts import commits as c
from tests.facts.commits import ON_THREAD, commit
from tests.facts.examples import EXAMPLES

from agentlog_facts import vocabulary
from agentlog_facts.envelope import Authorization, Delegation, Request
from agentlog_facts.errors import Corrupt, UnknownSchema
from agentlog_facts.json_value import Json, JsonObject, as_object, dump, load_object
from agentlog_facts.keyed_digest import KeyedDigest
from agentlog_facts.system import CommandRefused
from agentlog_facts.thread import RunCreated
from agentlog_facts.vocabulary import decode_commit, decode_fact, encode_commit, encode_fact, encode_facts, parse_commit

RELEASED = {
    "ThreadCreated": 1,
    "ThreadMetadataPatched": 1,
    "ThreadDeleted": 1,
    "StateUpdated": 1,
    "RunCreated": 1,
    "RunClaimed": 1,
    "RunReleased": 1,
    "RunAlive": 1,
    "RunCancelRequested": 1,
    "RunFinished": 1,
    "RunDeleted": 1,
    "AssistantCreated": 1,
    "AssistantRevised": 1,
    "CheckpointSaved": 1,
    "WritesSaved": 1,
    "CheckpointsHidden": 1,
    "StoreItemPut": 1,
    "StoreItemDeleted": 1,
    "PartitionOpened": 1,
    "CommandRefused": 1,
    "KafkaSettingsAccepted": 1,
}
"""Wire names of releases, with the schema of their first one: logs hold them for ever."""


def test_a_released_wire_name_stays_known_and_its_schema_never_falls() -> None:
    assert {name: vocabulary.SCHEMAS.get(name, 0) >= schema for name, schema in RELEASED.items()} == dict.fromkeys(
        RELEASED, True
    )


def test_every_fact_type_has_an_example() -> None:
    assert {type(fact) for fact in EXAMPLES} == set(vocabulary.FACTS.values())


@pytest.mark.parametrize("fact", EXAMPLES, ids=lambda fact: type(fact).__name__)
def test_a_fact_is_read_back_as_it_was_written(fact: object) -> None:
    stored = load_object(dump(encode_fact(fact)))  # type: ignore[arg-type]  # the examples are facts
    assert decode_fact(stored) == fact


def test_a_commit_is_read_back_as_it_was_written() -> None:
    draft = commit(c.thread_created(), c.run_created(due_at=c.NOW), demands={ON_THREAD: "absent"})
    assert decode_commit("t1", parse_commit(encode_commit(draft, encode_facts(draft)))) == draft


CHAIN = (
    Delegation("ana", "assistant-1", "https://login.example", ("threads:write",), "agentlog", "g2", "g1", c.NOW),
    Delegation("assistant-1", "run-1"),
)
FILTERED = Authorization("allow", "auth.py:on_create", "d" * 64, ("a", "b"), KeyedDigest("e" * 64, "key.ana"))


def test_delegations_and_the_authorisation_are_read_back_as_they_were_written() -> None:
    asked = Request("r-1", "POST", "/threads", "langgraph-sdk-py/0.3.1")
    cause = replace(commit(c.patched()).cause, on_behalf_of=CHAIN, authz=FILTERED, request=asked)
    draft = replace(commit(c.patched()), cause=cause)
    stored = load_object(encode_commit(draft, encode_facts(draft)))
    assert stored["on_behalf_of"] == [
        {
            "principal": "ana",
            "delegate": "assistant-1",
            "issuer": "https://login.example",
            "scopes": ["threads:write"],
            "audience": "agentlog",
            "grant_id": "g2",
            "parent_id": "g1",
            "expires_at": "2026-01-02T03:04:05.678901+00:00",
        },
        {"principal": "assistant-1", "delegate": "run-1"},
    ]
    assert stored["authz"] == {
        "decision": "allow",
        "policy": "auth.py:on_create",
        "policy_digest": "d" * 64,
        "scopes": ["a", "b"],
        "filter_digest": {"digest": "e" * 64, "salt_id": "key.ana"},
    }
    assert decode_commit("t1", parse_commit(dump(stored))) == draft


def commit_of_spec_1(*on_behalf_of: Json) -> JsonObject:
    request: JsonObject = {"id": "r-1", "method": "POST", "route": "/threads"}
    old = stored_commit() | {"spec": 1, "rules": 1, "on_behalf_of": [*on_behalf_of], "request": request}
    return {name: value for name, value in old.items() if name != "authz"}


def test_a_chain_of_names_is_read_as_delegations_up_to_the_actor_and_written_as_it_was() -> None:
    old = commit_of_spec_1("eva", "assistant-1")
    draft = decode_commit("t1", parse_commit(dump(old)))
    assert draft.cause.on_behalf_of == (Delegation("eva", "assistant-1"), Delegation("assistant-1", "ana"))
    assert (draft.cause.authz, draft.spec, draft.rules) == (None, 1, 1)
    assert encode_commit(draft, encode_facts(draft)) == dump(old)


def test_a_commit_of_spec_1_stays_readable_whatever_stands_in_fields_of_spec_2() -> None:
    request: JsonObject = {"id": "r", "method": "GET", "route": "/", "client": 7}
    old: JsonObject = {**commit_of_spec_1(), "authz": "none", "request": request}
    cause = decode_commit("t1", parse_commit(dump(old))).cause
    assert (cause.authz, cause.request) == (None, Request("r", "GET", "/"))


@pytest.mark.parametrize(
    "change",
    [
        {"on_behalf_of": ["ana"]},
        {"on_behalf_of": [{"principal": "ana"}]},
        {"on_behalf_of": [{"principal": "ana", "delegate": "run", "scopes": [1]}]},
        {"on_behalf_of": [{"principal": "ana", "delegate": "run", "expires_at": "soon"}]},
        {"authz": {"decision": "perhaps", "policy": "p", "policy_digest": "d", "scopes": [], "filter_digest": None}},
        {"authz": {"decision": "allow", "policy": "p", "policy_digest": "d", "scopes": [], "filter_digest": "f"}},
    ],
)
def test_a_cause_of_spec_2_that_is_not_of_its_shape_is_corrupt(change: JsonObject) -> None:
    with pytest.raises(Corrupt):
        decode_commit("t1", parse_commit(dump(stored_commit() | change)))


def stored_commit() -> JsonObject:
    draft = commit(c.thread_created())
    return load_object(encode_commit(draft, encode_facts(draft)))


@pytest.mark.parametrize("change", [{"spec": 3}, {"rules": 3}, {"spec": 99, "facts": {"of": "a later release"}}])
def test_another_spec_or_rules_version_is_not_judged(change: JsonObject) -> None:
    with pytest.raises(UnknownSchema):
        parse_commit(dump(stored_commit() | change))


def test_an_unknown_fact_type_is_named() -> None:
    with pytest.raises(UnknownSchema, match="ThreadPainted"):
        decode_fact({"type": "ThreadPainted", "schema": 1, "data": {}})


def test_a_newer_schema_of_a_known_type_is_not_read() -> None:
    with pytest.raises(UnknownSchema, match="ThreadCreated schema 2"):
        decode_fact({"type": "ThreadCreated", "schema": 2, "data": {}})


NO_COMMITS = (
    b"",
    b"[]",
    b"{",
    b"\xff",
    b'{"spec":1,"rules":1}',
    b"{}",
    b'{"spec":0,"rules":1}',
    b'{"spec":"2","rules":1}',
)


@pytest.mark.parametrize("value", NO_COMMITS)
def test_bytes_that_are_no_commit_are_corrupt(value: bytes) -> None:
    with pytest.raises(Corrupt) as caught:
        decode_commit("t1", parse_commit(value))
    assert not isinstance(caught.value, UnknownSchema), "it would stop a partition for ever"


def test_a_missing_field_is_named() -> None:
    with pytest.raises(Corrupt, match=r"ThreadCreated: field thread_id is missing"):
        decode_fact({"type": "ThreadCreated", "schema": 1, "data": {"metadata": {}}})


def test_a_field_of_another_type_is_named() -> None:
    with pytest.raises(Corrupt, match=r"ThreadCreated\.metadata: expected dict, found str"):
        decode_fact({"type": "ThreadCreated", "schema": 1, "data": {"thread_id": "t", "metadata": "x"}})


def test_the_envelope_holds_every_field_even_when_empty() -> None:
    draft = replace(commit(c.thread_created()), epoch=None)
    names = list(load_object(encode_commit(draft, encode_facts(draft))))
    assert names == [
        *("spec", "rules", "event_id", "append_id", "body_sha256", "stream", "demands", "epoch", "facts", "blobs"),
        *("occurred_at", "actor", "on_behalf_of", "authz", "correlation_id", "causation_id", "traceparent", "request"),
        *("provenance", "key_id"),
    ]


def test_a_refusal_of_schema_1_has_no_target_and_a_digest_without_a_salt() -> None:
    data: JsonObject = {"command": "CreateRun", "reason": "thread_busy", "body_sha256": "a" * 64, "count": 2}
    found = decode_fact({"type": "CommandRefused", "schema": 1, "data": data})
    assert found == CommandRefused("CreateRun", "thread_busy", {}, KeyedDigest("a" * 64, None), 2)


def test_a_field_that_was_added_later_is_stored_only_with_a_value_of_its_own() -> None:
    run = next(fact for fact in EXAMPLES if isinstance(fact, RunCreated))
    without = encode_fact(replace(run, thread_config=None))
    assert "thread_config" not in as_object(without["data"])
    assert decode_fact(without) == replace(run, thread_config=None)
    assert decode_fact(encode_fact(run)) == run
