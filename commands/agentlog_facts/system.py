"""Facts of the log itself: the start of a partition, refused mutations, accepted settings of Kafka."""

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class PartitionOpened:
    """The partition was opened. This is its first record, with the identity of the log and the base of its positions.

    A position is `base` + offset, so positions of a restored or enlarged log (the next `generation`) never go back.
    """

    log_id: str
    generation: int
    partition: int
    partitions: int
    base: int


@dataclass(frozen=True, slots=True)
class CommandRefused:
    """A mutation was refused: reason and digest, no payload. `count` > 1 sums up a burst of equal refusals."""

    command: str
    reason: str
    body_sha256: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class KafkaSettingsAccepted:
    """The operator vouched for settings of topics that Kafka does not show; this replaces the acceptance before it.

    Each of `settings` reads `topic setting=value needed`; none: no such setting is relied on any more. `host` is the
    name of the machine that was started with them.
    """

    settings: tuple[str, ...]
    host: str


SystemFact: TypeAlias = PartitionOpened | CommandRefused | KafkaSettingsAccepted
