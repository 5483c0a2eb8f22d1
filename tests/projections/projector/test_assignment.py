"""Shares of partitions: each has one projector, all shares are equal, and no partition moves without need."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given, strategies as st

from agentlog_projections.projector.assignment import ClusterState, PartitionOwner, Rebalance, rebalance

NAMES = ["a", "b", "c", "d", "e"]
owners = st.dictionaries(st.integers(0, 11), st.none() | st.sampled_from([*NAMES, "dead"]))
some = st.sets(st.sampled_from(NAMES), min_size=1)


def cluster(owned: Mapping[int, str | None], alive: set[str]) -> ClusterState:
    return ClusterState(sorted(alive), {number: PartitionOwner(owner, 0) for number, owner in owned.items()})


def played(owned: Mapping[int, str | None], alive: set[str], count: int) -> dict[int, str | None]:
    """Rebalance every projector twice: first those with too many give up, then those with too few take."""
    now: dict[int, str | None] = dict(owned)
    for _ in range(2):
        seen = cluster(now, alive)
        for name in alive:
            todo = rebalance(name, range(count), seen)
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
    assert all(not rebalance(name, range(count), cluster(now, alive)) for name in alive)


@given(owners, some, st.integers(1, 12))
def test_nobody_gives_up_what_is_within_its_share(owned: dict[int, str | None], alive: set[str], count: int) -> None:
    for name in alive:
        has = sum(owned.get(number) == name for number in range(count))
        given_up = rebalance(name, range(count), cluster(owned, alive)).give_up
        assert len(given_up) <= max(0, has - count // len(alive))


@given(owners, some, st.sets(st.sampled_from(NAMES)), st.sets(st.integers(0, 11)), st.integers(1, 12))
def test_what_an_old_projector_does_not_know_comes_to_rest_with_one_that_does(
    owned: dict[int, str | None], alive: set[str], old: set[str], newer: set[int], count: int
) -> None:
    """`newer` are the partitions whose next record projectors of `old` cannot fold."""
    tried: Counter[tuple[int, str]] = Counter()

    def met(number: int, one: PartitionOwner) -> PartitionOwner:
        if one.owner not in alive or number not in newer:
            return one
        if one.owner not in old:
            return replace(one, stopped=False)
        tried[number, one.owner] += 1
        return PartitionOwner(None, 0, stopped=True, refused_by=one.refused_by | {one.owner})

    now = {number: PartitionOwner(owned.get(number), 0) for number in range(count)}
    todo, looks = {"": Rebalance(take=(0,))}, 0
    while any(todo.values()):
        now = {number: met(number, one) for number, one in now.items()}
        todo = {name: rebalance(name, range(count), ClusterState(sorted(alive), now)) for name in sorted(alive)}
        for name, one in todo.items():
            now |= {number: replace(now[number], owner=None) for number in one.give_up}
            now |= {number: replace(now[number], owner=name) for number in one.take}
        looks += 1
        assert looks <= 3 * (1 + len(newer) * len(old)), "it comes to rest"
    assert all(times == 1 for times in tried.values()), "nobody takes again what it gave up"
    able = {number: alive - old if number in newer else alive for number in now}
    assert all(one.owner in able[number] or not able[number] for number, one in now.items())
    assert all(one.stopped and one.owner is None for number, one in now.items() if not able[number])


def test_where_who_knew_more_is_gone_an_old_projector_goes_on() -> None:
    past = PartitionOwner(None, 5, refused_by=frozenset({"old"}))
    assert rebalance("old", range(1), ClusterState(["old"], {0: past})) == Rebalance(take=(0,))
    assert rebalance("old", range(1), ClusterState(["old"], {0: replace(past, stopped=True)})) == Rebalance()
    with_new = ClusterState(["new", "old"], {0: replace(past, owner="new")})
    assert rebalance("old", range(1), with_new) == rebalance("new", range(1), with_new) == Rebalance()


def test_a_projector_that_nobody_has_seen_yet_counts_itself() -> None:
    assert rebalance("new", range(2), cluster({0: "old", 1: "old"}, {"old"})) == Rebalance()
    assert rebalance("new", range(2), cluster({0: "old", 1: None}, {"old"})) == Rebalance(take=(1,))


def test_during_a_rebuild_it_alone_folds() -> None:
    owned = {number: PartitionOwner("a", 0) for number in range(3)}
    assert rebalance("a", range(3), ClusterState(("a",), owned, "other")) == Rebalance(give_up=(0, 1, 2))
    assert rebalance("rebuild", range(4), ClusterState(("a",), owned, "mine")) == Rebalance(take=(0, 1, 2, 3))
    assert rebalance("b", range(3), ClusterState(("b",), owned, "other")) == Rebalance()
