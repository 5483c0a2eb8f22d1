"""Parsing of JSON bodies."""

import pytest
from hypothesis import given, strategies as st

from agentlog_facts.json_value import SPARE_LEVELS, Json, dump, load
from agentlog_gateway.http.body import parse_body
from agentlog_gateway.http.errors import INVALID_JSON, Problem

WRONG = [
    b"",
    b"{",
    b'{"a":NaN}',
    b"Infinity",
    b'"\xff"',
    b'"\\ud800"',
    b"1e999",
    b'{"a":' * 201 + b"1" + b"}" * 201,
    b"[" * 130 + b"]" * 130,
    b"[]" * 50 + b"],[" + b"[]" * 50,
    b"9" * 400 + b".0",
]
TEXTS = st.text(st.characters(exclude_characters="\\", exclude_categories=["Cs"]))


@pytest.mark.parametrize("body", WRONG, ids=lambda body: repr(body[:20]))
def test_what_is_no_json_or_too_deep_for_the_log_is_refused(body: bytes) -> None:
    with pytest.raises(Problem) as refused:
        parse_body(body)
    assert (refused.value.status, refused.value.detail) == (422, INVALID_JSON)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
        lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    )
)
def test_every_value_comes_in_as_it_was_sent_but_for_nul_characters(value: Json) -> None:
    assert parse_body(dump(value)) == load(dump(value).replace(b"\\u0000", b"\\ufffd"))


def test_the_deepest_body_that_is_taken_can_be_wrapped_and_read_again() -> None:
    deepest = 200 - SPARE_LEVELS
    value = parse_body(b"[" * deepest + b"]" * deepest)
    wrapped = b'{"in":' * (SPARE_LEVELS - 1) + dump(value) + b"}" * (SPARE_LEVELS - 1)
    assert dump(load(wrapped)) == wrapped


def test_nul_characters_become_replacement_characters_in_keys_and_values() -> None:
    assert parse_body(b'{"a\\u0000":["b\\u0000c"]}') == {"a\ufffd": ["b\ufffdc"]}
