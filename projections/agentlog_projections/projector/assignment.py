"""Rebalancing of partitions among the live projectors, as a pure function of the state of the cluster.

Projectors that see the same state compute the same shares, so no two take one partition. While they see different
states, two may try; the condition on owner and position in every transaction lets only one of them write.

A projector that finds a record of a newer release gives that partition up. It leaves the partition to the other
projectors as long as there are any; when they are gone, it continues if they got past that record. Partitions that the
same projectors can fold are shared evenly among those, so no partition moves back and forth between two releases.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Rebuild: TypeAlias = Literal["none", "mine", "other"]
"""The rebuild in place that runs now, if any, and by whom; during it no other projector folds."""


@dataclass(frozen=True, slots=True)
class PartitionOwner:
    """Owner of a partition, None without one, and the position up to which it is folded.

    `stopped`: no projector has got past its next record. `refused_by`: projectors that cannot read that record and gave
    the partition up.
    """

    owner: str | None
    next_offset: int
    stopped: bool = False
    refused_by: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ClusterState:
    """State of the cluster in the database: the live projectors, in order, and the owners of partitions."""

    alive: Sequence[str]
    owned: Mapping[int, PartitionOwner]
    rebuild: Rebuild = "none"

    def of(self, owner: str) -> tuple[int, ...]:
        """Return the partitions of an owner."""
        return tuple(number for number, one in sorted(self.owned.items()) if one.owner == owner)

    def dead(self) -> list[str]:
        """Return the owners of partitions that are not alive."""
        return sorted({one.owner for one in self.owned.values() if one.owner is not None} - set(self.alive))

    def able(self, number: int, everybody: frozenset[str]) -> frozenset[str]:
        """Return the projectors of `everybody` that can fold a partition, as far as is known."""
        one = self.owned.get(number)
        if one is None:
            return everybody
        able = everybody - one.refused_by
        return able if able or one.stopped else everybody


@dataclass(frozen=True, slots=True)
class Rebalance:
    """Partitions that a projector gives up and takes, so that each projector has its share."""

    give_up: tuple[int, ...] = ()
    take: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        """Tell whether there is anything to do."""
        return bool(self.give_up or self.take)


def rebalance(me: str, partitions: Collection[int], cluster: ClusterState) -> Rebalance:
    """Return the partitions that `me` must give up and take to have its share of `partitions`."""
    mine = tuple(number for number in cluster.of(me) if number in partitions)
    match cluster.rebuild:
        case "other":
            return Rebalance(give_up=mine)
        case "mine":
            return Rebalance(take=tuple(sorted(set(partitions) - set(mine))))
        case "none":
            return _fair(me, sorted(partitions), cluster)


def _fair(me: str, partitions: Sequence[int], cluster: ClusterState) -> Rebalance:
    """Share partitions among the projectors that can fold them; those that can fold the fewest come first."""
    everybody = frozenset({me, *cluster.alive})
    alike: dict[frozenset[str], list[int]] = {}
    for number in partitions:
        alike.setdefault(cluster.able(number, everybody), []).append(number)
    choice = Counter(name for able, numbers in alike.items() for name in able for _ in numbers)
    changes = [
        _share(me, sorted(able, key=lambda name: (choice[name], name)), numbers, cluster)
        for able, numbers in alike.items()
    ]
    give_up = sorted(number for one in changes for number in one.give_up)
    return Rebalance(tuple(give_up), tuple(sorted(number for one in changes for number in one.take)))


def _share(me: str, able: Sequence[str], partitions: Sequence[int], cluster: ClusterState) -> Rebalance:
    """Give up the last ones beyond a share; assign free ones to the projectors that lack some, in their order."""
    mine = tuple(number for number in partitions if _owner(number, cluster) == me)
    least, more = divmod(len(partitions), len(able)) if able else (0, 0)
    free = tuple(number for number in partitions if _owner(number, cluster) not in {me, *cluster.alive})
    for place, name in enumerate(able):
        share = least + (place < more)
        has = sum(_owner(number, cluster) == name for number in partitions)
        taken, free = free[: max(0, share - has)], free[max(0, share - has) :]
        if name == me:
            return Rebalance(give_up=mine[share:], take=taken)
    return Rebalance(give_up=mine)


def _owner(number: int, cluster: ClusterState) -> str | None:
    one = cluster.owned.get(number)
    return None if one is None else one.owner
