"""Parsing of JSON bodies."""

import pytest
from hypothesis import given, strategies as st

from agentlog_facts.json_value import LEVELS, MOST_LEVELS, NUMBER_LIMIT, Json, dump, load
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
    b"[]" * 50 + b"],[" + b"[]" * 50,
    b"9" * 400 + b".0",
]
TEXTS = st.text(st.characters(exclude_characters="\\", exclude_categories=["Cs"]))


@pytest.mark.parametrize("body", WRONG, ids=lambda body: repr(body[:20]))
def test_what_is_no_json_is_refused(body: bytes) -> None:
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
    value = parse_body(b"[" * MOST_LEVELS + b"]" * MOST_LEVELS)
    spare = LEVELS - MOST_LEVELS - 1
    wrapped = b'{"in":' * spare + dump(value) + b"}" * spare
    assert dump(load(wrapped)) == wrapped


@pytest.mark.parametrize("levels", [MOST_LEVELS + 1, 200, 201, 5000])
def test_a_deeper_body_is_refused_with_the_reason_not_as_invalid_json(levels: int) -> None:
    with pytest.raises(Problem) as refused:
        parse_body(b'{"a":' * levels + b"1" + b"}" * levels)
    assert refused.value.status == 422
    assert refused.value.detail == "JSON in request body is nested deeper than 120 levels"


def test_a_number_that_other_readers_take_for_an_infinity_is_refused_and_the_next_smaller_one_is_taken() -> None:
    largest = NUMBER_LIMIT - 1
    assert parse_body(b'{"n":[%d,-%d]}' % (largest, largest)) == {"n": [largest, -largest]}
    for digits in (b"%d" % NUMBER_LIMIT, b"9" * 400, b"-" + b"9" * 400):
        with pytest.raises(Problem) as refused:
            parse_body(b'{"n":[' + digits + b"]}")
        assert (refused.value.status, "number" in refused.value.detail) == (422, True)
    with pytest.raises(Problem):
        parse_body(b"9" * 5000)


def test_nul_characters_become_replacement_characters_in_keys_and_values() -> None:
    assert parse_body(b'{"a\\u0000":["b\\u0000c"]}') == {"a\ufffd": ["b\ufffdc"]}
