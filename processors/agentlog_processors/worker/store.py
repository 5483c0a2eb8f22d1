"""Store access for user code: from any loop, with retries while rows or log are away."""

import asyncio
from collections.abc import Iterator, Sequence

from agentlog_commands.store import WriteItems
from agentlog_facts import guard
from agentlog_facts.envelope import Cause
from agentlog_facts.errors import Quarantined, Unavailable
from agentlog_facts.json_value import dump
from agentlog_facts.ports import Clock
from agentlog_facts.store import StoreItemFact, store_key
from agentlog_facts.store_ports import Condition, Namespace, StoredItem, StoreReads, StoreRows
from agentlog_facts.vocabulary import encode_fact
from agentlog_processors import timeouts
from agentlog_processors.runs.dependencies import CommitWriter
from agentlog_processors.runs.retrying_reads import retrying
from agentlog_processors.runtime.loop_bridge import LoopBridge

_SUBJECT = "store"
COMMIT_BYTES = 512 * 1024
"""Most bytes of facts in one commit of several; a larger batch is split."""


class RunStoreReads:
    """Implements `store_ports.StoreReads`."""

    def __init__(self, bridge: LoopBridge, reads: StoreReads, clock: Clock) -> None:
        self._bridge = bridge
        self._reads = reads
        self._wait = (clock, timeouts.READS_PATIENCE.total_seconds())

    async def item(self, namespace: Namespace, key: str) -> StoredItem | None:
        """Return an item. Raises: Unavailable."""
        read = self._reads.item
        return await self._bridge.call(lambda: retrying(_SUBJECT, lambda: read(namespace, key), *self._wait))

    async def search(
        self, prefix: Namespace, where: Sequence[Condition], limit: int, offset: int
    ) -> Sequence[StoredItem]:
        """Return items under a prefix. Raises: Unavailable."""
        read = self._reads.search
        return await self._bridge.call(
            lambda: retrying(_SUBJECT, lambda: read(prefix, where, limit, offset), *self._wait)
        )

    async def namespaces(
        self,
        prefixes: Sequence[Namespace],
        suffixes: Sequence[Namespace],
        max_depth: int | None,
        limit: int,
        offset: int,
    ) -> Sequence[Namespace]:
        """Return namespaces. Raises: Unavailable."""
        read = self._reads.namespaces
        return await self._bridge.call(
            lambda: retrying(_SUBJECT, lambda: read(prefixes, suffixes, max_depth, limit, offset), *self._wait)
        )


class RunStore(RunStoreReads):
    """Implements `store_ports.StoreAccess`."""

    def __init__(self, bridge: LoopBridge, rows: StoreRows, writer: CommitWriter) -> None:
        super().__init__(bridge, rows, writer.clock)
        self._rows = rows
        self._writer = writer

    async def write(self, facts: Sequence[StoreItemFact], cause: Cause) -> None:
        """Append the facts, one commit per namespace if they fit into a record; wait until they are accepted.

        Raises: Quarantined, before anything is written; Unavailable: some facts may then be written, and no append is
        still in progress.
        """
        parts: dict[Namespace, list[StoreItemFact]] = {}
        for fact in facts:
            parts.setdefault(fact.namespace, []).append(fact)
        commands = [[WriteItems(namespace, some) for some in _batches(part)] for namespace, part in parts.items()]
        await self._bridge.call(lambda: self._write(commands, cause))

    async def _write(self, commands: Sequence[Sequence[WriteItems]], cause: Cause) -> None:
        for several in commands:
            await self._check(several[0].namespace)
        ends = await asyncio.gather(*(self._commit(several, cause) for several in commands), return_exceptions=True)
        for end in ends:  # all of them have ended: an append after the error could undo a later write
            if end is not None:
                raise end

    async def _check(self, namespace: Namespace) -> None:
        """Raises: Quarantined at once, Unavailable after retries."""

        partition = self._writer.log.partition_of(store_key(namespace))

        async def fault() -> Quarantined | None:
            try:
                await self._rows.check_writable(namespace, partition)
            except Quarantined as error:
                return error
            return None

        found = await retrying(_SUBJECT, fault, *self._wait)
        if found is not None:
            raise found

    async def _commit(self, commands: Sequence[WriteItems], cause: Cause) -> None:
        for command in commands:
            event_id = self._writer.ids.uuid7()
            verdict = await self._writer.commit(store_key(command.namespace), event_id, command.decide(), cause)
            if isinstance(verdict, guard.Void):  # the commit has no demands, so only a broken partition causes this
                raise Unavailable(f"store {command.namespace}: the log did not accept the items: {verdict.reason}")


def _batches(facts: Sequence[StoreItemFact]) -> Iterator[tuple[StoreItemFact, ...]]:
    """Split facts into commits that fit into records; many small values would only grow as blobs."""
    part: list[StoreItemFact] = []
    size_bytes = 0
    for fact in facts:
        own_bytes = len(dump(encode_fact(fact)))
        if part and size_bytes + own_bytes > COMMIT_BYTES:
            yield tuple(part)
            part, size_bytes = [], 0
        part.append(fact)
        size_bytes += own_bytes
    yield tuple(part)
