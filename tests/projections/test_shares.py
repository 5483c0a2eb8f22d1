"""Shares: all partitions are folded, each by one, everybody has as many, and nothing moves without need."""

from collections.abc import Mapping

from hypothesis import given, strategies as st

from agentlog_projections.shares import Change, Owned, Standing, change

NAMES = ["a", "b", "c", "d", "e"]
owners = st.dictionaries(st.integers(0, 11), st.none() | st.sampled_from([*NAMES, "dead"]))
some = st.sets(st.sampled_from(NAMES), min_size=1)


def standing(owned: Mapping[int, str | None], alive: set[str]) -> Standing:
    return Standing(sorted(alive), {number: Owned(owner, 0) for number, owner in owned.items()})


def played(owned: Mapping[int, str | None], alive: set[str], count: int) -> dict[int, str | None]:
    """Let everybody change its share, twice: first those with too many give up, then those with too few take."""
    now: dict[int, str | None] = dict(owned)
    for _ in range(2):
        seen = standing(now, alive)
        for name in alive:
            todo = change(name, range(count), seen)
            now |= dict.fromkeys(todo.give_up)
            assert not [number for number in todo.take if now.get(number) in alive], "two reach for one partition"
            now |= dict.fromkeys(todo.take, name)
    return now


@given(owners, some, st.integers(1, 12))
def test_after_two_looks_everybody_has_its_share_and_then_nothing_moves(
    owned: dict[int, str | None], alive: set[str], count: int
) -> None:
    now = played(owned, alive, count)
    shares = [sum(now.get(number) == name for number in range(count)) for name in alive]
    assert sum(shares) == count
    assert max(shares) - min(shares) <= 1
    assert all(not change(name, range(count), standing(now, alive)) for name in alive)


@given(owners, some, st.integers(1, 12))
def test_nobody_gives_up_what_is_within_its_share(owned: dict[int, str | None], alive: set[str], count: int) -> None:
    for name in alive:
        has = sum(owned.get(number) == name for number in range(count))
        given_up = change(name, range(count), standing(owned, alive)).give_up
        assert len(given_up) <= max(0, has - count // len(alive))


def test_a_projector_that_nobody_has_seen_yet_counts_itself() -> None:
    assert change("new", range(2), standing({0: "old", 1: "old"}, {"old"})) == Change()
    assert change("new", range(2), standing({0: "old", 1: None}, {"old"})) == Change(take=(1,))


def test_during_a_rebuild_it_alone_folds() -> None:
    owned = {number: Owned("a", 0) for number in range(3)}
    assert change("a", range(3), Standing(("a",), owned, "other")) == Change(give_up=(0, 1, 2))
    assert change("rebuild", range(4), Standing(("a",), owned, "mine")) == Change(take=(0, 1, 2, 3))
    assert change("b", range(3), Standing(("b",), owned, "other")) == Change()
