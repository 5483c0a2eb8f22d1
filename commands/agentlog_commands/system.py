"""Command of the log itself: AcceptKafkaSettings."""

from dataclasses import dataclass
from uuid import uuid5

from agentlog_commands.command import Accepted, Decision, Refused
from agentlog_commands.identity import NAMESPACE
from agentlog_facts.ids import Key, stream
from agentlog_facts.system import KafkaSettingsAccepted

KAFKA = stream("system", "kafka")
KAFKA_KEY = Key(KAFKA)


def acceptance_id(version: int) -> str:
    """Return the event id of an acceptance, which follows from its version: so the newest one can be looked up."""
    return str(uuid5(NAMESPACE, f"{KAFKA}:{version}"))


@dataclass(frozen=True, slots=True)
class AcceptKafkaSettings:
    """Accept settings of topics that Kafka does not show, in the order of the alphabet; none ends an acceptance."""

    settings: tuple[str, ...]
    host: str

    def decide(self, newest: KafkaSettingsAccepted | None) -> Decision:
        """Record the acceptance, or refuse with `nothing_to_do` if it is the newest one."""
        if self.settings == (newest.settings if newest is not None else ()):
            return Refused("nothing_to_do")
        return Accepted(KAFKA, (KafkaSettingsAccepted(self.settings, self.host),))
