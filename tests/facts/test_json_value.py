"""Bytes of JSON values; the log, the wire and the digests of both depend on each byte."""

import math

import pytest
from hypothesis import given, strategies as st

from agentlog_facts.json_value import Json, dump, load

BYTES: list[tuple[Json, bytes]] = [
    ({"b": 1, "a": [True, False, None]}, b'{"b":1,"a":[true,false,null]}'),
    ({"10": 0, "9": 0, "": 0}, b'{"10":0,"9":0,"":0}'),
    ([0.0, -0.0, 1.0, 0.1, 1.5e300, 5e-324], b"[0.0,-0.0,1.0,0.1,1.5e+300,5e-324]"),
    ([1e15, 1e16, 1e21, 0.00001, 0.000001], b"[1000000000000000.0,1e+16,1e+21,0.00001,1e-6]"),
    ([123456789012345680.0, 1.7976931348623157e308], b"[1.2345678901234568e+17,1.7976931348623157e+308]"),
    ([math.nan, math.inf, -math.inf], b"[null,null,null]"),
    ([2**53 + 1, 2**64, -(2**63) - 1, 10**30], b"[9007199254740993,%d,%d,%d]" % (2**64, -(2**63) - 1, 10**30)),
    ('"\\/\b\f\n\r\t', b'"\\"\\\\/\\b\\f\\n\\r\\t"'),
    ("\x00\x1f\x7f", b'"\\u0000\\u001f\x7f"'),
    ("\xe9\u2028\U0001f600", '"\xe9\u2028\U0001f600"'.encode()),
]


@pytest.mark.parametrize(("value", "expected"), BYTES)
def test_a_value_has_these_bytes_and_no_others(value: Json, expected: bytes) -> None:
    assert dump(value) == expected


@pytest.mark.parametrize("value", ["\ud800", {"\udfff": 1}])
def test_a_lone_surrogate_is_no_json(value: Json) -> None:
    with pytest.raises(ValueError, match="surrogates"):
        dump(value)


@pytest.mark.parametrize("text", [b"NaN", b"-Infinity", b"01", b"[1,]", b"{'a':1}", b"[" * 210 + b"]" * 210, b'"\xff"'])
def test_what_is_no_json_is_not_loaded(text: bytes) -> None:
    with pytest.raises(ValueError, match="line 1"):
        load(text)


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(values)
def test_a_value_comes_back_as_it_was_with_its_keys_in_order(value: Json) -> None:
    found = load(dump(value))
    assert found == value
    assert repr(found) == repr(value)
