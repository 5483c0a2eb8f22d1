"""Sequence whose longer versions share its memory: given items, then the prefixes that grew from it."""

import pytest

from agentlog_facts.growing_list import GrowingList


def test_a_longer_version_leaves_the_shorter_one_as_it_was() -> None:
    short = GrowingList("ab")
    longer = short.followed_by("c")
    assert (list(short), list(longer)) == (["a", "b"], ["a", "b", "c"])
    assert (len(short), short[1], short[-1], short[:9], longer[1:]) == (2, "b", "b", ["a", "b"], ["b", "c"])


def test_two_versions_that_grow_from_one_do_not_see_each_other() -> None:
    base = GrowingList("a")
    left, right = base.followed_by("l"), base.followed_by("r")
    assert (list(left.followed_by("1")), list(right)) == (["a", "l", "1"], ["a", "r"])


def test_a_position_beyond_the_prefix_is_an_error_although_the_memory_has_it() -> None:
    base = GrowingList("a")
    base.followed_by("b")
    for place in (1, -2):
        with pytest.raises(IndexError):
            base[place]


def test_it_is_equal_to_any_sequence_of_equal_items() -> None:
    assert GrowingList("ab") == ("a", "b")
    assert GrowingList("ab") != ["a"]
    assert GrowingList("ab") != 5
