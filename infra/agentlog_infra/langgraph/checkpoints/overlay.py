"""Overlay of a saver's own facts, which are not all projected yet, over projected checkpoints; its budget in bytes."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from agentlog_facts.back_off import back_off
from agentlog_facts.checkpoint import (
    CheckpointFact,
    CheckpointKey,
    CheckpointSaved,
    VersionKey,
    WritesSaved,
    write_entries,
)
from agentlog_facts.checkpoint_ports import CheckpointQuery, CheckpointReads, StoredCheckpoint, StoredWrite, find_one
from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import RunId, Stream, ThreadId
from agentlog_infra import timeouts
from agentlog_infra.langgraph.checkpoints.checkpoint_fold import FoldedCheckpoints
from agentlog_infra.langgraph.checkpoints.filters import ExcludeRun, ExcludeThread
from agentlog_infra.langgraph.checkpoints.journal import RunJournal

Counted: TypeAlias = Callable[[Sequence[StoredWrite]], Sequence[StoredWrite]]
"""Selection of the pending writes on a checkpoint that count."""
FIRST_OWN_SEQ = 1 << 62
"""Own facts are newer than all facts that were projected when their claim was accepted."""

_NOTHING = object()
"""Equal to no value."""


@dataclass(slots=True)
class _OnKey:
    """Own facts on one checkpoint: how many wait for their commit, the version of the last commit; has it a child?"""

    waiting: int = 0
    version: int | None = None
    has_child: bool = False


class OverlayRoom:
    """Budget of an overlay over the facts of one journal.

    `projected` returns the version of the run's stream in the rows, None if they have nothing of it. The journal
    demands consecutive versions, so rows of a version hold the facts of all commits up to it.
    """

    def __init__(self, most_bytes: int, journal: RunJournal, projected: Callable[[], Awaitable[int | None]]) -> None:
        self.most_bytes = most_bytes
        self._journal = journal
        self._projected = projected
        self._rows_at = -1
        self._keys: dict[CheckpointKey, _OnKey] = {}
        journal.on_commit(self._committed)

    def added(self, fact: CheckpointSaved | WritesSaved) -> None:
        """Note an own fact that is given to the journal."""
        self._keys.setdefault(key_of(fact), _OnKey()).waiting += 1
        if isinstance(fact, CheckpointSaved) and fact.parent_checkpoint_id is not None:
            parent = CheckpointKey(fact.thread_id, fact.checkpoint_ns, fact.parent_checkpoint_id)
            if parent in self._keys:
                self._keys[parent].has_child = True

    def dropped(self, key: CheckpointKey) -> None:
        """Note that the overlay has dropped all facts on a checkpoint."""
        self._keys.pop(key, None)

    @property
    def keys(self) -> Sequence[CheckpointKey]:
        """Return the checkpoints on which the overlay has own facts."""
        return [*self._keys]

    def has_child(self, key: CheckpointKey) -> bool:
        """Return whether an own checkpoint in memory was built on this one, True in doubt."""
        return key not in self._keys or self._keys[key].has_child

    def is_projected(self, key: CheckpointKey) -> bool:
        """Return whether the rows hold all own facts on a checkpoint, as far as is known."""
        on = self._keys.get(key)
        return on is not None and not on.waiting and on.version is not None and on.version <= self._rows_at

    @property
    def may_wait(self) -> bool:
        """Return whether all facts reach the rows by themselves, if these are there."""
        return self._journal.is_writing

    async def look(self) -> None:
        """Ask for the version of the rows. Raises: Unavailable."""
        version = await self._projected()
        self._rows_at = -1 if version is None else version

    async def wait(self, is_enough: Callable[[], bool]) -> None:
        """Look until there is room, or until nothing comes into the rows any more because the journal has stopped.

        Raises: Unavailable after OVERLAY_PATIENCE_S.
        """
        pauses = back_off(timeouts.OVERLAY_FIRST_PAUSE_S, timeouts.OVERLAY_LONGEST_PAUSE_S)
        reason: Unavailable | None = None
        try:
            async with asyncio.timeout(timeouts.OVERLAY_PATIENCE_S):
                while self.may_wait:
                    try:
                        await self.look()
                    except Unavailable as error:
                        reason = error
                    if is_enough():
                        return
                    await asyncio.sleep(next(pauses))
        except TimeoutError:
            raise Unavailable(
                f"checkpoints of the run fill {self.most_bytes} bytes of memory, and the rows do not follow"
            ) from reason

    def _committed(self, facts: Sequence[CheckpointFact], version: int) -> None:
        for fact in facts:
            on = self._keys.get(key_of(fact)) if isinstance(fact, CheckpointSaved | WritesSaved) else None
            if on is not None:
                on.waiting -= 1
                on.version = version


def key_of(fact: CheckpointSaved | WritesSaved) -> CheckpointKey:
    """Return the checkpoint that a fact saves, or on which it writes."""
    return CheckpointKey(fact.thread_id, fact.checkpoint_ns, fact.checkpoint_id)


class OverlaidReads:
    """Checkpoint reads that show own facts at once. Implements `checkpoint_ports.CheckpointReads`.

    With a `room`, memory keeps the newest own checkpoint, and at most the bytes of the room beside it. The oldest own
    checkpoints are dropped once the rows hold them; reads then take them from the rows, in the same order.
    """

    def __init__(self, reads: CheckpointReads) -> None:
        self._rows = self._reads = reads
        self._counted: Counted | None = None
        self._counted_to = 0
        self._own = FoldedCheckpoints(FIRST_OWN_SEQ)
        self._room: OverlayRoom | None = None
        self._looking = asyncio.Lock()
        self._late: dict[CheckpointKey, dict[tuple[str, int], int]] = {}

    def limit(self, room: OverlayRoom) -> None:
        """Keep memory within a room; without one, it grows with every own fact."""
        self._room = room

    def is_new(self, thread_id: ThreadId) -> None:
        """Ask nothing about a thread that has no rows, until some of its own checkpoints are only there."""
        self._reads = ExcludeThread(self._rows, thread_id)

    def count_only(self, counted: Counted, newest_seq: int) -> None:
        """Show only those projected writes on a checkpoint that `counted` returns of them.

        Checkpoints after `newest_seq`, the newest one of earlier attempts, are own ones and show all their writes.
        """
        self._counted, self._counted_to = counted, newest_seq

    def exclude(self, run_id: RunId) -> None:
        """Show no projected checkpoint or write of a run; own facts stay, so the journal must hold them back."""
        self._reads = ExcludeRun(self._reads, run_id)

    @property
    def older_bytes(self) -> int:
        """Return the size of own facts in memory, and of what was read, beside the newest own checkpoint."""
        return self._own.older_bytes

    def add(self, stream: Stream, facts: Sequence[CheckpointFact]) -> None:
        """Add own facts; every later read shows them."""
        for fact in facts:
            if self._room is not None and isinstance(fact, CheckpointSaved | WritesSaved):
                if isinstance(fact, WritesSaved) and self._room.has_child(key_of(fact)):
                    self._note_late(fact)
                self._room.added(fact)
            self._own.apply(stream, fact)

    def has_list(self, key: VersionKey, stream: Stream) -> bool:
        """Return whether an own fact may append to this version of a channel, as stated on `stream`."""
        return self._own.has_list(key, stream)

    async def make_room(self, *, wait: bool) -> bool:
        """Drop what the budget does not allow and the rows hold; return whether anything was dropped.

        With `wait`, wait for the rows if they do not hold enough yet. Raises: Unavailable, if they do not follow.
        """
        if self._room is None or self._has_room():
            return False
        room, before = self._room, len(self._own)
        self._own.forget_reads(room.most_bytes)
        if not self._drop() and not self._looking.locked():
            async with self._looking:
                await room.wait(self._drop) if wait else await self._try(room)
        return len(self._own) < before

    async def _try(self, room: OverlayRoom) -> None:
        try:
            await room.look()
        except Unavailable:
            return  # the next checkpoint waits for the rows
        self._drop()

    def _has_room(self) -> bool:
        return self._room is None or self._own.older_bytes <= self._room.most_bytes

    def _drop(self) -> bool:
        """Drop projected facts, oldest first, while there are too many bytes; return whether there is room now."""
        room = self._room
        if room is None:
            return True
        if (
            self._counted is None
        ):  # else the rows may still have a write of an earlier attempt in the place of an own one
            for key in room.keys:
                if not self._has_room() and key not in self._own and room.is_projected(key):
                    self._forget(room, key)
        newest = self._own.newest
        for key in [*self._own]:
            if self._has_room() or (newest is not None and key == newest.key):
                return True  # what is left cannot be dropped
            if not room.is_projected(key):
                return False
            self._forget(room, key)
            if isinstance(self._reads, ExcludeThread):
                self._reads = self._rows
        return True

    def _forget(self, room: OverlayRoom, key: CheckpointKey) -> None:
        self._own.drop(key)
        room.dropped(key)

    def _note_late(self, fact: WritesSaved) -> None:
        """Note writes on a checkpoint that has a child already: the child was built without them."""
        key, seq = key_of(fact), self._own.last_seq + 1
        earlier = {(write.task_id, write.index) for write in self._own.writes(key, CheckpointQuery())}
        names = {(fact.task_id, index) for index, _, _ in write_entries(fact)} - earlier
        self._late.setdefault(key, {}).update(dict.fromkeys(names, seq))

    async def find(self, query: CheckpointQuery) -> Sequence[StoredCheckpoint]:
        """Return own checkpoints, which are newer, and then the other projected ones. Raises: Unavailable."""
        found = self._own.find(query)
        known = {*self._own.keys(query, query.checkpoint_id)}
        before_own = query.before is not None and any(self._own.keys(query, query.before))
        own = [await self._completed(one, query) for one in found]
        if len(own) == query.limit:
            return own
        known.update(self._own.keys(query, query.checkpoint_id))
        limit = None if query.limit is None else query.limit + len(known)
        projected = replace(query, limit=limit, before=None if before_own else query.before)
        stored = await self._reads.find(projected)
        shown = [*own, *(self._with_own_writes(one, query) for one in stored if one.key not in known)][: query.limit]
        if self._room is not None:
            self._own.forget_reads(self._room.most_bytes)
        return shown

    async def _completed(self, own: StoredCheckpoint, query: CheckpointQuery) -> StoredCheckpoint:
        """Fetch the channels that an own checkpoint shares with projected parents. Raises: Unavailable."""
        parent = own
        while own.key in self._own and self._own.lacks(own) and parent.parent_checkpoint_id:
            key = CheckpointKey(own.thread_id, own.checkpoint_ns, parent.parent_checkpoint_id)
            parent = self._own.get(key) or await self._projected(key, own)
        return self._own.get(own.key, query) or await self._projected(own.key, own)

    async def _projected(self, key: CheckpointKey, child: StoredCheckpoint) -> StoredCheckpoint:
        found = await find_one(self._reads, *key)
        if found is None:  # an incomplete state would be stored as the thread's view
            raise Unavailable(f"checkpoint {child.checkpoint_id}: channels of its parent cannot be read")
        return self._with_own_writes(found, CheckpointQuery())

    def _with_own_writes(self, stored: StoredCheckpoint, query: CheckpointQuery) -> StoredCheckpoint:
        self._own.remember(stored)
        kept: Sequence[StoredWrite] = stored.writes
        if self._counted is not None and query.as_of is None and stored.seq <= self._counted_to:
            kept = self._counted(kept)
        late = self._late.get(stored.key)
        if late is not None and query.as_of is not None and query.as_of >= FIRST_OWN_SEQ:
            kept = [write for write in kept if late.get((write.task_id, write.index), 0) < query.as_of]
        own = self._own.writes(stored.key, query)
        shown = {(write.run_id, write.task_id, write.index): write.value for write in own}
        kept = [w for w in kept if w.value != shown.get((w.run_id, w.task_id, w.index), _NOTHING)]
        return replace(stored, writes=(*kept, *own))
