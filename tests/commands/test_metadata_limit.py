"""Limit of metadata: bytes as JSON, and values at all levels together."""

from typing import NoReturn

import pytest
from hypothesis import given as for_all, strategies as st
from tests.commands.spec import given
from tests.facts import commits as c
from tests.facts.commits import ON_META, THREAD

from agentlog_commands.command import Accepted, Refused
from agentlog_commands.metadata_limit import MetadataLimit
from agentlog_commands.threads import CreateThread, PatchThread
from agentlog_facts import guard
from agentlog_facts.envelope import Draft
from agentlog_facts.json_value import Json, JsonObject, dump
from agentlog_facts.thread import ThreadMetadataPatched

LIMIT = MetadataLimit(max_bytes=1000, max_values=50)
ZERO: list[Json] = [0]


@pytest.mark.parametrize(
    "metadata",
    [
        {"a": "x" * 1000},
        {"x" * 1000: 1},
        {"a": [0] * 50},
        {"a": {str(n): n for n in range(50)}},
        {"a": [[[n] for n in range(10)], [[n] for n in range(10)], {str(n): n for n in range(10)}]},
        {"a": "ä" * 600},
        {"a": ["\n" * 100] * 6},
    ],
    ids=["text", "name", "list", "object", "nested", "two bytes each", "escaped"],
)
def test_metadata_is_too_large_by_bytes_or_by_values(metadata: JsonObject) -> None:
    refused = CreateThread(THREAD, metadata, LIMIT).decide()
    assert isinstance(refused, Refused)
    assert refused.reason == "metadata_too_large"
    assert refused.detail == "metadata is too large: at most 1000 bytes of JSON and 50 values are allowed"


def test_metadata_within_the_limit_is_accepted_to_the_last_byte_and_value() -> None:
    assert LIMIT.holds({"a": "x" * (1000 - len(dump({"a": ""})))})
    assert LIMIT.holds({"a": ZERO * 49})


def test_an_object_of_millions_of_values_costs_no_more_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    def encoded(given: Json) -> NoReturn:
        pytest.fail("the object was encoded")

    monkeypatch.setattr("agentlog_commands.metadata_limit.dump", encoded)
    assert not LIMIT.holds({"a": ZERO * 5_000_000})
    assert not LIMIT.holds({"a": "x" * 5_000_000})


VALUES: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=10), inner, max_size=8),
    max_leaves=80,
)


def count(value: Json) -> int:
    match value:
        case dict():
            return 1 + sum(map(count, value.values()))
        case list():
            return 1 + sum(map(count, value))
        case _:
            return 1


@for_all(st.dictionaries(st.text(max_size=10), VALUES, max_size=8))
def test_the_limit_counts_as_a_plain_walk_does(metadata: JsonObject) -> None:
    small = len(dump(metadata)) <= LIMIT.max_bytes and count(metadata) - 1 <= LIMIT.max_values
    assert LIMIT.holds(metadata) == small


def test_a_patch_is_measured_with_the_metadata_that_it_changes() -> None:
    before: JsonObject = {"a": "x" * 600}
    patch = PatchThread(THREAD, {"b": "x" * 600}, LIMIT)
    given(c.thread_created()).when(lambda state: patch.decide(state, before, 0)).then_refused("metadata_too_large")
    replaced = PatchThread(THREAD, {"a": "y" * 600}, LIMIT)
    given(c.thread_created()).when(lambda state: replaced.decide(state, before, 0)).then(
        ThreadMetadataPatched(THREAD, {"a": "y" * 600})
    )


def test_patches_that_could_exceed_the_limit_together_demand_the_metadata_that_they_saw() -> None:
    large, small = PatchThread(THREAD, {"b": "x" * 100}, LIMIT), PatchThread(THREAD, {"b": 1}, LIMIT)
    full: JsonObject = {"a": "x" * 600}
    state = given(c.thread_created())
    fact = ThreadMetadataPatched(THREAD, {"b": 1})
    assert state.when(lambda s: small.decide(s, {}, 3)).then(fact).demands == {ON_META: "exists"}
    assert state.when(lambda s: small.decide(s, full, 3)).then(fact).demands == {ON_META: 3}
    seen = state.when(lambda s: large.decide(s, {}, 3)).then(ThreadMetadataPatched(THREAD, large.metadata))
    assert seen.demands == {ON_META: 3}


def test_of_first_patches_that_exceed_the_limit_together_one_is_void_and_decided_again() -> None:
    head = guard.advance(guard.EMPTY, c.commit(c.thread_created()))
    state = given(c.thread_created())

    def first_patch(name: str) -> Draft:
        patch = PatchThread(THREAD, {name: "x" * 600}, LIMIT)
        decided = patch.decide(state.state, {}, None)
        assert isinstance(decided, Accepted)
        return c.commit(*decided.facts, stream=decided.stream, demands=decided.demands)

    one, other = first_patch("a"), first_patch("b")
    assert isinstance(guard.guard(head, None, one), guard.Accepted)
    assert guard.guard(guard.advance(head, one), None, other) == guard.Void("exists", ON_META, "absent", "0")
