"""Tests of the cache: its budget is a weight, so that large entries leave room for fewer."""

from agentlog_facts.lru import Lru


def test_entries_that_weigh_too_much_drop_those_used_longest_ago() -> None:
    cache: Lru[str, int] = Lru(100)
    for number, name in enumerate(("a", "b", "c")):
        cache.put(name, number, 30)
    assert cache.get("a") == 0
    cache.put("d", 3, 30)
    assert [name in cache for name in "abcd"] == [True, False, True, True]
    cache.put("c", 2, 95)  # an entry that has grown
    assert [name in cache for name in "abcd"] == [False, False, True, False]


def test_a_single_entry_may_weigh_more_than_the_budget() -> None:
    cache: Lru[str, int] = Lru(100)
    cache.put("a", 1, 1_000)
    assert cache.get("a") == 1
