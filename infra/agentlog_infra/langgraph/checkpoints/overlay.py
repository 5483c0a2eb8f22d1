"""Projected checkpoints with a saver's own, not yet projected facts on top."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from agentlog_facts.checkpoint import CheckpointFact
from agentlog_facts.checkpoint_ports import CheckpointReads, StoredCheckpoint, StoredWrite
from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import RunId, Stream, ThreadId
from agentlog_facts.json_value import JsonObject
from agentlog_infra.langgraph.checkpoints.checkpoint_fold import CheckpointKey, FoldedCheckpoints

FIRST_OWN_SEQ = 1 << 62
"""Own facts come after everything that was projected when their claim was accepted."""


class OverlaidReads:
    """A `CheckpointReads` that sees own facts at once. `ignores` drops projected writes that shall not count."""

    def __init__(self, reads: CheckpointReads, ignores: Callable[[StoredWrite], bool] | None = None) -> None:
        self._reads = reads
        self._ignores = ignores
        self._own = FoldedCheckpoints(FIRST_OWN_SEQ)

    def add(self, stream: Stream, facts: Sequence[CheckpointFact]) -> None:
        """Show these facts to every later read."""
        for fact in facts:
            self._own.apply(stream, fact)

    async def latest(self, thread_id: ThreadId, ns: str, exclude_run: RunId | None = None) -> StoredCheckpoint | None:
        """Return the last own checkpoint of the namespace, else the projected one."""
        own = self._own.latest(thread_id, ns)
        return await self._completed(own) if own else self._seen(await self._reads.latest(thread_id, ns, exclude_run))

    async def get(
        self, thread_id: ThreadId, ns: str, checkpoint_id: str, exclude_run: RunId | None = None
    ) -> StoredCheckpoint | None:
        """Return one checkpoint, own writes on it included."""
        own = self._own.get(CheckpointKey(thread_id, ns, checkpoint_id))
        if own:
            return await self._completed(own)
        return self._seen(await self._reads.get(thread_id, ns, checkpoint_id, exclude_run))

    async def history(
        self,
        thread_id: ThreadId | None,
        ns: str | None,
        before_checkpoint_id: str | None = None,
        limit: int | None = None,
        metadata: JsonObject | None = None,
    ) -> Sequence[StoredCheckpoint]:
        """Return own checkpoints first (they are newer), then projected ones that are not own."""
        every = self._own.all(thread_id, ns)
        own = _before(every, before_checkpoint_id)
        before = None if own is not None else before_checkpoint_id
        mine = [await self._completed(one) for one in own or () if _has(one, metadata)]
        known = {_key(one) for one in every}
        wanted = None if limit is None else limit + len(known)
        stored = await self._reads.history(thread_id, ns, before, wanted, metadata)
        rest = [seen for one in stored if _key(one) not in known and (seen := self._seen(one)) is not None]
        return [*mine, *rest][:limit]

    async def _completed(self, own: StoredCheckpoint) -> StoredCheckpoint:
        """Fetch channels that an own checkpoint took over unchanged from a projected one. Raises: Unavailable."""
        parent = own
        while self._own.lacks(own) and parent.parent_checkpoint_id:
            key = CheckpointKey(own.thread_id, own.checkpoint_ns, parent.parent_checkpoint_id)
            found = self._own.get(key) or self._seen(await self._reads.get(*_parts(key)))
            if found is None:  # never half a state: it would be stored as the thread's view
                raise Unavailable(f"checkpoint {own.checkpoint_id}: channels of its parent cannot be read")
            parent = found
        return self._own.get(_key(own)) or own

    def _seen(self, stored: StoredCheckpoint | None) -> StoredCheckpoint | None:
        if stored is None:
            return None
        self._own.remember(stored)
        kept = [write for write in stored.writes if self._ignores is None or not self._ignores(write)]
        return replace(stored, writes=(*kept, *self._own.writes(_key(stored))))


def _key(stored: StoredCheckpoint) -> CheckpointKey:
    return CheckpointKey(stored.thread_id, stored.checkpoint_ns, stored.checkpoint_id)


def _parts(key: CheckpointKey) -> tuple[ThreadId, str, str]:
    return key.thread_id, key.checkpoint_ns, key.checkpoint_id


def _before(own: list[StoredCheckpoint], checkpoint_id: str | None) -> list[StoredCheckpoint] | None:
    """Return the own ones before a checkpoint; None when it is no own one (then none of them is before it)."""
    if checkpoint_id is None:
        return own
    place = next((place for place, one in enumerate(own) if one.checkpoint_id == checkpoint_id), None)
    return None if place is None else own[place + 1 :]


def _has(stored: StoredCheckpoint, metadata: JsonObject | None) -> bool:
    return all(stored.metadata.get(name) == value for name, value in (metadata or {}).items())
