"""Handlers for consumer groups and their offset commits, and for producer ids."""

import asyncio
from time import time_ns

from .coordinator import Group, Join, Joined
from .errors import Code, StorageFailed
from .requests import Request
from .settings import BrokerSettings
from .store import Store
from .wire import Writer


class Groups:
    """Handler of all requests about groups."""

    def __init__(self, store: Store, settings: BrokerSettings) -> None:
        self._store = store
        self._settings = settings
        self._groups: dict[str, Group] = {}
        self.address = (settings.host, settings.port)

    def _group(self, name: str) -> Group:
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = Group(name, self._settings)
        return group

    def find_coordinator(self, request: Request) -> bytes:
        """Return this server as the coordinator of every group."""
        reader, out, host_port = request.reader(), Writer(), self.address
        reader.string()
        kind = reader.i8() if request.version >= 1 else 0
        code = Code.NONE if kind == 0 else Code.INVALID_REQUEST  # no transactions here
        if request.version >= 1:
            out.i32(0).i16(code).string(None if code == 0 else "this server has no transactions")
        else:
            out.i16(code)
        return out.i32(self._settings.node_id).string(host_port[0]).i32(host_port[1]).done()

    def join(self, request: Request) -> None:
        """Handle JoinGroup; the response follows when the group is complete."""
        reader, version = request.reader(), request.version
        name, session_s = reader.string(), reader.i32() / 1000
        rebalance_s = reader.i32() / 1000 if version >= 1 else session_s
        member_id = reader.string()
        instance_id = reader.nullable_string() if version >= 5 else None
        kind = reader.string()
        protocols = dict(reader.array(lambda: (reader.string(), reader.blob())))

        def reply(joined: Joined) -> None:
            request.reply(_pack_joined(joined, version))

        if not name:
            reply(Joined(Code.INVALID_GROUP_ID, member_id))
            return
        join = Join(member_id, instance_id, request.client_id, request.host, session_s, rebalance_s, kind, protocols)
        self._group(name).join(join, reply)

    def sync(self, request: Request) -> None:
        """Handle SyncGroup; the response follows when the leader has sent its assignment."""
        reader, version = request.reader(), request.version
        name, generation, member_id = reader.string(), reader.i32(), reader.string()
        if version >= 3:
            reader.nullable_string()
        assignments = dict(reader.array(lambda: (reader.string(), reader.blob())))

        def reply(code: int, assignment: bytes) -> None:
            out = Writer().i32(0) if version >= 1 else Writer()
            request.reply(out.i16(code).blob(assignment).done())

        self._group(name).sync(member_id, generation, assignments, reply)

    def heartbeat(self, request: Request) -> bytes:
        """Return whether a member still belongs to its group."""
        reader = request.reader()
        name, generation, member_id = reader.string(), reader.i32(), reader.string()
        return self._code(request, self._group(name).check(member_id, generation))

    def leave(self, request: Request) -> bytes:
        """Remove a member from its group."""
        reader = request.reader()
        name, member_id = reader.string(), reader.string()
        code = self._group(name).leave(member_id)
        self._forget_if_unused(name)
        return self._code(request, code)

    def _forget_if_unused(self, name: str) -> None:
        if not self._groups[name].members and name not in self._store.catalog.offsets:
            del self._groups[name]

    @staticmethod
    def _code(request: Request, code: int) -> bytes:
        return (Writer().i32(0) if request.version >= 1 else Writer()).i16(code).done()

    # -- offsets

    async def commit(self, request: Request) -> bytes:
        """Store offsets durably, then return the response."""
        reader = request.reader()
        name, generation, member_id, _ = reader.string(), reader.i32(), reader.string(), reader.i64()
        wanted = reader.array(
            lambda: (reader.string(), reader.array(lambda: (reader.i32(), reader.i64(), reader.string())))
        )
        code = self._commit_objection(name, generation, member_id)
        codes: list[tuple[str, list[tuple[int, int]]]] = []
        rows: list[tuple[str, int, int, str]] = []
        for topic, parts in wanted:
            codes.append(
                (topic, [(index, code or self._row_objection(topic, index, text)) for index, _, text in parts])
            )
            rows += [(topic, *part) for part, (_, refused) in zip(parts, codes[-1][1], strict=True) if not refused]
        failed = Code.NONE
        if rows:
            try:
                await self._store.journal({"op": "offsets_committed", "group": name, "rows": rows})
            except StorageFailed:
                failed = Code.KAFKA_STORAGE_ERROR
        out = Writer().i32(0) if request.version >= 3 else Writer()
        out.i32(len(codes))
        for topic, parts_codes in codes:
            out.string(topic).array(parts_codes, lambda item: out.i32(item[0]).i16(item[1] or failed))
        return out.done()

    def _commit_objection(self, name: str, generation: int, member_id: str) -> int:
        if not name:
            return Code.INVALID_GROUP_ID
        group = self._groups.get(name)
        if generation < 0 and not member_id:  # a consumer that assigned its partitions itself
            return Code.UNKNOWN_MEMBER_ID if group is not None and group.members else Code.NONE
        if group is None:
            return Code.ILLEGAL_GENERATION if not member_id else Code.UNKNOWN_MEMBER_ID
        code = group.check(member_id, generation)
        if group.state == "CompletingRebalance" and code == Code.NONE:
            return Code.REBALANCE_IN_PROGRESS
        return Code.NONE if code == Code.REBALANCE_IN_PROGRESS else code

    def _row_objection(self, topic: str, index: int, text: str) -> int:
        if self._store.catalog.partition(topic, index) is None:
            return Code.UNKNOWN_TOPIC_OR_PARTITION
        too_long = len(text.encode()) > self._settings.offset_metadata_max_bytes
        return Code.OFFSET_METADATA_TOO_LARGE if too_long else Code.NONE

    def fetch_offsets(self, request: Request) -> bytes:
        """Return committed offsets, -1 for a partition that has none."""
        reader = request.reader()
        name = reader.string()
        wanted = reader.nullable_array(lambda: (reader.string(), reader.array(reader.i32)))
        stored = self._store.catalog.offsets.get(name, {})
        if wanted is None:
            by_topic: dict[str, list[int]] = {}
            for topic, index in stored:
                by_topic.setdefault(topic, []).append(index)
            wanted = list(by_topic.items())
        out = Writer().i32(0) if request.version >= 3 else Writer()
        out.i32(len(wanted))
        for topic, indexes in wanted:
            out.string(topic).i32(len(indexes))
            for index in indexes:
                offset, text = stored.get((topic, index), (-1, ""))
                out.i32(index).i64(offset).string(text).i16(Code.NONE)
        if request.version >= 2:
            out.i16(Code.NONE)
        return out.done()

    # -- looking at groups

    def list_groups(self, request: Request) -> bytes:
        """Return the names of all groups with members or offsets."""
        names = {name for name, group in self._groups.items() if group.members} | set(self._store.catalog.offsets)
        out = Writer().i32(0) if request.version >= 1 else Writer()
        kinds = [
            (name, self._groups[name].protocol_type if name in self._groups else "consumer") for name in sorted(names)
        ]
        return out.i16(Code.NONE).array(kinds, lambda item: out.string(item[0]).string(item[1])).done()

    def describe(self, request: Request) -> bytes:
        """Return the states and members of groups."""
        reader = request.reader()
        names = reader.array(reader.string)
        out = Writer().i32(0) if request.version >= 1 else Writer()

        def write(name: str) -> None:
            group = self._groups.get(name)
            out.i16(Code.NONE).string(name)
            if group is None:
                out.string("Empty" if name in self._store.catalog.offsets else "Dead").string("").string("").i32(0)
                return
            out.string(group.state).string(group.protocol_type).string(group.protocol)
            out.i32(len(group.members))
            for member in group.members.values():
                out.string(member.member_id).string(member.join.client_id).string(member.join.host)
                out.blob(member.join.protocols.get(group.protocol, b"")).blob(member.assignment)

        return out.array(names, write).done()


