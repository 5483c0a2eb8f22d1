"""Ids of a request: new ids, or ids derived from its Idempotency-Key, which are the same for each retry."""

import hashlib
from dataclasses import dataclass
from uuid import UUID, uuid5

from agentlog_facts.envelope import Actor
from agentlog_facts.ports import Ids

NAMESPACE = UUID("5c0b6a1e-6a0a-5d0e-9d52-6f1b8f0c7d3a")
"""Root of all derived ids; stored history depends on it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Ids of an intent; `keyed`: the client gave an Idempotency-Key, so the intent may have been accepted before."""

    event_id: str
    keyed: bool

    def derived(self, name: str, ids: Ids) -> str:
        """Return the id of a thing that the request creates, the same for each retry of a keyed request."""
        return str(uuid5(UUID(self.event_id), name)) if self.keyed else ids.uuid7()


def identify(actor: Actor, method: str, path: str, key: str | None, ids: Ids, item: int | None = None) -> Identity:
    """Return the identity of a request; `path` is the concrete path, `item` the index in a batch."""
    if key is None:
        return Identity(ids.uuid7(), keyed=False)
    parts = [actor.iss or "", actor.sub, method, path, key, "" if item is None else str(item)]
    return Identity(str(uuid5(NAMESPACE, "\n".join(f"{len(part)}:{part}" for part in parts))), keyed=True)


def follow_up(event_id: str, name: int | str) -> str:
    """Return the event id of a further commit of the same intent."""
    return str(uuid5(UUID(event_id), str(name)))


def digest(body: bytes) -> str:
    """Return the SHA-256 (hex) of a command as received."""
    return hashlib.sha256(body).hexdigest()
