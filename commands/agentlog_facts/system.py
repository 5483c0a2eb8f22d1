"""Facts of the log itself: the start of a partition, refused mutations, accepted settings of Kafka."""

from dataclasses import dataclass
from typing import TypeAlias

from agentlog_facts.json_value import JsonObject
from agentlog_facts.keyed_digest import KeyedDigest


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
    """A mutation was refused: reason and digest, no payload. `count` > 1 sums up a burst of equal refusals.

    `target` holds the ids of what the command was for, such as {thread_id, run_id}; a sum holds those that all refusals
    had in common. `body_digest` is that of the request, under the salt of the caller; None if there was no key. By
    schema 1, `target` is empty and the digest has no salt.
    """

    command: str
    reason: str
    target: JsonObject
    body_digest: KeyedDigest | None
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