class ProducerIds:
    """Assignment of producer ids; the ids are reserved in blocks, so that most requests need no disk.

    After each start, the ids begin at the time in microseconds. A server that was restored from an older copy must not
    assign the id of a live producer again: the next record under it would be taken for a repeat and never be stored.
    """

    _BLOCK = 1000

    def __init__(self, store: Store) -> None:
        self._store = store
        self._next: int = max(store.catalog.next_producer_id, time_ns() // 1000)
        self._below: int = self._next
        self._lock = asyncio.Lock()

    async def init(self, request: Request) -> bytes:
        """Return a new producer id; refuse transactional ids."""
        if request.reader().nullable_string() is not None:
            return self._answer(Code.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, -1, -1)
        async with self._lock:
            if self._next == self._below:
                below = self._below + self._BLOCK
                try:
                    await self._store.journal({"op": "producer_ids_taken", "below": below})
                except StorageFailed:
                    return self._answer(Code.KAFKA_STORAGE_ERROR, -1, -1)
                self._below = below
            self._next += 1
            return self._answer(Code.NONE, self._next - 1, 0)

    @staticmethod
    def _answer(code: int, producer_id: int, epoch: int) -> bytes:
        return Writer().i32(0).i16(code).i64(producer_id).i16(epoch).done()


def _pack_joined(joined: Joined, version: int) -> bytes:
    out = Writer().i32(0) if version >= 2 else Writer()
    out.i16(joined.code).i32(joined.generation).string(joined.protocol).string(joined.leader).string(joined.member_id)
    out.i32(len(joined.members))
    for member_id, instance_id, metadata in joined.members:
        out.string(member_id)
        if version >= 5:
            out.string(instance_id)
        out.blob(metadata)
    return out.done()
