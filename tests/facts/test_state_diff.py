"""Changes of a thread's JSON view: they lead exactly from before to after."""

from hypothesis import given, strategies as st

from agentlog_facts.json_value import Json, JsonObject, dump
from agentlog_facts.state_diff import apply_diff, diff_state

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.floats(allow_nan=False), st.text(max_size=3))
VALUES: st.SearchStrategy[Json] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=2), inner)),
    max_leaves=8,
)
VIEWS: st.SearchStrategy[JsonObject] = st.dictionaries(st.sampled_from(["a", "b", "c"]), VALUES)


@given(VIEWS, VIEWS)
def test_a_change_leads_from_before_to_after(before: JsonObject, after: JsonObject) -> None:
    assert dump(sorted_keys(apply_diff(before, diff_state(before, after)))) == dump(sorted_keys(after))


@given(VIEWS)
def test_equal_views_differ_by_nothing(view: JsonObject) -> None:
    assert diff_state(view, dict(view)) == {}


def test_a_list_that_only_grew_is_appended() -> None:
    assert diff_state({"m": [1, 2]}, {"m": [1, 2, 3]}) == {"append": {"m": [3]}}


def test_a_list_that_changed_is_set() -> None:
    assert diff_state({"m": [1, 2]}, {"m": [1, 3, 3]}) == {"set": {"m": [1, 3, 3]}}


def test_numbers_that_python_calls_equal_are_told_apart() -> None:
    assert diff_state({"m": 1}, {"m": True}) == {"set": {"m": True}}


def sorted_keys(view: JsonObject) -> JsonObject:
    return {key: view[key] for key in sorted(view)}
