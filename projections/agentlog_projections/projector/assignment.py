"""Rebalancing of partitions among the live projectors: pure, and the same for all that see the same cluster.

So two projectors do not reach for one partition. Where they see different things for a moment, both may try; the
condition on owner and position in every transaction lets one of them write.

A projector that met a record of a newer release has given that partition up. It leaves the partition to the other
projectors for as long as there are any; when they are gone, it goes on if they got past that record. Partitions that
the same projectors can fold are shared evenly among those, so none goes back and forth between two releases.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Rebuild: TypeAlias = Literal["none", "mine", "other"]
"""Whether somebody folds everything anew now, and then nobody else folds anything."""


@dataclass(frozen=True, slots=True)
class PartitionOwner:
    """Who folds a partition, and how far it is folded; `owner` None: nobody.

    `stopped`: nobody got past its next record; `refused_by` gave it up because they did not know what it holds.
    """

    owner: str | None
    next_offset: int
    stopped: bool = False
    refused_by: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ClusterState:
    """What the database says: who is alive, in the order in which they come, and who owns what."""

    alive: Sequence[str]
    owned: Mapping[int, PartitionOwner]
    rebuild: Rebuild = "none"

    def of(self, owner: str) -> tuple[int, ...]:
        """Return the partitions of an owner."""
        return tuple(number for number, one in sorted(self.owned.items()) if one.owner == owner)

    def dead(self) -> list[str]:
        """Return the owners of partitions who are not alive."""
        return sorted({one.owner for one in self.owned.values() if one.owner is not None} - set(self.alive))

    def able(self, number: int, everybody: frozenset[str]) -> frozenset[str]:
        """Return who of `everybody` can fold a partition, as far as is known."""
        one = self.owned.get(number)
        if one is None:
            return everybody
        able = everybody - one.refused_by
        return able if able or one.stopped else everybody


@dataclass(frozen=True, slots=True)
class Rebalance:
    """What a projector does so that everybody has its share; both empty: nothing."""

    give_up: tuple[int, ...] = ()
    take: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        """Tell whether there is anything to do."""
        return bool(self.give_up or self.take)


def rebalance(me: str, partitions: Collection[int], standing: ClusterState) -> Rebalance:
    """Return what `me` has to do about its share of `partitions`."""
    mine = tuple(number for number in standing.of(me) if number in partitions)
    match standing.rebuild:
        case "other":
            return Rebalance(give_up=mine)
        case "mine":
            return Rebalance(take=tuple(sorted(set(partitions) - set(mine))))
        case "none":
            return _fair(me, sorted(partitions), standing)


def _fair(me: str, partitions: Sequence[int], standing: ClusterState) -> Rebalance:
    """Share the partitions that the same projectors can fold among those; who can fold the fewest comes first."""
    everybody = frozenset({me, *standing.alive})
    alike: dict[frozenset[str], list[int]] = {}
    for number in partitions:
        alike.setdefault(standing.able(number, everybody), []).append(number)
    choice = Counter(name for able, numbers in alike.items() for name in able for _ in numbers)
    changes = [
        _share(me, sorted(able, key=lambda name: (choice[name], name)), numbers, standing)
        for able, numbers in alike.items()
    ]
    give_up = sorted(number for one in changes for number in one.give_up)
    return Rebalance(tuple(give_up), tuple(sorted(number for one in changes for number in one.take)))


def _share(me: str, able: Sequence[str], partitions: Sequence[int], standing: ClusterState) -> Rebalance:
    """Whoever has too many gives the last ones up; what is free goes to those who lack some, in their order."""
    mine = tuple(number for number in partitions if _owner(number, standing) == me)
    least, more = divmod(len(partitions), len(able)) if able else (0, 0)
    free = tuple(number for number in partitions if _owner(number, standing) not in {me, *standing.alive})
    for place, name in enumerate(able):
        share = least + (place < more)
        has = sum(_owner(number, standing) == name for number in partitions)
        taken, free = free[: max(0, share - has)], free[max(0, share - has) :]
        if name == me:
            return Rebalance(give_up=mine[share:], take=taken)
    return Rebalance(give_up=mine)


def _owner(number: int, standing: ClusterState) -> str | None:
    one = standing.owned.get(number)
    return None if one is None else one.owner
