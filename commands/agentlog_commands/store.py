"""Commands of the store: WriteItems."""

from dataclasses import dataclass

from agentlog_commands.command import Accepted
from agentlog_facts.ids import stream
from agentlog_facts.store import StoreItemFact, store_key


@dataclass(frozen=True, slots=True)
class WriteItems:
    """Put and delete items of one namespace in one commit; the last writer wins, so there are no demands."""

    namespace: tuple[str, ...]
    facts: tuple[StoreItemFact, ...]

    def decide(self) -> Accepted:
        """Always accept."""
        return Accepted(stream("store", store_key(self.namespace)), self.facts)
