"""Facts of the log itself: how a partition begins, and mutations that were refused."""

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class PartitionOpened:
    """The first record of a partition: which log this is and where its positions begin.

    A position is `base` + offset, so that a restored or enlarged log (the next `generation`) never runs backwards.
    """

    log_id: str
    generation: int
    partition: int
    partitions: int
    base: int


@dataclass(frozen=True, slots=True)
class CommandRefused:
    """A mutation was refused: reason and digest, no payload. `count` > 1 sums up a burst."""

    command: str
    reason: str
    body_sha256: str
    count: int = 1


SystemFact: TypeAlias = PartitionOpened | CommandRefused
